//! Interrupt causes, their mask, and how they reach the driver: by vectors of their own, by one
//! message, or by a wire (82574 datasheet, 7.4 and 10.2.4).
//!
//! Interrupts come at once: the throttling registers are kept, and a driver that takes long gets
//! fewer, because nothing is told twice before it has looked.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::registers::{Registers, at};
use crate::interrupt::{DrivenLine, InterruptLine};
use crate::pci::{ConfigSpace, Msi, Msix, command};

/// Causes (ICR, 10.2.4.1).
pub(super) mod cause {
    /// A transmit descriptor that asked for it is done.
    pub const TXDW: u32 = 1 << 0;
    /// A transmit ring has run empty.
    pub const TXQE: u32 = 1 << 1;
    /// The link has come or gone.
    pub const LSC: u32 = 1 << 2;
    /// Receive descriptors run low.
    pub const RXDMT0: u32 = 1 << 4;
    pub const RXO: u32 = 1 << 6;
    /// A packet came.
    pub const RXT0: u32 = 1 << 7;
    /// An access to the transceiver is done.
    pub const MDAC: u32 = 1 << 9;
    /// A packet came on the first ring.
    pub const RXQ0: u32 = 1 << 20;
    /// A descriptor of the first transmit ring is done; the second's is one further.
    pub const TXQ0: u32 = 1 << 22;
    /// Any of [`OTHERS`].
    pub const OTHER: u32 = 1 << 24;
    pub const ASSERTED: u32 = 1 << 31;

    /// What shares a vector: also SRPD, ACK and MNG.
    pub const OTHERS: u32 = LSC | RXO | MDAC | 1 << 16 | 1 << 17 | 1 << 18;
}

/// Vectors there are.
pub(super) const VECTORS: u16 = 5;

/// Causes with a vector, by their field in IVAR: RXQ0, RXQ1, TXQ0, TXQ1 and OTHER.
const VECTOR_CAUSES: [u32; 5] = [1 << 20, 1 << 21, 1 << 22, 1 << 23, cause::OTHER];

/// A field in IVAR names a vector.
const IVAR_VALID: u32 = 1 << 3;

/// CTRL_EXT: vectors mask their causes, and reading ICR masks those in IAM.
const EIAME: u32 = 1 << 24;
const IAME: u32 = 1 << 27;

/// The causes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Causes {
    pending: u32,
    /// Those that interrupt.
    enabled: u32,
    /// Those the driver has been told of and has not dealt with.
    told: u32,
}

/// The ways to the driver. It uses one of them (PCI 3.0, 6.8.2).
pub(super) struct Interrupts {
    causes: Causes,
    msix: Arc<Msix>,
    msix_enabled: bool,
    msi: Msi,
    line: DrivenLine,
    wire_disabled: bool,
}

impl Interrupts {
    pub fn new(msix: Arc<Msix>, msi: Msi, line: Arc<dyn InterruptLine>) -> Self {
        Self {
            causes: Causes::default(),
            msix,
            msix_enabled: false,
            msi,
            line: DrivenLine::new(line),
            wire_disabled: false,
        }
    }

    /// Something happened.
    pub fn raise(&mut self, causes: u32, registers: &Registers) {
        self.causes.pending |= causes & !cause::ASSERTED;
        if causes & cause::OTHERS != 0 {
            self.causes.pending |= cause::OTHER;
        }
        self.update(registers);
    }

    /// A write of ICS: the driver wants to be told in any case.
    pub fn set(&mut self, causes: u32, registers: &Registers) {
        self.causes.told &= !causes;
        self.raise(causes, registers);
    }

    /// ICR without what reading it does.
    pub fn pending(&self) -> u32 {
        let asserted = self.causes.pending & self.causes.enabled != 0;
        self.causes.pending | if asserted { cause::ASSERTED } else { 0 }
    }

    /// A read of ICR, which clears it, unless nothing that is enabled is in it: a driver that
    /// shares its wire then leaves it alone.
    pub fn take(&mut self, registers: &Registers) -> u32 {
        let value = self.pending();
        let asserted = value & cause::ASSERTED != 0;
        if asserted || self.causes.enabled == 0 {
            self.causes.pending = 0;
        }
        if asserted {
            self.auto_mask(registers);
        }
        self.update(registers);
        value
    }

    /// A write of ICR.
    pub fn acknowledge(&mut self, causes: u32, registers: &Registers) {
        self.causes.pending &= !causes;
        self.auto_mask(registers);
        self.update(registers);
    }

    fn auto_mask(&mut self, registers: &Registers) {
        if registers.has(at::CTRL_EXT, IAME) {
            self.causes.enabled &= !registers.get(at::IAM);
        }
    }

    /// IMS as it reads.
    pub fn enabled(&self) -> u32 {
        self.causes.enabled
    }

    /// A write of IMS.
    pub fn enable(&mut self, causes: u32, registers: &Registers) {
        self.causes.enabled |= causes & !cause::ASSERTED;
        self.update(registers);
    }

    /// A write of IMC.
    pub fn disable(&mut self, causes: u32, registers: &Registers) {
        self.causes.enabled &= !causes;
        self.update(registers);
    }

    /// Nothing has happened, nothing interrupts.
    pub fn reset(&mut self, registers: &Registers) {
        self.causes = Causes::default();
        self.update(registers);
    }

    pub fn save(&self) -> Causes {
        self.causes
    }

    /// Takes saved causes. What the driver was told it knows.
    pub fn restore(&mut self, causes: Causes, registers: &Registers) {
        self.causes = Causes {
            pending: causes.pending & !cause::ASSERTED,
            enabled: causes.enabled & !cause::ASSERTED,
            told: causes.told,
        };
        self.update(registers);
        self.line.force(self.wired());
    }

    /// Follows configuration space. A driver that goes over to messages is told again: it may
    /// have just not heard.
    pub fn sync(&mut self, config: &ConfigSpace, capabilities: &Capabilities, all: &Registers) {
        let before = (self.msix_enabled, self.msi.enabled());
        self.msix.sync(config, capabilities.msix);
        self.msi.sync(config, capabilities.msi);
        self.msix_enabled = Msix::enabled(config, capabilities.msix);
        let control = config.u16(crate::pci::register::COMMAND);
        self.wire_disabled = control & command::INTX_DISABLE != 0;
        if before != (self.msix_enabled, self.msi.enabled()) {
            self.causes.told = 0;
        }
        self.update(all);
    }

    fn update(&mut self, registers: &Registers) {
        let interrupting = self.causes.pending & self.causes.enabled;
        self.causes.told &= interrupting;
        let news = interrupting & !self.causes.told;
        self.line.set(self.wired());
        if self.msix_enabled {
            self.send_vectors(news, registers);
            return;
        }
        self.causes.told = interrupting;
        if news != 0 {
            // Does nothing while off.
            self.msi.trigger();
        }
    }

    fn send_vectors(&mut self, news: u32, registers: &Registers) {
        let ivar = registers.get(at::IVAR);
        for (field, cause) in VECTOR_CAUSES.into_iter().enumerate() {
            let vector = ivar >> (4 * field);
            if news & cause == 0 || vector & IVAR_VALID == 0 {
                continue;
            }
            self.msix.trigger((vector & 7) as u16);
            self.causes.told |= cause;
            // With EIAC the message acknowledges its cause by itself, with EIAME it masks it.
            self.causes.pending &= !(cause & registers.get(at::EIAC));
            if registers.has(at::CTRL_EXT, EIAME) {
                self.causes.enabled &= !(cause & registers.get(at::IAM));
            }
        }
        self.causes.told &= self.causes.pending & self.causes.enabled;
    }

    fn wired(&self) -> bool {
        let interrupting = self.causes.pending & self.causes.enabled != 0;
        interrupting && !self.msix_enabled && !self.msi.enabled() && !self.wire_disabled
    }
}

/// Where the capabilities are in configuration space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capabilities {
    pub msi: usize,
    pub msix: usize,
}
