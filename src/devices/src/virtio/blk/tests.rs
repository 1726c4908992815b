//! A driver on a real file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use lodge_block::raw::RawDisk;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::GuestMemory;
use crate::virtio::test_driver::{DriverQueue, Piece, TestEvents, readable, writable};

const MEMORY: u64 = 4 << 20;
const RINGS: u64 = 0;
const HEADER: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;
const EVENT_IDX: u64 = 1 << 29;

pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
pub(super) const FLUSH: u32 = 4;
pub(super) const GET_ID: u32 = 8;
pub(super) const DISCARD: u32 = 11;
pub(super) const WRITE_ZEROES: u32 = 13;

pub(super) struct Rig {
    pub device: Block,
    pub memory: GuestMemory,
    pub queue: DriverQueue,
    pub events: Arc<TestEvents>,
    pub file: File,
}

pub(super) fn options() -> Options {
    Options {
        read_only: false,
        serial: "disk-0".to_owned(),
        queues: 1,
    }
}

impl Rig {
    pub fn new(size: u64) -> Self {
        Self::with(size, options(), 64)
    }

    pub fn with(size: u64, options: Options, queue_size: u16) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        let disk = RawDisk::open(file.try_clone().unwrap().into()).unwrap();
        let device = Block::new(disk, options, Arc::new(|| {})).unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        let queue = DriverQueue::new(&memory, RINGS, queue_size);
        let mut rig = Self {
            device,
            memory,
            queue,
            events: Arc::default(),
            file,
        };
        let queue = rig.queue.device_side();
        rig.activate(queue);
        rig
    }

    pub fn activate(&mut self, mut queue: crate::virtio::ActiveQueue) {
        queue.queue.set_event_idx(true);
        self.device
            .activate(Activation {
                memory: self.memory.clone(),
                features: self.device.features() | EVENT_IDX,
                queues: vec![queue],
                events: Arc::clone(&self.events) as _,
            })
            .unwrap();
    }

    /// Offers a request whose header and status lie in slot `slot`.
    pub fn offer(&mut self, slot: u64, kind: u32, sector: u64, data: &[Piece]) -> u16 {
        let header = HEADER + 32 * slot;
        self.memory.write_obj(kind, GuestAddress(header)).unwrap();
        self.memory
            .write_obj(sector, GuestAddress(header + 8))
            .unwrap();
        self.memory
            .write_obj(0xff_u8, GuestAddress(header + 16))
            .unwrap();
        let mut pieces = vec![readable(header, 16)];
        pieces.extend_from_slice(data);
        pieces.push(writable(header + 16, 1));
        self.queue.offer(&pieces).unwrap()
    }

    pub fn status(&self, slot: u64) -> u8 {
        self.memory
            .read_obj(GuestAddress(HEADER + 32 * slot + 16))
            .unwrap()
    }

    /// One request from kick to status.
    pub fn request(&mut self, kind: u32, sector: u64, data: &[Piece]) -> (u8, u32) {
        let head = self.offer(0, kind, sector, data);
        self.queue.kick();
        let (used, written) = self.queue.wait_used();
        assert_eq!(used, head);
        (self.status(0), written)
    }
}

#[test]
fn reads_and_writes() {
    let mut rig = Rig::new(1 << 20);
    let pattern: Vec<u8> = (0..8192_u32)
        .map(|byte| byte as u8 ^ (byte >> 8) as u8)
        .collect();
    rig.memory
        .write_slice(&pattern, GuestAddress(DATA))
        .unwrap();
    let halves = [readable(DATA, 4096), readable(DATA + 4096, 4096)];
    assert_eq!(rig.request(OUT, 16, &halves), (0, 1));
    assert_eq!(rig.request(FLUSH, 0, &[]), (0, 1));
    let mut on_disk = vec![0; 8192];
    rig.file.read_exact_at(&mut on_disk, 16 * 512).unwrap();
    assert_eq!(on_disk, pattern);

    let (status, written) = rig.request(IN, 17, &[writable(DATA + 0x8000, 1024)]);
    assert_eq!((status, written), (0, 1025));
    let mut read = vec![0; 1024];
    rig.memory
        .read_slice(&mut read, GuestAddress(DATA + 0x8000))
        .unwrap();
    assert_eq!(read, pattern[512..1536]);

    let totals = rig.device.statistics().totals();
    assert_eq!((totals.reads, totals.read_bytes), (1, 1024));
    assert_eq!((totals.writes, totals.write_bytes), (1, 8192));
    assert_eq!((totals.flushes, totals.errors), (1, 0));
}
