//! How the chipset stands: where PCI is, which firmware decides and ACPI tables tell.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use lodge_devices::pci::{HostBridge, Lpc, PciRoot};

use crate::acpi;
use crate::layout::{FIRMWARE_PCI_BASE, PCI_WINDOW_END, PM_BASE};

/// Firmware aligns its window for 64-bit BARs at least so.
const HIGH_ALIGNMENT: u64 = 1 << 30;

/// The parts of the chipset that the ACPI tables describe.
#[derive(Clone)]
pub struct Chipset {
    /// All functions.
    pub root: Arc<PciRoot>,
    /// Where configuration space is.
    pub host_bridge: Arc<Mutex<HostBridge>>,
    /// Where the power management block is.
    pub lpc: Arc<Mutex<Lpc>>,
    /// APIC IDs of the vCPUs.
    pub apic_ids: Vec<u8>,
    /// End of memory below 4 GiB.
    pub low_memory_end: u64,
    /// Window for 64-bit BARs when none has an address yet.
    pub high_window: Range<u64>,
    /// Whether there are keyboard and mouse.
    pub keyboard: bool,
}

impl Chipset {
    /// The machine as it is at the moment.
    pub fn describe(&self) -> acpi::Machine {
        let ecam = self.host_bridge.lock().unwrap().ecam();
        // A window above 4 GiB cannot be told in the tables of old systems; no firmware puts it there.
        let ecam = ecam
            .map(|window| window.base..window.base + window.length)
            .filter(|range| range.end <= PCI_WINDOW_END);
        let pm_base = self.lpc.lock().unwrap().pm_base();
        acpi::Machine {
            apic_ids: self.apic_ids.clone(),
            pm_base: pm_base.unwrap_or(PM_BASE),
            low_windows: low_windows(self.low_memory_end, ecam.as_ref()),
            ecam,
            high_window: high_window(&self.root.high_bars(), &self.high_window),
            keyboard: self.keyboard,
        }
    }
}

/// What is left below 4 GiB beside memory and configuration space.
fn low_windows(low_memory_end: u64, ecam: Option<&Range<u64>>) -> Vec<Range<u64>> {
    let all = low_memory_end.max(FIRMWARE_PCI_BASE)..PCI_WINDOW_END;
    let windows = match ecam {
        None => vec![all],
        Some(ecam) => vec![
            all.start..ecam.start.min(all.end),
            ecam.end.max(all.start)..all.end,
        ],
    };
    windows
        .into_iter()
        .filter(|window| !window.is_empty())
        .collect()
}

/// At least where BARs are, with the room that there would be without them.
fn high_window(bars: &Range<u64>, unused: &Range<u64>) -> Range<u64> {
    if bars.is_empty() {
        return unused.clone();
    }
    let start = bars.start / HIGH_ALIGNMENT * HIGH_ALIGNMENT;
    let length = unused.end.saturating_sub(unused.start);
    start..bars.end.max(start.saturating_add(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_space_is_cut_out_of_the_window() {
        let end = PCI_WINDOW_END;
        let seabios = 0xb000_0000..0xc000_0000;
        assert_eq!(
            low_windows(256 << 20, Some(&seabios)),
            [0x8000_0000..0xb000_0000, 0xc000_0000..end]
        );
        let above = 0xc000_0000..end;
        assert_eq!(low_windows(0xb000_0000, Some(&seabios)), [above]);
        let ovmf = 0xe000_0000..0xf000_0000;
        assert_eq!(
            low_windows(0xb000_0000, Some(&ovmf)),
            [0xb000_0000..0xe000_0000, 0xf000_0000..end]
        );
        let all = 0x8000_0000..end;
        assert_eq!(low_windows(1 << 30, None), [all]);
    }

    #[test]
    fn the_high_window_follows_the_bars() {
        let unused = 32 << 30..64 << 30;
        assert_eq!(high_window(&(0..0), &unused), unused);
        let bars = (768_u64 << 30) + 0x4000..(768 << 30) + 0x8000;
        assert_eq!(high_window(&bars, &unused), 768 << 30..800 << 30);
    }
}
