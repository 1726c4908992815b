//! How the controller reaches its driver: one message, or one wire.

use std::sync::Arc;

use crate::interrupt::{DrivenLine, InterruptLine};
use crate::pci::{ConfigSpace, Msi, command};

/// The message and the wire. A driver uses one of them (PCI 3.0, 6.8.2: with MSI on, a function
/// must not drive its wire).
pub(super) struct Interrupts {
    msi: Msi,
    line: DrivenLine,
    wire_disabled: bool,
    /// What the controller has to say.
    level: bool,
}

impl Interrupts {
    pub fn new(msi: Msi, line: Arc<dyn InterruptLine>) -> Self {
        Self {
            msi,
            line: DrivenLine::new(line),
            wire_disabled: false,
            level: false,
        }
    }

    /// Follows configuration space. Messages that were off while something was to be said are
    /// made up for: the driver may have just not seen it.
    pub fn sync(&mut self, config: &ConfigSpace, capability: usize, command_register: u16) {
        let before = self.msi.enabled();
        self.msi.sync(config, capability);
        self.wire_disabled = command_register & command::INTX_DISABLE != 0;
        let news = !before && self.msi.enabled();
        self.set(self.level, news);
    }

    /// Says `level`; `news` if something came that the last message did not cover.
    pub fn set(&mut self, level: bool, news: bool) {
        self.level = level;
        self.line.set(self.wired());
        if level && news {
            // Does nothing while off.
            self.msi.trigger();
        }
    }

    /// Drives the wire in any case, after a restore.
    pub fn force(&mut self) {
        self.line.force(self.wired());
    }

    fn wired(&self) -> bool {
        self.level && !self.msi.enabled() && !self.wire_disabled
    }
}
