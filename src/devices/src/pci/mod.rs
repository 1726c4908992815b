//! A conventional PCI bus as a Q35 chipset shows it: one bus, no bridges.
//!
//! Configuration space is reached by ports (mechanism #1, [`ConfigPorts`]) and by
//! memory (ECAM, mapped by the [`HostBridge`]). Functions interrupt by MSI-X, and say so with an interrupt pin of 0,
//! or by MSI or a wire.
//!
//! With firmware absent, [`PciRoot::assign_bars`] gives every memory BAR an address;
//! a guest may move them at will, and [`Bars`] follows.

mod bar;
mod config;
mod host_bridge;
mod lpc;
mod msi;
mod msix;
mod placed;
mod ports;
mod refusal;
mod root;
#[cfg(test)]
mod tests;

pub use bar::{BarError, BarKind, Bars};
pub use config::{ConfigSpace, ConfigState, Header};
pub(crate) use config::{command, register};
pub use host_bridge::{EcamWindow, HostBridge};
pub use lpc::{Lpc, PirqRouting};
pub use msi::Msi;
pub use msix::{Msix, MsixState, TABLE_ENTRY_BYTES};
pub use ports::{
    CONFIG_PORTS, CONFIG_PORTS_LENGTH, ConfigPorts, RESET_CONTROL_PORT, RESET_CONTROL_RESET,
};
pub use root::{Address, AssignError, PciRoot, SharedFunction, Windows};

use std::ops::Range;

use crate::lifecycle::Device;

/// Bytes of configuration space a conventional function has.
pub const CONFIG_BYTES: usize = 256;

/// One function on the bus.
pub trait PciFunction: Device {
    /// Reads 1 to 4 bytes that lie within one aligned doubleword below [`CONFIG_BYTES`].
    fn config_read(&mut self, offset: usize, data: &mut [u8]);

    /// Writes 1 to 4 bytes that lie within one aligned doubleword below [`CONFIG_BYTES`].
    fn config_write(&mut self, offset: usize, data: &[u8]);

    /// The memory BARs that want an address, as (index, size in bytes, kind).
    fn bar_requests(&self) -> Vec<(usize, u64, BarKind)> {
        Vec::new()
    }

    /// Sets a BAR to `base`, as firmware would.
    fn set_bar(&mut self, _index: usize, _base: u64) {}

    /// The addresses its BARs hold, whether or not it decodes them.
    fn bar_ranges(&self) -> Vec<Range<u64>> {
        Vec::new()
    }
}
