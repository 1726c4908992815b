//! A driver that does what the specification says (virtio 1.2, 3.1), up to where an input goes on.

use std::sync::{Arc, Mutex};

use lodge_devices::GuestMemory;
use lodge_devices::bus::BusDevice as _;
use lodge_devices::virtio::pci::VirtioPci;
use vm_memory::{Bytes, GuestAddress};

use crate::operation::{Offer, Piece};

/// Rings are below, buffers from here on.
pub const DATA: u64 = 0x1_0000;

/// Room of one queue's rings: those of 256 entries take 6.5 KiB.
const RINGS: u64 = 0x2000;

const VERSION_1: u64 = 1 << 32;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Offsets in the BAR.
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const NUM_QUEUES: u64 = 0x12;
/// `device_status`.
pub const STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_DESC: u64 = 0x20;
/// The first doorbell; the others follow at intervals of 4.
pub const NOTIFY: u64 = 0x3000;

/// A function behind its transport.
pub type Function = Arc<Mutex<VirtioPci>>;

struct Queue {
    base: u64,
    size: u16,
    descriptor: u16,
    available: u16,
}

/// The driver.
pub struct Driver {
    function: Function,
    ram: GuestMemory,
    queues: Vec<Queue>,
}

impl Driver {
    /// A driver that has not touched its device yet.
    pub fn new(function: &Function, ram: &GuestMemory) -> Self {
        Self {
            function: Arc::clone(function),
            ram: ram.clone(),
            queues: Vec::new(),
        }
    }

    /// Writes a register.
    ///
    /// # Panics
    /// Never: nobody else has the function.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut function = self.function.lock().expect("nobody else has it");
        function.write(offset, data);
    }

    /// Reads a register.
    ///
    /// # Panics
    /// Never: nobody else has the function.
    pub fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        let mut function = self.function.lock().expect("nobody else has it");
        function.read(offset, &mut data);
        data
    }

    /// Resets the device and sets it up, with those of its features that are in `features` and queues of at
    /// most `size` entries.
    pub fn start(&mut self, features: u64, size: u16) {
        for status in [0, 1, 3] {
            self.write(STATUS, &[status]);
        }
        self.negotiate(features);
        self.write(STATUS, &[11]);
        let count = u16::from_le_bytes(self.read(NUM_QUEUES));
        self.queues.clear();
        for number in 0..count {
            let queue = self.set_up(number, size);
            self.queues.push(queue);
        }
        self.write(STATUS, &[15]);
    }

    fn negotiate(&self, features: u64) {
        for half in 0..2_u32 {
            self.write(DEVICE_FEATURE_SELECT, &half.to_le_bytes());
            let offered = u32::from_le_bytes(self.read(DEVICE_FEATURE));
            let accepted = offered & ((features | VERSION_1) >> (32 * half)) as u32;
            self.write(DRIVER_FEATURE_SELECT, &half.to_le_bytes());
            self.write(DRIVER_FEATURE, &accepted.to_le_bytes());
        }
    }

    fn set_up(&self, number: u16, size: u16) -> Queue {
        self.write(QUEUE_SELECT, &number.to_le_bytes());
        let size = size.min(u16::from_le_bytes(self.read(QUEUE_SIZE)));
        let queue = Queue {
            base: RINGS * (u64::from(number) + 1),
            size,
            descriptor: 0,
            available: 0,
        };
        // What an earlier driver has left.
        let blank = [0; RINGS as usize];
        let _ = self.ram.write_slice(&blank, GuestAddress(queue.base));
        self.write(QUEUE_SIZE, &size.to_le_bytes());
        self.write(QUEUE_VECTOR, &number.to_le_bytes());
        let rings = [queue.base, queue.available_ring(), queue.used_ring()];
        for (offset, address) in (QUEUE_DESC..).step_by(8).zip(rings) {
            self.write(offset, &address.to_le_bytes());
        }
        self.write(QUEUE_ENABLE, &[1, 0]);
        queue
    }

    /// How many chains the device says it has returned.
    pub fn used(&self, number: usize) -> u16 {
        let used = self.queues.get(number).map(Queue::used_ring);
        used.and_then(|used| self.ram.read_obj(GuestAddress(used + 2)).ok())
            .unwrap_or_default()
    }

    /// Makes a chain available.
    pub fn offer(&mut self, offer: &Offer) {
        let count = self.queues.len();
        if count == 0 || offer.pieces.is_empty() {
            return;
        }
        let queue = &mut self.queues[usize::from(offer.queue) % count];
        let head = queue.descriptor % queue.size;
        if offer.indirect {
            // Beside the buffers, or in one of them.
            let table = DATA + 0x100 * u64::from(queue.available % 16);
            for (index, piece) in (0..).zip(&offer.pieces) {
                let more = usize::from(index) + 1 < offer.pieces.len();
                put(&self.ram, table, index, piece, more, index + 1);
            }
            let length = 16 * offer.pieces.len() as u32;
            describe(&self.ram, queue.base, head, table, length, INDIRECT, 0);
            queue.descriptor = queue.descriptor.wrapping_add(1);
        } else {
            for (position, piece) in offer.pieces.iter().enumerate() {
                let index = queue.descriptor % queue.size;
                queue.descriptor = queue.descriptor.wrapping_add(1);
                let next = queue.descriptor % queue.size;
                let more = position + 1 < offer.pieces.len();
                put(&self.ram, queue.base, index, piece, more, next);
            }
        }
        let slot = queue.available_ring() + 4 + 2 * u64::from(queue.available % queue.size);
        let _ = self.ram.write_obj(head, GuestAddress(slot));
        queue.available = queue.available.wrapping_add(1);
        let index = GuestAddress(queue.available_ring() + 2);
        let _ = self.ram.write_obj(queue.available, index);
    }
}

impl Queue {
    fn available_ring(&self) -> u64 {
        self.base + 16 * u64::from(self.size)
    }

    fn used_ring(&self) -> u64 {
        (self.available_ring() + 6 + 2 * u64::from(self.size)).next_multiple_of(4)
    }
}

fn put(ram: &GuestMemory, table: u64, index: u16, piece: &Piece, more: bool, next: u16) {
    let mut flags = if more { NEXT } else { 0 };
    if piece.writable {
        flags |= WRITE;
    }
    describe(ram, table, index, piece.address, piece.length, flags, next);
}

fn describe(
    ram: &GuestMemory,
    table: u64,
    index: u16,
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
) {
    let mut descriptor = [0; 16];
    descriptor[..8].copy_from_slice(&address.to_le_bytes());
    descriptor[8..12].copy_from_slice(&length.to_le_bytes());
    descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
    descriptor[14..].copy_from_slice(&next.to_le_bytes());
    let _ = ram.write_slice(&descriptor, GuestAddress(table + 16 * u64::from(index)));
}
