//! Virtio console (virtio 1.2, 5.3) with a single port: guest text to and from a [`Console`].

use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::Queue;

use super::chain::{Chain, ChainError, Limits};
use super::served::{self, Handler, Slot};
use super::{ActivateError, Activation, VirtioDevice};
use crate::GuestMemory;
use crate::console::{Console, ConsoleSink, ConsoleSource};
use crate::event_loop::{LoopHandle, Registration};
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "virtio-console";
/// Receive queue, then transmit queue.
const QUEUE_SIZES: [u16; 2] = [64, 64];
const RECEIVE: usize = 0;
const PIECE: usize = 4 << 10;

/// The console device.
pub struct VirtioConsole {
    events: LoopHandle,
    console: Arc<Console>,
    slot: Slot<Port>,
    registration: Option<Registration>,
}

/// The port's two directions.
struct Port {
    console: Arc<Console>,
}

impl VirtioConsole {
    /// A device that speaks to `console`, served by `events`, which must be the loop that
    /// serves the console too.
    pub fn new(events: &LoopHandle, console: &Arc<Console>) -> Self {
        let slot: Slot<Port> = Arc::default();
        let typed = Arc::clone(&slot);
        console.on_input(move || {
            if let Some(service) = typed.lock().unwrap().as_mut() {
                service.serve(RECEIVE);
            }
        });
        Self {
            events: events.clone(),
            console: Arc::clone(console),
            slot,
            registration: None,
        }
    }
}

impl Port {
    fn receive(&self, memory: &GuestMemory, chain: &Chain) -> Result<u32, ChainError> {
        let mut piece = [0; PIECE];
        let room = chain.writable.len().min(PIECE as u64) as usize;
        let count = self.console.read(&mut piece[..room]);
        chain.writable.write_at(memory, 0, &piece[..count])?;
        Ok(count as u32)
    }

    fn transmit(&self, memory: &GuestMemory, chain: &Chain) -> Result<u32, ChainError> {
        let mut piece = [0; PIECE];
        let mut done = 0;
        while done < chain.readable.len() {
            let length = (chain.readable.len() - done).min(PIECE as u64);
            let piece = &mut piece[..length as usize];
            chain.readable.read_at(memory, done, piece)?;
            self.console.write(piece);
            done += length;
        }
        Ok(0)
    }
}

impl Handler for Port {
    /// More than any driver sends at once; less than stalls the event loop.
    const LIMITS: Limits = Limits {
        segments: 256,
        bytes: 1 << 20,
    };

    /// Without input, the driver's receive buffers wait where they are.
    fn ready(&mut self, number: usize) -> bool {
        number != RECEIVE || self.console.waiting() > 0
    }

    fn handle(
        &mut self,
        number: usize,
        memory: &GuestMemory,
        chain: &Chain,
    ) -> Result<u32, ChainError> {
        if number == RECEIVE {
            self.receive(memory, chain)
        } else {
            self.transmit(memory, chain)
        }
    }
}

impl VirtioDevice for VirtioConsole {
    fn device_type(&self) -> u16 {
        VIRTIO_ID_CONSOLE as u16
    }

    fn pci_class(&self) -> u32 {
        // Simple communication controller, other.
        0x07_80_00
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    /// Size and port count count only with features that are not offered.
    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let port = Port {
            console: Arc::clone(&self.console),
        };
        let started = served::start(&self.events, &self.slot, activation, port)?;
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
