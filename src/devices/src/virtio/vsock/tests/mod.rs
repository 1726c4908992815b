//! The part that is not the kernel's, with a carrier that moves nothing; and, on hosts that have
//! vhost-vsock, connections.

mod events;
mod hostile;
mod lifecycle;
mod vhost;

use std::sync::mpsc;

use event_manager::{EventOps, Events, MutEventSubscriber};
use vm_memory::{Bytes, GuestAddress};

use super::parked::CID;
use super::*;
use crate::event_loop::EventLoop;
use crate::virtio::test_driver::{DriverQueue, PATIENCE, TestEvents, readable, writable};

const MEMORY: usize = 1 << 20;
/// Rings below, data from here on.
const DATA: u64 = 0x4_0000;
const EVENT: usize = 2;

/// A carrier that the host refuses to start.
struct Refused;

impl Carrier for Refused {
    fn features(&self) -> u64 {
        0
    }

    fn start(&mut self, _: &GuestMemory, _: u64, _: Vec<ActiveQueue>) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    }

    fn stop(&mut self) -> Vec<Queue> {
        Vec::new()
    }
}

struct Rig {
    device: Vsock,
    memory: GuestMemory,
    events: Arc<TestEvents>,
    queues: Vec<DriverQueue>,
    event_loop: LoopHandle,
}

impl Rig {
    /// Not activated yet.
    fn new() -> Self {
        Self::on(Vsock::parked)
    }

    fn on(device: impl FnOnce(&LoopHandle) -> Vsock) -> Self {
        let event_loop = EventLoop::new().unwrap();
        let handle = event_loop.handle();
        event_loop.spawn("vsock-test", || {}).unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        Self {
            device: device(&handle),
            queues: driver(&memory),
            memory,
            events: Arc::default(),
            event_loop: handle,
        }
    }

    fn start(&mut self) {
        let queues = self.queues.iter().map(DriverQueue::device_side).collect();
        self.activate(queues).unwrap();
    }

    fn activate(&mut self, queues: Vec<ActiveQueue>) -> Result<(), ActivateError> {
        self.device.activate(Activation {
            memory: self.memory.clone(),
            features: 1 << 32 | STREAM,
            queues,
            events: Arc::clone(&self.events) as _,
        })
    }

    /// Goes on with queues that the device gave back, as the transport does: with a kick.
    fn resume(&mut self, queues: Vec<Queue>) {
        let queues = self.queues.iter().zip(queues);
        let queues = queues.map(|(driver, queue)| driver.activation(queue));
        let queues = queues.collect();
        self.activate(queues).unwrap();
        for queue in &self.queues {
            queue.kick();
        }
    }

    fn restore(&mut self) {
        let state = self.device.save();
        self.device.restore(&state).unwrap();
    }

    /// Waits until the loop has looked at all queues kicked before. The first turn may be the one in
    /// which it gets to know them.
    fn settle(&self) {
        for _ in 0..3 {
            let (passed, turn) = mpsc::channel();
            let registration = self.event_loop.register(Box::new(Milestone(passed)));
            turn.recv_timeout(PATIENCE).expect("the loop lives");
            drop(registration);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.event_loop.stop();
    }
}

/// Something on the loop that tells when the loop comes by.
struct Milestone(mpsc::Sender<()>);

impl MutEventSubscriber for Milestone {
    fn init(&mut self, _: &mut EventOps) {
        self.0.send(()).unwrap();
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {}
}

fn driver(memory: &GuestMemory) -> Vec<DriverQueue> {
    (0..QUEUES as u64)
        .map(|number| DriverQueue::new(memory, 0x1000 + number * 0x8000, 64))
        .collect()
}
