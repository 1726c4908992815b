//! Queues served on the shared event loop, for devices too slow to deserve a thread.

#[cfg(test)]
mod tests;

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use event_manager::{EventOps, Events, MutEventSubscriber};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::chain::{self, Chain, ChainError, Limits};
use super::{ActivateError, Activation, ActiveQueue, DeviceEvents};
use crate::GuestMemory;
use crate::event_loop::{LoopHandle, Registration};

/// Chains served before other devices have their turn.
const BATCH: usize = 16;

/// The device-specific part: what to do with a chain of a queue.
pub(super) trait Handler: Send + 'static {
    /// Limits of a chain.
    const LIMITS: Limits;

    /// Whether there is anything to do for queue `number`; if not, its chains stay available.
    fn ready(&mut self, _number: usize) -> bool {
        true
    }

    /// Serves one chain of queue `number`; tells how many bytes it wrote.
    ///
    /// # Errors
    /// When the chain breaks the rules; the device then needs a reset.
    fn handle(
        &mut self,
        number: usize,
        memory: &GuestMemory,
        chain: &Chain,
    ) -> Result<u32, ChainError>;
}

/// An active device: its queues and its handler.
pub(super) struct Service<H> {
    memory: GuestMemory,
    queues: Vec<ActiveQueue>,
    events: Arc<dyn DeviceEvents>,
    handler: H,
    chain: Chain,
    broken: bool,
}

/// Where a device keeps its service, when it is active.
pub(super) type Slot<H> = Arc<Mutex<Option<Service<H>>>>;

impl<H: Handler> Service<H> {
    /// Serves queue `number` as far as it goes, within a batch.
    pub(super) fn serve(&mut self, number: usize) {
        if self.broken || !self.queues[number].queue.ready() {
            return;
        }
        if let Err(error) = self.try_serve(number) {
            self.broken = true;
            self.events.needs_reset(&format!("queue {number}: {error}"));
        }
    }

    fn try_serve(&mut self, number: usize) -> Result<(), ChainError> {
        let mut served = 0;
        loop {
            let queue = &mut self.queues[number].queue;
            queue.disable_notification(&self.memory)?;
            served += self.drain(number, BATCH - served)?;
            let queue = &mut self.queues[number].queue;
            let more = queue.enable_notification(&self.memory)?;
            if !more || !self.handler.ready(number) {
                break;
            }
            if served >= BATCH {
                // The rest comes after the others; a full counter wakes just as well.
                let _ = self.queues[number].kick.write(1);
                break;
            }
        }
        let queue = &mut self.queues[number];
        if served > 0 && queue.queue.needs_notification(&self.memory)? {
            queue.interrupt.notify();
        }
        Ok(())
    }

    /// Serves up to `limit` chains and tells how many it were.
    fn drain(&mut self, number: usize, limit: usize) -> Result<usize, ChainError> {
        let queue = &mut self.queues[number].queue;
        for served in 0..limit {
            if !self.handler.ready(number)
                || !chain::pop(queue, &self.memory, H::LIMITS, &mut self.chain)?
            {
                return Ok(served);
            }
            let written = self.handler.handle(number, &self.memory, &self.chain)?;
            queue.add_used(&self.memory, self.chain.head, written)?;
        }
        Ok(limit)
    }
}

/// Puts a service into `slot` and on the loop. Dropping the result takes it off the loop.
///
/// # Errors
/// When the process is out of descriptors.
pub(super) fn start<H: Handler>(
    events: &LoopHandle,
    slot: &Slot<H>,
    activation: Activation,
    handler: H,
) -> Result<Registration, ActivateError> {
    let kicks: std::io::Result<Vec<EventFd>> = activation
        .queues
        .iter()
        .map(|queue| queue.kick.try_clone())
        .collect();
    let kicks = kicks.map_err(|source| ActivateError::Host {
        what: "duplicate a queue's event",
        source,
    })?;
    *slot.lock().unwrap() = Some(Service {
        memory: activation.memory,
        queues: activation.queues,
        events: activation.events,
        handler,
        chain: Chain::default(),
        broken: false,
    });
    Ok(events.register(Box::new(Server {
        kicks,
        slot: Arc::clone(slot),
    })))
}

/// Takes the service out of `slot` and gives its queues back. A batch being served is finished first.
pub(super) fn stop<H>(slot: &Slot<H>) -> Vec<Queue> {
    let service = slot.lock().unwrap().take();
    let queues = service.map(|service| service.queues).unwrap_or_default();
    queues.into_iter().map(|queue| queue.queue).collect()
}

/// The service's place on the loop.
struct Server<H> {
    kicks: Vec<EventFd>,
    slot: Slot<H>,
}

impl<H: Handler> MutEventSubscriber for Server<H> {
    fn init(&mut self, ops: &mut EventOps) {
        for (number, kick) in self.kicks.iter().enumerate() {
            if let Err(error) = ops.add(Events::with_data(kick, number as u32, EventSet::IN)) {
                tracing::error!(%error, number, "queue cannot be served");
            }
        }
    }

    fn process(&mut self, events: Events, _: &mut EventOps) {
        let number = events.data() as usize;
        let Some(kick) = self.kicks.get(number) else {
            return;
        };
        debug_assert_eq!(kick.as_raw_fd(), events.fd());
        let _ = kick.read();
        if let Some(service) = self.slot.lock().unwrap().as_mut() {
            service.serve(number);
        }
    }
}
