//! Reset, pause, save and restore of the controller.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::function::Nvme;
use super::registers::{Registers, status};
use super::session::Session;
use super::shared::Event;
use crate::lifecycle::Device;
use crate::pci::{ConfigState, MsixState};
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "nvme";
/// Version of a state whose commands have all ended: what every release reads.
const VERSION_FINISHED: u32 = 1;
/// Version of a state with commands that are to be done again.
const VERSION_UNFINISHED: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Saved {
    config: ConfigState,
    msix: MsixState,
    registers: Registers,
    /// CSTS.
    status: u32,
    /// Events that happened and were not told.
    events: u32,
    /// Absent while the controller is not enabled, or could not be.
    session: Option<Session>,
    disk: Disk,
}

/// What the driver was promised and a disk must still keep.
#[derive(Serialize, Deserialize)]
struct Disk {
    /// Size of the disk in bytes.
    size: u64,
    /// Logical block size in bytes.
    logical_block: u32,
    read_only: bool,
    /// Pairs of queues for data.
    queues: u16,
}

impl Nvme {
    fn disk(&self) -> Disk {
        let shared = &self.shared;
        Disk {
            size: shared.image.size(),
            logical_block: shared.image.logical_block(),
            read_only: shared.options.read_only,
            queues: shared.options.queues,
        }
    }

    /// A disk behind a restored guest may have grown but not shrunk.
    fn check(&self, saved: &Saved) -> Result<(), String> {
        let (before, now) = (&saved.disk, self.disk());
        if now.size < before.size {
            return Err(format!(
                "the disk had {} bytes, this one has {}",
                before.size, now.size
            ));
        }
        if now.logical_block != before.logical_block {
            return Err(format!(
                "the disk had blocks of {} bytes, this one has {}",
                before.logical_block, now.logical_block
            ));
        }
        if now.read_only != before.read_only || now.queues != before.queues {
            return Err(format!(
                "the device had read_only {} and {} queues, this one has {} and {}",
                before.read_only, before.queues, now.read_only, now.queues
            ));
        }
        if let Some(session) = &saved.session {
            if !saved.registers.enabled() {
                return Err("queues of a controller that is not enabled".to_owned());
            }
            session.check(&self.shared)?;
        }
        self.shared.msix.check(&saved.msix)
    }

    fn take(&mut self, saved: Saved) {
        let shared = &self.shared;
        shared.msix.restore(&saved.msix);
        self.registers.restore(&saved.registers);
        let status = saved.status & status::ALL;
        shared.status.store(status, Ordering::SeqCst);
        // It said that it would tell when it is done.
        let shutdown = status & status::SHUTTING_DOWN != 0;
        shared.shutdown.store(shutdown, Ordering::SeqCst);
        let known = Event::ALL.iter().fold(0, |all, event| all | event.bit());
        shared.events.store(saved.events & known, Ordering::SeqCst);
        self.session = saved.session;
    }
}

impl Device for Nvme {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn reset(&mut self) {
        self.forget_session();
        self.registers = Registers::default();
        self.shared.msix.reset();
        self.config.reset();
        self.sync();
    }

    fn pause(&mut self) {
        self.paused = true;
        self.settle();
    }

    fn resume(&mut self) {
        self.paused = false;
        self.settle();
    }

    fn save(&self) -> DeviceState {
        let shared = &self.shared;
        let saved = Saved {
            config: self.config.save(),
            msix: shared.msix.save(),
            registers: self.registers.clone(),
            status: shared.status.load(Ordering::SeqCst),
            events: shared.events.load(Ordering::SeqCst),
            session: self.session.clone(),
            disk: self.disk(),
        };
        let mut queues = saved.session.iter().flat_map(|all| &all.submission);
        let version = match queues.all(|queue| queue.unfinished.is_empty()) {
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
        // Nothing changes before everything is known to be right, and this is the last that can fail.
        self.config.restore(&saved.config).map_err(invalid)?;
        self.forget_session();
        self.take(saved);
        self.sync();
        Ok(())
    }
}
