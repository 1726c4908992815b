//! Reset, pause, save and restore of the controller.

use serde::{Deserialize, Serialize};

use super::PORTS;
use super::function::Ahci;
use super::hba::Global;
use super::port::Registers;
use crate::lifecycle::Device;
use crate::pci::ConfigState;
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "ahci";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    config: ConfigState,
    global: Global,
    ports: Vec<Registers>,
    drives: Vec<Option<DeviceState>>,
}

impl Ahci {
    fn stop(&mut self) {
        for thread in &mut self.threads {
            thread.stop();
        }
    }

    fn start(&mut self) {
        for thread in &mut self.threads {
            thread.start();
        }
    }

    fn check(&self, saved: &Saved) -> Result<(), RestoreError> {
        let invalid = |problem: String| RestoreError::Invalid {
            kind: KIND,
            problem,
        };
        let (ports, drives) = (saved.ports.len(), saved.drives.len());
        if (ports, drives) != (PORTS, PORTS) {
            return Err(invalid(format!("{ports} ports and {drives} drives")));
        }
        for (port, (drive, saved)) in self.drives.iter().zip(&saved.drives).enumerate() {
            match (drive, saved) {
                (None, None) => {}
                (Some(drive), Some(saved)) => drive.check(saved)?,
                _ => return Err(invalid(format!("a drive at port {port} on one side only"))),
            }
        }
        Ok(())
    }
}

impl Device for Ahci {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self) {
        self.stop();
        self.hba.reset();
        self.config.reset();
        self.sync();
        if !self.paused {
            self.start();
        }
    }

    fn pause(&mut self) {
        self.paused = true;
        self.stop();
    }

    fn resume(&mut self) {
        self.paused = false;
        self.start();
    }

    fn save(&self) -> DeviceState {
        let (global, ports) = self.hba.save();
        let drives = self.drives.iter();
        let saved = Saved {
            config: self.config.save(),
            global,
            ports,
            drives: drives
                .map(|drive| drive.as_ref().map(|drive| drive.save()))
                .collect(),
        };
        DeviceState::new(KIND, VERSION, &saved)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let saved: Saved = state.decode(KIND, VERSION)?;
        self.check(&saved)?;
        // Nothing changes before everything is known to be right, and this is the last that can fail.
        self.config
            .restore(&saved.config)
            .map_err(|problem| RestoreError::Invalid {
                kind: KIND,
                problem,
            })?;
        self.stop();
        self.sync();
        self.hba.restore(&saved.global, &saved.ports);
        for (drive, saved) in self.drives.iter().zip(&saved.drives) {
            if let (Some(drive), Some(saved)) = (drive, saved) {
                drive.restore(saved);
            }
        }
        if !self.paused {
            self.start();
        }
        Ok(())
    }
}
