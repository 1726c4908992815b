//! A driver that reads configuration and events, and others that break the rules.

mod config;
mod hostile;
mod lifecycle;
mod reports;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::event_loop::EventLoop;
use crate::virtio::test_driver::{DriverQueue, TestEvents, readable, writable};

const MEMORY: usize = 1 << 20;
/// Rings below, data from here on.
const DATA: u64 = 0x4_0000;
const STATUS: usize = 1;

struct Rig {
    device: Tablet,
    handle: TabletHandle,
    memory: GuestMemory,
    events: Arc<TestEvents>,
    queues: Vec<DriverQueue>,
    /// Buffers offered so far. No two that are under way lie in the same place.
    offered: u64,
    event_loop: LoopHandle,
}

impl Rig {
    /// Not activated yet.
    fn new() -> Self {
        let event_loop = EventLoop::new().unwrap();
        let handle = event_loop.handle();
        event_loop.spawn("input-test", || {}).unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let device = Tablet::new(&handle);
        Self {
            handle: device.handle(),
            device,
            queues: driver(&memory),
            memory,
            events: Arc::default(),
            offered: 0,
            event_loop: handle,
        }
    }

    /// With a driver that has offered `buffers` for events, as Linux does right at the start.
    fn started(buffers: u64) -> Self {
        let mut rig = Self::new();
        rig.offer(buffers);
        rig.start();
        rig
    }

    fn offer(&mut self, buffers: u64) {
        for _ in 0..buffers {
            let address = DATA + 8 * (self.offered % 1024);
            self.queues[EVENTS].offer(&[writable(address, 8)]);
            self.offered += 1;
        }
    }

    /// The driver is gone, and another comes.
    fn another_driver(&mut self) {
        self.device.deactivate();
        self.device.reset();
        self.memory
            .write_slice(&[0; DATA as usize], GuestAddress(0))
            .unwrap();
        self.queues = driver(&self.memory);
        self.events = Arc::default();
    }

    fn start(&mut self) {
        let queues = self.queues.iter().map(DriverQueue::device_side).collect();
        self.activate(queues);
    }

    fn activate(&mut self, queues: Vec<crate::virtio::ActiveQueue>) {
        self.device
            .activate(Activation {
                memory: self.memory.clone(),
                features: 1 << 32,
                queues,
                events: Arc::clone(&self.events) as _,
            })
            .unwrap();
    }

    /// Goes on with queues that the device gave back, as the transport does: with a kick.
    fn resume(&mut self, queues: Vec<Queue>) {
        let queues = self.queues.iter().zip(queues);
        let queues = queues.map(|(driver, queue)| driver.activation(queue));
        let queues = queues.collect();
        self.activate(queues);
        for queue in &self.queues {
            queue.kick();
        }
    }

    /// Whatever was told and not heard yet: type, code, value. The device tells on the thread that reports.
    fn heard(&mut self) -> Vec<(u16, u16, u32)> {
        let mut all = Vec::new();
        while let Some((head, length)) = self.queues[EVENTS].take_used() {
            assert_eq!(length, 8);
            all.push(self.event(head));
        }
        all
    }

    /// The next event, sleeping until it is there.
    fn wait_event(&mut self) -> (u16, u16, u32) {
        let (head, _) = self.queues[EVENTS].wait_used();
        self.event(head)
    }

    /// What the device has written into a buffer.
    fn event(&self, head: u16) -> (u16, u16, u32) {
        let descriptor = self.queues[EVENTS].descriptors + 16 * u64::from(head);
        let at: u64 = self.memory.read_obj(GuestAddress(descriptor)).unwrap();
        let bytes: [u8; 8] = self.memory.read_obj(GuestAddress(at)).unwrap();
        let [k0, k1, c0, c1, value @ ..] = bytes;
        let word = |bytes| u16::from_le_bytes(bytes);
        (word([k0, k1]), word([c0, c1]), u32::from_le_bytes(value))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.event_loop.stop();
    }
}

fn driver(memory: &GuestMemory) -> Vec<DriverQueue> {
    (0..2)
        .map(|number| DriverQueue::new(memory, 0x1000 + number * 0x8000, 64))
        .collect()
}

fn at(x: u16, y: u16) -> Report {
    Report {
        x,
        y,
        ..Report::default()
    }
}

const SYN: (u16, u16, u32) = (0, 0, 0);
