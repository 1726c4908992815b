//! The driver's side of a virtio device over PCI (virtio 1.2, 4.1), for drivers that break the rules.
//!
//! Registers are where our own devices have them: see `src/devices/src/virtio/pci`.

use crate::io::{Width, load, store};
use crate::pci::{Function, Functions};
use crate::ring::Ring;

pub const NOTIFY: u64 = 0x3000;
pub const MSIX_TABLE: u64 = 0x4000;
/// Where devices' own configuration is.
pub const DEVICE: u64 = 0x2000;

pub const ACKNOWLEDGE: u8 = 1;
pub const DRIVER: u8 = 2;
pub const DRIVER_OK: u8 = 4;
pub const FEATURES_OK: u8 = 8;
pub const NEEDS_RESET: u8 = 0x40;

pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;

pub const NET: u16 = 1;
pub const BLOCK: u16 = 2;
pub const CONSOLE: u16 = 3;
pub const RNG: u16 = 4;
pub const BALLOON: u16 = 5;
pub const VSOCK: u16 = 19;

/// Looks at a device's state before it is taken for silent.
const PATIENCE: u32 = 400_000;

/// A device.
#[derive(Clone, Copy)]
pub struct Device {
    pub function: Function,
    /// Virtio device type.
    pub kind: u16,
}

/// What came of an offer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The device is in `DEVICE_NEEDS_RESET`.
    Broken,
    /// It returned a buffer.
    Used,
    /// It did nothing in time.
    Silent,
}

/// All virtio devices.
pub fn devices(functions: &Functions) -> impl Iterator<Item = Device> + use<> {
    let functions = functions.with_bar();
    let virtio = functions.filter(|function| function.vendor == 0x1af4 && function.device > 0x1040);
    virtio.map(|function| Device {
        function,
        kind: function.device - 0x1040,
    })
}

impl Device {
    pub fn name(&self) -> &'static str {
        match self.kind {
            NET => "net",
            BLOCK => "blk",
            CONSOLE => "console",
            RNG => "rng",
            BALLOON => "balloon",
            VSOCK => "vsock",
            _ => "unknown",
        }
    }

    /// Address of a common register.
    pub fn register(&self, offset: u64) -> u64 {
        self.function.bar + offset
    }

    pub fn get(&self, offset: u64, width: Width) -> u64 {
        load(self.register(offset), width)
    }

    pub fn set(&self, offset: u64, width: Width, value: u64) {
        store(self.register(offset), width, value);
    }

    pub fn status(&self) -> u8 {
        self.get(0x14, Width::Byte) as u8
    }

    pub fn set_status(&self, status: u8) {
        self.set(0x14, Width::Byte, status.into());
    }

    pub fn reset(&self) {
        self.set_status(0);
    }

    pub fn queues(&self) -> u16 {
        self.get(0x12, Width::Word) as u16
    }

    pub fn offered(&self) -> u64 {
        self.set(0x00, Width::Double, 1);
        let high = self.get(0x04, Width::Double) << 32;
        self.set(0x00, Width::Double, 0);
        high | self.get(0x04, Width::Double)
    }

    /// From reset to `FEATURES_OK`; tells whether the device took the features.
    pub fn negotiate(&self, features: u64) -> bool {
        self.reset();
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        for half in 0..2 {
            self.set(0x08, Width::Double, half);
            self.set(0x0c, Width::Double, features >> (32 * half) & 0xffff_ffff);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    /// All that is offered, but no suppressed notifications: attacks want to be noticed.
    pub fn usual_features(&self) -> u64 {
        self.offered() & !EVENT_IDX | VERSION_1
    }

    /// The size of a queue, which is selected.
    pub fn queue_size(&self, number: u16) -> u16 {
        self.set(0x16, Width::Word, number.into());
        self.get(0x18, Width::Word) as u16
    }

    /// Places the rings of a queue and turns it on.
    pub fn enable(&self, number: u16, rings: [u64; 3]) {
        self.set(0x16, Width::Word, number.into());
        for (offset, address) in [0x20, 0x28, 0x30].into_iter().zip(rings) {
            self.set(offset, Width::Double, address & 0xffff_ffff);
            self.set(offset + 4, Width::Double, address >> 32);
        }
        self.set(0x1c, Width::Word, 1);
    }

    /// The way a driver starts it, all queues in good order; tells whether it works.
    pub fn start(&self) -> bool {
        if !self.negotiate(self.usual_features()) {
            return false;
        }
        for number in 0..self.queues() {
            let ring = Ring::of(number, self.queue_size(number));
            ring.clear();
            self.enable(number, ring.addresses());
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        self.status() & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    pub fn ring(&self, number: u16) -> Ring {
        Ring::of(number, self.queue_size(number))
    }

    pub fn notify(&self, queue: u16) {
        self.set(NOTIFY + 4 * u64::from(queue), Width::Word, queue.into());
    }

    /// Waits until the device has broken off or used a buffer.
    pub fn outcome(&self, ring: &Ring) -> Outcome {
        for _ in 0..PATIENCE {
            if self.status() & NEEDS_RESET != 0 {
                return Outcome::Broken;
            }
            if ring.used() != 0 {
                return Outcome::Used;
            }
        }
        Outcome::Silent
    }

    /// Whether it looks at what is offered in this queue at once: not when it waits for something to put there, and not when
    /// the host's kernel serves it, which does not tell.
    pub fn looks_at(&self, queue: u16) -> bool {
        matches!(
            (self.kind, queue),
            (BLOCK | RNG, _) | (CONSOLE, 1) | (BALLOON, 0 | 1)
        )
    }
}
