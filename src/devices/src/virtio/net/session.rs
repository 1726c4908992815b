//! The thread that moves the packets of one pair of queues where the kernel does not.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::filter::Filter;
use super::receive::Receiver;
use super::statistics::Statistics;
use super::transmit::Transmitter;
use crate::GuestMemory;
use crate::tap::Tap;
use crate::virtio::chain::ChainError;
use crate::virtio::queue_thread::Serve;
use crate::virtio::wait::{borrow, wait_for, wait_for_fds};
use crate::virtio::{ActiveQueue, DeviceEvents};

/// Packets moved in one direction before the other, and a stop, are looked at.
const BUDGET: usize = 64;

/// What stays between activations.
pub(super) struct Worker {
    pub tap: Arc<Tap>,
    pub filter: Arc<Filter>,
    pub statistics: Arc<Statistics>,
}

/// The pair of queues, to be served from now on.
pub(super) struct Start {
    pub memory: GuestMemory,
    pub features: u64,
    pub receive: ActiveQueue,
    pub transmit: ActiveQueue,
    pub events: Arc<dyn DeviceEvents>,
}

impl Worker {
    fn pump(
        &self,
        receiver: &mut Receiver,
        transmitter: &mut Transmitter,
        memory: &GuestMemory,
        stop: &EventFd,
    ) -> Result<(), ChainError> {
        // There may be packets from before the activation, whose kick nobody will repeat.
        let (mut receive_more, mut transmit_more) = (true, true);
        loop {
            let busy = receive_more || transmit_more;
            // Nobody reads packets while there is no room for one: then the tap's own queue
            // fills up and drops, as a wire does.
            let tap = if receiver.open() {
                self.tap.as_fd()
            } else {
                borrow(stop)
            };
            let [stopped, kicked_receive, kicked_transmit, arrived] = wait_for_fds(
                [
                    borrow(stop),
                    borrow(&receiver.kick),
                    borrow(&transmitter.kick),
                    tap,
                ],
                !busy,
            );
            if stopped {
                return Ok(());
            }
            // Each was readable, and nobody else reads them.
            if kicked_receive {
                let _ = receiver.kick.read();
                receiver.unblock();
            }
            if kicked_transmit {
                let _ = transmitter.kick.read();
            }
            let (tap, statistics) = (&*self.tap, &*self.statistics);
            if transmit_more || kicked_transmit {
                transmit_more = transmitter.run(tap, memory, statistics, BUDGET)?;
            }
            if receive_more || kicked_receive || arrived {
                let rules = self.filter.rules();
                receive_more = receiver.run(tap, memory, &rules, statistics, BUDGET)?;
            }
        }
    }
}

impl Serve for Worker {
    type Start = Start;
    type End = [ActiveQueue; 2];

    fn serve(&mut self, start: Start, stop: &EventFd) -> [ActiveQueue; 2] {
        let mut receiver = Receiver::new(start.receive, start.features);
        let mut transmitter = Transmitter::new(start.transmit);
        let result = self.pump(&mut receiver, &mut transmitter, &start.memory, stop);
        if let Err(error) = result {
            tracing::warn!(%error, "network queues stopped");
            start.events.needs_reset(&error.to_string());
            // The rings are left alone, but a reset must still find somebody to answer it.
            wait_for(stop);
        }
        [receiver.into_queue(), transmitter.into_queue()]
    }
}
