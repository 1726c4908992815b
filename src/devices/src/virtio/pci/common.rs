//! The common configuration structure (virtio 1.2, 4.1.4.3).

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::queue::QueueRegisters;
use super::status::{DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use super::transport::VirtioPci;
use super::{COMMON_BYTES, NO_VECTOR};

/// What a driver has written, apart from what other threads need
/// ([`Events`](super::events::Events)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registers {
    pub(super) device_feature_select: u32,
    pub(super) driver_feature_select: u32,
    pub(super) driver_features: u64,
    pub(super) queue_select: u16,
    pub(super) queues: Vec<QueueRegisters>,
}

impl Registers {
    pub(super) fn new(max_sizes: &[u16]) -> Self {
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: max_sizes
                .iter()
                .map(|&size| QueueRegisters::new(size))
                .collect(),
        }
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::from(self.queue_select))
    }
}

/// Half number `select` of a 64-bit feature field; further ones are zero.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

/// Replaces half of `value` by what was written to its register at `offset` (0 or 4).
fn put(value: &mut u64, offset: u64, data: &[u8]) {
    let mut bytes = value.to_le_bytes();
    let at = (offset & 7) as usize;
    let fits = matches!(data.len(), 4 | 8) && at.is_multiple_of(4) && at + data.len() <= 8;
    if fits {
        bytes[at..at + data.len()].copy_from_slice(data);
        *value = u64::from_le_bytes(bytes);
    }
}

impl VirtioPci {
    /// Reads have no side effects here, so any width at any offset is served.
    pub(super) fn read_common(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.common_bytes();
        for (at, byte) in (offset..).zip(data) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            *byte = bytes.get(at).copied().unwrap_or(0);
        }
    }

    fn common_bytes(&self) -> [u8; COMMON_BYTES as usize] {
        let registers = &self.registers;
        let mut bytes = [0; COMMON_BYTES as usize];
        let mut set = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let offered = half(self.offered, registers.device_feature_select);
        let accepted = half(registers.driver_features, registers.driver_feature_select);
        set(0x00, &registers.device_feature_select.to_le_bytes());
        set(0x04, &offered.to_le_bytes());
        set(0x08, &registers.driver_feature_select.to_le_bytes());
        set(0x0c, &accepted.to_le_bytes());
        let config_vector = self.events.config_vector.load(Ordering::SeqCst);
        set(0x10, &config_vector.to_le_bytes());
        set(0x12, &(registers.queues.len() as u16).to_le_bytes());
        set(0x14, &[self.events.status.load(Ordering::SeqCst)]);
        set(
            0x15,
            &[self.events.config_generation.load(Ordering::SeqCst)],
        );
        set(0x16, &registers.queue_select.to_le_bytes());
        // A queue that does not exist has size 0 and takes no vector.
        let Some(queue) = registers.selected() else {
            set(0x1a, &NO_VECTOR.to_le_bytes());
            return bytes;
        };
        set(0x18, &queue.size.to_le_bytes());
        set(0x1a, &queue.vector.to_le_bytes());
        set(0x1c, &u16::from(queue.enabled).to_le_bytes());
        set(0x1e, &registers.queue_select.to_le_bytes());
        set(0x20, &queue.descriptors.to_le_bytes());
        set(0x28, &queue.available.to_le_bytes());
        set(0x30, &queue.used.to_le_bytes());
        bytes
    }

    /// Fields take writes of their own width only (virtio 1.2, 4.1.3.1), 64-bit ones also as
    /// two halves; everything else is ignored.
    pub(super) fn write_common(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0x00, &[a, b, c, d]) => {
                self.registers.device_feature_select = u32::from_le_bytes([a, b, c, d]);
            }
            (0x08, &[a, b, c, d]) => {
                self.registers.driver_feature_select = u32::from_le_bytes([a, b, c, d]);
            }
            (0x0c, &[a, b, c, d]) => self.write_features(u32::from_le_bytes([a, b, c, d])),
            (0x10, &[a, b]) => {
                let vector = self.existing_vector(u16::from_le_bytes([a, b]));
                self.events.config_vector.store(vector, Ordering::SeqCst);
            }
            (0x14, &[value]) => self.write_status(value),
            (0x16, &[a, b]) => self.registers.queue_select = u16::from_le_bytes([a, b]),
            (0x18..0x38, _) => self.write_queue(offset, data),
            _ => {}
        }
    }

    fn write_features(&mut self, value: u32) {
        // Negotiation is between DRIVER and FEATURES_OK.
        if self.status() & (DRIVER | FEATURES_OK) != DRIVER {
            return;
        }
        let features = &mut self.registers.driver_features;
        match self.registers.driver_feature_select {
            0 => *features = *features & !0xffff_ffff | u64::from(value),
            1 => *features = *features & 0xffff_ffff | u64::from(value) << 32,
            _ => {}
        }
    }

    /// Queues are set up between `FEATURES_OK` and `DRIVER_OK`; before and after, their
    /// registers are frozen. Enabling a queue freezes all but its vector.
    fn write_queue(&mut self, offset: u64, data: &[u8]) {
        let phase = FEATURES_OK | DRIVER_OK | FAILED | NEEDS_RESET;
        if self.status() & phase != FEATURES_OK {
            return;
        }
        let number = usize::from(self.registers.queue_select);
        let vector = match (offset, data) {
            (0x1a, &[a, b]) => Some(self.existing_vector(u16::from_le_bytes([a, b]))),
            _ => None,
        };
        let Some(queue) = self.registers.queues.get_mut(number) else {
            return;
        };
        if let Some(vector) = vector {
            queue.vector = vector;
            return;
        }
        if queue.enabled {
            return;
        }
        match (offset, data) {
            (0x18, &[a, b]) => {
                let size = u16::from_le_bytes([a, b]);
                if size.is_power_of_two() && size <= self.max_sizes[number] {
                    queue.size = size;
                }
            }
            // Writing 0 is not allowed and would mean nothing here.
            (0x1c, &[1, 0]) => queue.enabled = true,
            (0x20..0x28, _) => put(&mut queue.descriptors, offset, data),
            (0x28..0x30, _) => put(&mut queue.available, offset, data),
            (0x30..0x38, _) => put(&mut queue.used, offset, data),
            _ => {}
        }
    }

    /// The vector, or "none" if it does not exist: the driver sees that when it reads back.
    fn existing_vector(&self, vector: u16) -> u16 {
        if vector < self.events.msix.count() {
            vector
        } else {
            NO_VECTOR
        }
    }
}
