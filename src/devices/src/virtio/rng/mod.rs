//! Virtio entropy device (virtio 1.2, 5.4): random bytes from the host's kernel.

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::Queue;

use super::chain::{Chain, ChainError, Limits};
use super::served::{self, Handler, Slot};
use super::{ActivateError, Activation, VirtioDevice};
use crate::GuestMemory;
use crate::event_loop::{LoopHandle, Registration};
use crate::random::random;
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "virtio-rng";
const QUEUE_SIZES: [u16; 1] = [64];
/// Most bytes given for one request. A longer request gets this many, which the device may do.
const MAX_REQUEST: usize = 64 << 10;
const PIECE: usize = 4 << 10;

/// The entropy device.
pub struct Rng {
    events: LoopHandle,
    slot: Slot<Source>,
    registration: Option<Registration>,
}

struct Source;

impl Rng {
    /// An entropy device served by `events`.
    pub fn new(events: &LoopHandle) -> Self {
        Self {
            events: events.clone(),
            slot: Arc::default(),
            registration: None,
        }
    }
}

impl Handler for Source {
    const LIMITS: Limits = Limits {
        segments: QUEUE_SIZES[0] as usize,
        bytes: u32::MAX as u64,
    };

    fn handle(&mut self, _: usize, memory: &GuestMemory, chain: &Chain) -> Result<u32, ChainError> {
        let wanted = chain.writable.len().min(MAX_REQUEST as u64) as usize;
        let mut piece = [0; PIECE];
        let mut done = 0;
        while done < wanted {
            let piece = &mut piece[..PIECE.min(wanted - done)];
            let count = match random(piece) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // A driver takes a short answer, and asks again.
                    tracing::warn!(%error, "no random bytes from the kernel");
                    break;
                }
            };
            chain
                .writable
                .write_at(memory, done as u64, &piece[..count])?;
            done += count;
        }
        Ok(done as u32)
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u16 {
        VIRTIO_ID_RNG as u16
    }

    fn pci_class(&self) -> u32 {
        0x00_ff_00
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let started = served::start(&self.events, &self.slot, activation, Source)?;
        self.registration = Some(started);
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        self.registration = None;
        served::stop(&self.slot)
    }

    fn save(&self) -> DeviceState {
        DeviceState::new(KIND, 1, &())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        state.decode(KIND, 1)
    }
}
