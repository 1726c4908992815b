//! Reset, pause, save and restore of a virtio function.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::NO_VECTOR;
use super::common::Registers;
use super::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};
use super::transport::VirtioPci;
use crate::lifecycle::Device;
use crate::pci::{ConfigState, MsixState};
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "virtio-pci";
/// Version of a state whose chains are all returned: what every release reads.
const VERSION_FINISHED: u32 = 1;
/// Version of a state with chains that are to be served again.
const VERSION_UNFINISHED: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Saved {
    config: ConfigState,
    msix: MsixState,
    status: u8,
    isr: u8,
    config_vector: u16,
    config_generation: u8,
    /// The device took the driver's set-up and has not been reset since.
    active: bool,
    registers: Registers,
    device: DeviceState,
}

impl VirtioPci {
    fn check(&self, saved: &Saved) -> Result<(), String> {
        let registers = &saved.registers;
        if registers.queues.len() != self.max_sizes.len() {
            return Err(format!("{} queues", registers.queues.len()));
        }
        for (number, queue) in registers.queues.iter().enumerate() {
            if !queue.possible(self.max_sizes[number]) {
                let unfinished = queue.unfinished.len();
                return Err(format!(
                    "queue {number} has size {} and {unfinished} chains under way",
                    queue.size
                ));
            }
        }
        let vectors = registers.queues.iter().map(|queue| queue.vector);
        let count = self.events.msix.count();
        for vector in vectors.chain([saved.config_vector]) {
            if vector != NO_VECTOR && vector >= count {
                return Err(format!("vector {vector} of {count}"));
            }
        }
        let missing = registers.driver_features & !self.offered;
        if saved.status & FEATURES_OK != 0 && missing != 0 {
            return Err(format!("features {missing:#x} are not offered here"));
        }
        let complete = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        if saved.active && saved.status & complete != complete {
            return Err(format!("active with status {:#x}", saved.status));
        }
        self.events.msix.check(&saved.msix)
    }
}

impl Device for VirtioPci {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self) {
        self.reset_device();
        self.events.msix.reset();
        self.config.reset();
        self.sync();
    }

    fn came_later(&self) -> bool {
        self.device.came_later()
    }

    fn pause(&mut self) {
        self.pause_device();
    }

    fn resume(&mut self) {
        self.resume_device();
    }

    fn save(&self) -> DeviceState {
        let events = &self.events;
        let saved = Saved {
            config: self.config.save(),
            msix: events.msix.save(),
            status: events.status.load(Ordering::SeqCst),
            isr: events.isr.load(Ordering::SeqCst),
            config_vector: events.config_vector.load(Ordering::SeqCst),
            config_generation: events.config_generation.load(Ordering::SeqCst),
            active: self.active,
            registers: self.registers.clone(),
            device: self.device.save(),
        };
        let finished = saved
            .registers
            .queues
            .iter()
            .all(|queue| queue.unfinished.is_empty());
        let version = match finished {
            true => VERSION_FINISHED,
            false => VERSION_UNFINISHED,
        };
        DeviceState::new(KIND, version, &saved)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let saved: Saved = state.decode(KIND, VERSION_UNFINISHED)?;
        let invalid = |problem| RestoreError::Invalid {
            kind: KIND,
            problem,
        };
        self.check(&saved).map_err(invalid)?;
        // Tried on a copy first: nothing changes before everything is known to be right.
        let mut config = self.config.clone();
        config.restore(&saved.config).map_err(invalid)?;
        let was_paused = self.paused;
        self.pause_device();
        if let Err(error) = self.device.restore(&saved.device) {
            if !was_paused {
                self.resume_device();
            }
            return Err(error);
        }
        let events = &self.events;
        self.config = config;
        events.msix.restore(&saved.msix);
        events.status.store(saved.status, Ordering::SeqCst);
        events.isr.store(saved.isr, Ordering::SeqCst);
        events
            .config_vector
            .store(saved.config_vector, Ordering::SeqCst);
        events
            .config_generation
            .store(saved.config_generation, Ordering::SeqCst);
        self.registers = saved.registers;
        self.active = saved.active;
        self.sync();
        self.place_doorbells();
        if !was_paused {
            self.resume_device();
        }
        Ok(())
    }
}
