//! The balloon, driven through real queues.

mod any_order;
mod hostile;
mod lifecycle;
mod pages;
mod statistics;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::test_driver::{DriverQueue, TestEvents, readable, writable};
use crate::virtio::{Activation, ActiveQueue};

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;
/// Where Linux has the reporting queue, and where the specification has it.
const REPORTING: [usize; 2] = [3, 4];

const ALL: u64 = STATS_VQ | DEFLATE_ON_OOM | PAGE_REPORTING;

/// Rings below, data from here on; memory has a hole between 64 and 128 MiB.
const DATA: u64 = 0x10_0000;
const LOW_END: u64 = 64 << 20;
const HIGH: Range<u64> = 128 << 20..160 << 20;

/// A device, its driver, and what was discarded.
struct Rig {
    device: Balloon,
    handle: Handle,
    memory: GuestMemory,
    events: Arc<TestEvents>,
    queues: Vec<DriverQueue>,
    discarded: Arc<Mutex<Vec<Range<u64>>>>,
}

impl Rig {
    /// Not activated yet.
    fn new() -> Self {
        let discarded: Arc<Mutex<Vec<Range<u64>>>> = Arc::default();
        let noted = Arc::clone(&discarded);
        Self::discarding(discarded, move |_, range| {
            noted.lock().unwrap().push(range);
            Ok(())
        })
    }

    fn discarding(
        discarded: Arc<Mutex<Vec<Range<u64>>>>,
        discard: impl Fn(&GuestMemory, Range<u64>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let memory = GuestMemory::from_ranges(&[
            (GuestAddress(0), LOW_END as usize),
            (GuestAddress(HIGH.start), (HIGH.end - HIGH.start) as usize),
        ])
        .unwrap();
        let device = Balloon::new(Arc::new(|| {}), Arc::new(discard)).unwrap();
        Self {
            handle: device.handle(),
            device,
            queues: driver(&memory),
            memory,
            events: Arc::default(),
            discarded,
        }
    }

    fn started() -> Self {
        let mut rig = Self::new();
        rig.start(ALL);
        rig
    }

    fn start(&mut self, features: u64) {
        let queues = self.queues.iter().map(DriverQueue::device_side).collect();
        self.activate(features, queues);
    }

    fn activate(&mut self, features: u64, queues: Vec<ActiveQueue>) {
        self.device
            .activate(Activation {
                memory: self.memory.clone(),
                features,
                queues,
                events: Arc::clone(&self.events) as _,
            })
            .unwrap();
    }

    /// Pauses and goes on.
    fn cycle(&mut self) {
        let queues = self.device.deactivate();
        assert_eq!(queues.len(), QUEUES);
        let queues = self.queues.iter().zip(queues);
        let queues = queues.map(|(driver, queue)| driver.activation(queue));
        self.activate(ALL, queues.collect());
    }

    /// Puts numbers of pages into memory at `address`.
    fn write_numbers(&self, address: u64, numbers: &[u32]) -> u32 {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.memory
            .write_slice(&bytes, GuestAddress(address))
            .unwrap();
        bytes.len() as u32
    }

    /// Puts pages in, or takes them out, and waits until the device has them.
    fn give(&mut self, queue: usize, numbers: &[u32]) {
        let length = self.write_numbers(DATA, numbers);
        let queue = &mut self.queues[queue];
        queue.offer(&[readable(DATA, length)]);
        queue.kick();
        assert_eq!(queue.wait_used().1, 0);
    }

    /// Waits until the device has looked at all queues: between two of these chains it does.
    fn settle(&mut self) {
        self.give(DEFLATE, &[]);
        self.give(DEFLATE, &[]);
    }

    fn take_discarded(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.discarded.lock().unwrap())
    }

    fn config(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.device.read_config(offset, &mut data);
        u32::from_le_bytes(data)
    }
}

fn driver(memory: &GuestMemory) -> Vec<DriverQueue> {
    (0..QUEUES as u64)
        .map(|number| DriverQueue::new(memory, 0x1000 + number * 0x8000, 64))
        .collect()
}

fn page(number: u64) -> Range<u64> {
    number * PAGE..(number + 1) * PAGE
}
