//! Reset, pause, save and restore of the card.

use serde::{Deserialize, Serialize};

use super::card;
use super::function::E1000e;
use crate::lifecycle::Device;
use crate::pci::{ConfigState, MsixState};
use crate::state::{DeviceState, RestoreError};

const KIND: &str = "e1000e";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    config: ConfigState,
    msix: MsixState,
    card: card::Saved,
}

impl E1000e {
    fn start(&mut self) {
        // A device may be resumed that was never paused.
        self.thread.stop();
        self.card.resume();
        self.thread.start(());
    }
}

impl Device for E1000e {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self) {
        self.thread.stop();
        self.card.reset();
        self.msix.reset();
        self.config.reset();
        self.sync();
        if !self.paused {
            self.start();
        }
    }

    fn pause(&mut self) {
        self.paused = true;
        self.thread.stop();
        self.card.pause();
    }

    fn resume(&mut self) {
        self.paused = false;
        self.start();
    }

    fn save(&self) -> DeviceState {
        let saved = Saved {
            config: self.config.save(),
            msix: self.msix.save(),
            card: self.card.save(),
        };
        DeviceState::new(KIND, VERSION, &saved)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let saved: Saved = state.decode(KIND, VERSION)?;
        let invalid = |problem| RestoreError::Invalid {
            kind: KIND,
            problem,
        };
        self.msix.check(&saved.msix).map_err(invalid)?;
        self.card.check(&saved.card).map_err(invalid)?;
        // Nothing changes before everything is known to be right, and this is the last that can fail.
        self.config.restore(&saved.config).map_err(invalid)?;
        self.thread.stop();
        self.msix.restore(&saved.msix);
        // First the ways to the driver, then what it was told by them.
        self.sync();
        self.card.restore(&saved.card);
        if !self.paused {
            self.start();
        }
        Ok(())
    }
}
