//! Drivers, honest and hostile, on a real file.

mod broken;
mod held_back;
mod lifecycle;
mod model;
mod requests;
mod throttle;

use std::fs::File;
use std::sync::Arc;

use lodge_block::raw::RawDisk;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::GuestMemory;
use crate::virtio::ActiveQueue;
use crate::virtio::test_driver::{DriverQueue, Piece, TestEvents, readable, writable};

const MEMORY: usize = 4 << 20;
const RINGS: u64 = 0;
const HEADERS: u64 = 0x10_0000;
const TABLES: u64 = 0x18_0000;
const DATA: u64 = 0x20_0000;
const EVENT_IDX: u64 = 1 << 29;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

struct Rig {
    device: Block,
    memory: GuestMemory,
    queue: DriverQueue,
    events: Arc<TestEvents>,
    file: File,
}

fn options() -> Options {
    Options {
        read_only: false,
        serial: "disk-0".to_owned(),
        queues: 1,
    }
}

fn device(size: u64, options: Options) -> (File, Block) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    let disk = RawDisk::open(file.try_clone().unwrap().into()).unwrap();
    let device = Block::new(disk, options, Arc::new(|| {})).unwrap();
    (file, device)
}

impl Rig {
    fn new(size: u64) -> Self {
        Self::with(size, options(), 64)
    }

    /// With one active queue.
    fn with(size: u64, options: Options, queue_size: u16) -> Self {
        let mut rig = Self::idle(size, options, queue_size);
        let queue = rig.queue.device_side();
        rig.activate(queue);
        rig
    }

    fn idle(size: u64, options: Options, queue_size: u16) -> Self {
        let (file, device) = device(size, options);
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let queue = DriverQueue::new(&memory, RINGS, queue_size);
        Self {
            device,
            memory,
            queue,
            events: Arc::default(),
            file,
        }
    }

    fn activate(&mut self, queue: ActiveQueue) {
        let features = self.device.features() | EVENT_IDX;
        self.activate_with(features, vec![queue]);
    }

    fn activate_with(&mut self, features: u64, mut queues: Vec<ActiveQueue>) {
        for queue in &mut queues {
            queue.queue.set_event_idx(features & EVENT_IDX != 0);
        }
        self.device
            .activate(Activation {
                memory: self.memory.clone(),
                features,
                queues,
                events: Arc::clone(&self.events) as _,
            })
            .unwrap();
    }

    /// Writes header and status of slot `slot` and returns the chain around `data`.
    fn chain(&self, slot: u64, kind: u32, sector: u64, data: &[Piece]) -> Vec<Piece> {
        let header = HEADERS + 32 * slot;
        let put = |offset: u64, bytes: &[u8]| {
            let address = GuestAddress(header + offset);
            self.memory.write_slice(bytes, address).unwrap();
        };
        put(0, &kind.to_le_bytes());
        put(8, &sector.to_le_bytes());
        put(16, &[0xff]);
        let mut pieces = vec![readable(header, 16)];
        pieces.extend_from_slice(data);
        pieces.push(writable(header + 16, 1));
        pieces
    }

    fn offer(&mut self, slot: u64, kind: u32, sector: u64, data: &[Piece]) -> u16 {
        let pieces = self.chain(slot, kind, sector, data);
        self.queue.offer(&pieces).unwrap()
    }

    fn status(&self, slot: u64) -> u8 {
        let status = HEADERS + 32 * slot + 16;
        self.memory.read_obj(GuestAddress(status)).unwrap()
    }

    /// One request from kick to status, and the bytes the device says it wrote.
    fn request(&mut self, kind: u32, sector: u64, data: &[Piece]) -> (u8, u32) {
        let head = self.offer(0, kind, sector, data);
        self.queue.kick();
        let (used, written) = self.queue.wait_used();
        assert_eq!(used, head);
        (self.status(0), written)
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    fn totals(&self) -> Totals {
        self.device.handle().statistics().totals()
    }
}
