//! The drive's mechanism: its tray, the disc in it, and what the driver has yet to hear of them.

use std::sync::Arc;

use lodge_block::raw::RawDisk;
use serde::{Deserialize, Serialize};

use super::sense::Sense;
use crate::ahci::ResetKind;

/// Bytes of a block.
pub(super) const BLOCK: u64 = 2048;

/// What happened to the medium since the driver asked last (MMC-5, 6.6.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum MediaEvent {
    None,
    /// Somebody wants the disc.
    EjectRequest,
    NewMedia,
    Removal,
}

/// The drive.
#[derive(Debug)]
pub(super) struct DriveState {
    disc: Option<Arc<RawDisk>>,
    flags: Flags,
}

/// What of the drive is saved, apart from the disc.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flags {
    /// The driver opened the tray.
    pub open: bool,
    /// The driver wants the medium to stay.
    pub locked: bool,
    /// Of the last command.
    pub sense: Sense,
    /// The driver has not heard of a reset, or of another medium.
    reset: bool,
    changed: bool,
    /// The driver has not noticed that there was no medium. It does before it gets another, or it
    /// would keep what it knows of the old one.
    absence: bool,
    pub event: MediaEvent,
}

impl DriveState {
    pub fn new(disc: Option<Arc<RawDisk>>) -> Self {
        Self {
            disc,
            flags: Flags {
                open: false,
                locked: false,
                sense: Sense::NONE,
                reset: false,
                changed: false,
                absence: false,
                event: MediaEvent::None,
            },
        }
    }

    pub fn flags(&self) -> &Flags {
        &self.flags
    }

    pub fn disc(&self) -> Option<&Arc<RawDisk>> {
        self.disc.as_ref()
    }

    /// Takes saved flags. `same` tells whether the medium is as it was; the driver otherwise has
    /// to look again.
    pub fn restore(&mut self, flags: Flags, same: bool) {
        self.flags = flags;
        if !same {
            self.flags.changed = self.disc.is_some();
            self.flags.absence = true;
            self.flags.event = MediaEvent::Removal;
        }
    }

    pub fn reset(&mut self, kind: ResetKind) {
        self.flags.sense = Sense::NONE;
        self.flags.locked = false;
        if kind == ResetKind::Hard {
            self.flags.reset = true;
        }
    }

    /// Puts a disc in, which closes the tray; `false` if one is in already.
    pub fn insert(&mut self, disc: Arc<RawDisk>) -> bool {
        if self.disc.is_some() && !self.flags.open {
            return false;
        }
        self.disc = Some(disc);
        self.flags.open = false;
        self.flags.changed = true;
        self.flags.event = MediaEvent::NewMedia;
        true
    }

    /// Takes the disc out from outside; `false` if the driver locked it in, who is asked then.
    pub fn eject(&mut self, force: bool) -> bool {
        if self.disc.is_none() {
            return true;
        }
        if self.flags.locked && !force {
            self.flags.event = MediaEvent::EjectRequest;
            return false;
        }
        self.disc = None;
        // An open tray it saw.
        self.flags.absence = !self.flags.open;
        self.flags.changed = false;
        self.flags.locked = false;
        self.flags.event = MediaEvent::Removal;
        true
    }

    /// The driver opens or closes the tray.
    pub fn move_tray(&mut self, open: bool) -> Result<(), Sense> {
        if open && self.flags.locked {
            return Err(Sense::LOCKED);
        }
        if self.flags.open == open {
            return Ok(());
        }
        self.flags.open = open;
        if self.disc.is_some() {
            self.flags.changed = !open;
            self.flags.event = if open {
                MediaEvent::Removal
            } else {
                MediaEvent::NewMedia
            };
        }
        Ok(())
    }

    pub fn lock(&mut self, locked: bool) {
        self.flags.locked = locked;
    }

    pub fn set_sense(&mut self, sense: Sense) {
        self.flags.sense = sense;
    }

    /// What the driver must hear before anything else.
    pub fn take_attention(&mut self) -> Option<Sense> {
        if std::mem::take(&mut self.flags.reset) {
            return Some(Sense::RESET);
        }
        if self.flags.changed && !self.flags.absence {
            self.flags.changed = false;
            return Some(Sense::MEDIUM_CHANGED);
        }
        None
    }

    /// The disc, if it can be read.
    pub fn ready(&mut self) -> Result<&Arc<RawDisk>, Sense> {
        if self.flags.open {
            return Err(Sense::TRAY_OPEN);
        }
        if std::mem::take(&mut self.flags.absence) {
            return Err(Sense::NO_MEDIUM);
        }
        self.disc.as_ref().ok_or(Sense::NO_MEDIUM)
    }

    /// Whether a disc is where it could be read.
    pub fn loaded(&self) -> bool {
        self.disc.is_some() && !self.flags.open
    }

    pub fn take_event(&mut self) -> MediaEvent {
        std::mem::replace(&mut self.flags.event, MediaEvent::None)
    }
}

/// Blocks of a disc; the last may be padded.
pub(super) fn blocks(disc: &RawDisk) -> u64 {
    // Block numbers have 32 bits, of which the last is none.
    disc.size().div_ceil(BLOCK).min(u64::from(u32::MAX))
}
