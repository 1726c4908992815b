//! Bus 0: which function sits where, and giving BARs their first addresses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, RwLock};

use super::{BarKind, CONFIG_BYTES, PciFunction};

/// Device and function number on bus 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    device: u8,
    function: u8,
}

impl Address {
    /// `device` 0 to 31, `function` 0 to 7; `None` beyond.
    pub const fn new(device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 {
            Some(Self { device, function })
        } else {
            None
        }
    }

    /// Device number, 0 to 31.
    pub const fn device(self) -> u8 {
        self.device
    }

    /// Function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.function
    }

    pub(super) const fn from_devfn(devfn: u8) -> Self {
        Self {
            device: devfn >> 3,
            function: devfn & 7,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "00:{:02x}.{}", self.device, self.function)
    }
}

/// Address ranges BARs may be put in; the same ranges belong in the host bridge's ACPI `_CRS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Below 4 GiB.
    pub low: Range<u64>,
    /// Above 4 GiB; may be empty.
    pub high: Range<u64>,
}

/// A function or BAR for which there is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// The address has a function already.
    #[error("PCI address {0} is taken")]
    Taken(Address),
    /// The windows are full.
    #[error("no room for BAR {index} ({size:#x} bytes) of {address}")]
    NoRoom {
        /// The function.
        address: Address,
        /// Its BAR.
        index: usize,
        /// Size in bytes.
        size: u64,
    },
}

/// A function on the bus.
pub type SharedFunction = Arc<Mutex<dyn PciFunction>>;

/// The functions on bus 0.
#[derive(Default)]
pub struct PciRoot {
    functions: RwLock<BTreeMap<Address, SharedFunction>>,
}

impl PciRoot {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a function on the bus.
    ///
    /// # Errors
    /// [`AssignError::Taken`].
    pub fn add(&self, address: Address, function: SharedFunction) -> Result<(), AssignError> {
        let mut functions = self.functions.write().unwrap();
        if functions.contains_key(&address) {
            return Err(AssignError::Taken(address));
        }
        functions.insert(address, function);
        Ok(())
    }

    /// Takes a function off the bus; `None` where none is. It still answers at the addresses of its BARs until it is reset.
    pub fn remove(&self, address: Address) -> Option<SharedFunction> {
        self.functions.write().unwrap().remove(&address)
    }

    /// Gives every BAR an address, as firmware would: at first start and after every
    /// reset of the devices (which clears them). Decoding stays off; the guest's drivers turn it on.
    ///
    /// # Errors
    /// [`AssignError::NoRoom`]; BARs before it have their addresses.
    pub fn assign_bars(&self, windows: &Windows) -> Result<(), AssignError> {
        let functions = self.functions.read().unwrap();
        let mut requests = Vec::new();
        for (&address, function) in functions.iter() {
            let bars = function.lock().unwrap().bar_requests();
            requests.extend(
                bars.into_iter()
                    .map(|(index, size, kind)| (size, address, index, kind)),
            );
        }
        // Largest first leaves no gaps, as every size is a power of two. The sort is stable.
        requests.sort_by_key(|&(size, ..)| std::cmp::Reverse(size));
        let mut low = windows.low.clone();
        let mut high = windows.high.clone();
        for (size, address, index, kind) in requests {
            let base = match kind {
                BarKind::Memory32 | BarKind::Registers64 => take(&mut low, size),
                BarKind::Memory64 => take(&mut high, size).or_else(|| take(&mut low, size)),
            };
            let base = base.ok_or(AssignError::NoRoom {
                address,
                index,
                size,
            })?;
            functions[&address].lock().unwrap().set_bar(index, base);
        }
        Ok(())
    }

    /// The addresses that BARs hold above 4 GiB, from the lowest to the highest; empty without any.
    pub fn high_bars(&self) -> Range<u64> {
        let functions = self.functions.read().unwrap();
        let ranges = functions
            .values()
            .flat_map(|function| function.lock().unwrap().bar_ranges())
            .filter(|range| range.start >= 1 << 32);
        ranges
            .reduce(|all, range| all.start.min(range.start)..all.end.max(range.end))
            .unwrap_or(0..0)
    }

    /// Reads configuration space of any bus; where nothing is, all ones.
    /// `offset` is up to 4095 (extended configuration space); the width is any.
    pub(super) fn config_read(&self, bus: u8, address: Address, offset: usize, data: &mut [u8]) {
        data.fill(0xff);
        let Some(function) = self.find(bus, address) else {
            return;
        };
        let mut function = function.lock().unwrap();
        for_each_doubleword(offset, data.len(), |at, range| {
            if at < CONFIG_BYTES {
                function.config_read(at, &mut data[range]);
            } else {
                // No extended capabilities: a null list.
                data[range].fill(0);
            }
        });
    }

    /// Writes configuration space.
    pub(super) fn config_write(&self, bus: u8, address: Address, offset: usize, data: &[u8]) {
        let Some(function) = self.find(bus, address) else {
            return;
        };
        let mut function = function.lock().unwrap();
        for_each_doubleword(offset, data.len(), |at, range| {
            if at < CONFIG_BYTES {
                function.config_write(at, &data[range]);
            }
        });
    }

    fn find(&self, bus: u8, address: Address) -> Option<SharedFunction> {
        if bus != 0 {
            return None;
        }
        self.functions.read().unwrap().get(&address).cloned()
    }
}

/// Cuts the first aligned `size` bytes off `window`.
fn take(window: &mut Range<u64>, size: u64) -> Option<u64> {
    let base = window.start.checked_next_multiple_of(size)?;
    let end = base.checked_add(size).filter(|&end| end <= window.end)?;
    window.start = end;
    Some(base)
}

/// Splits an access at doubleword borders and within 4 KiB.
fn for_each_doubleword(offset: usize, length: usize, mut access: impl FnMut(usize, Range<usize>)) {
    let mut done = 0;
    while done < length && offset + done < 4096 {
        let at = offset + done;
        let count = (4 - at % 4).min(length - done);
        access(at, done..done + count);
        done += count;
    }
}
