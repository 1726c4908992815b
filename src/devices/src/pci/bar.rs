//! Memory BARs: sizing, and following the guest when it moves them.

use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use super::config::{ConfigSpace, register};
use crate::bus::{Bus, BusDevice, SharedDevice};

const BARS: usize = 6;

/// What kind of memory BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// 32 bits, not prefetchable.
    Memory32,
    /// 64 bits, prefetchable: the only kind firmware and Linux place above 4 GiB.
    Memory64,
    /// 64 bits, not prefetchable: registers whose specification wants room for 64 bits, and which firmware's drivers
    /// reach below 4 GiB only.
    Registers64,
}

impl BarKind {
    fn flags(self) -> u8 {
        match self {
            Self::Memory32 => 0x0,
            Self::Memory64 => 0xc,
            Self::Registers64 => 0x4,
        }
    }

    fn wide(self) -> bool {
        self != Self::Memory32
    }
}

/// A BAR that cannot exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("BAR {index} of {size:#x} bytes cannot be")]
pub struct BarError {
    /// Which BAR.
    pub index: usize,
    /// Its size.
    pub size: u64,
}

struct Bar {
    size: u64,
    kind: BarKind,
    device: Weak<Mutex<dyn BusDevice>>,
    mapped: Option<u64>,
}

/// The BARs of one function, and where on the memory bus each answers at the moment.
pub struct Bars {
    /// Not kept alive: the bus keeps the function alive, which has these.
    bus: Weak<Bus>,
    bars: [Option<Bar>; BARS],
}

impl Bars {
    /// None yet. Somebody else keeps the bus.
    pub fn new(bus: &Arc<Bus>) -> Self {
        Self {
            bus: Arc::downgrade(bus),
            bars: Default::default(),
        }
    }

    /// Adds BAR `index`, served by `device`, at build time.
    ///
    /// # Errors
    /// The size is not a power of two of at least 16 (and at most 2 GiB for 32 bits), or the
    /// index is taken or too high.
    pub fn add(
        &mut self,
        config: &mut ConfigSpace,
        index: usize,
        size: u64,
        kind: BarKind,
        device: Weak<Mutex<dyn BusDevice>>,
    ) -> Result<(), BarError> {
        let error = BarError { index, size };
        let wide = kind.wide();
        let last = index + usize::from(wide);
        let too_big = !wide && size > 1 << 31;
        let taken = self
            .bars
            .get(index..=last)
            .is_none_or(|slots| slots.iter().any(Option::is_some))
            || index > 0 && self.kind(index - 1).is_some_and(BarKind::wide);
        if !size.is_power_of_two() || size < 16 || too_big || taken {
            return Err(error);
        }
        let mask = !(size - 1);
        let offset = register::BAR0 + index * 4;
        let low = (mask as u32) & !0xf;
        config.define(offset, &[kind.flags(), 0, 0, 0], &low.to_le_bytes());
        if wide {
            config.define(offset + 4, &[0; 4], &((mask >> 32) as u32).to_le_bytes());
        }
        self.bars[index] = Some(Bar {
            size,
            kind,
            device,
            mapped: None,
        });
        Ok(())
    }

    /// The BARs present, as (index, size, kind).
    pub fn requests(&self) -> Vec<(usize, u64, BarKind)> {
        let present = self.bars.iter().enumerate();
        present
            .filter_map(|(index, bar)| bar.as_ref().map(|bar| (index, bar.size, bar.kind)))
            .collect()
    }

    /// Writes `base` into BAR `index`, as firmware would. Call [`Bars::sync`] afterwards.
    pub fn set(&self, config: &mut ConfigSpace, index: usize, base: u64) {
        let offset = register::BAR0 + index * 4;
        match self.kind(index) {
            Some(kind) if kind.wide() => config.write(offset, &base.to_le_bytes()),
            Some(_) => config.write(offset, &(base as u32).to_le_bytes()),
            None => {}
        }
    }

    /// Where BAR `index` answers at the moment.
    pub fn mapped(&self, index: usize) -> Option<u64> {
        self.bars.get(index)?.as_ref()?.mapped
    }

    /// Makes the bus agree with configuration space; to be called after anything may
    /// have changed there. Tells whether any BAR moved.
    ///
    /// A BAR the guest put on top of another device answers nowhere, until it is moved or
    /// the guest writes this function's configuration again.
    pub fn sync(&mut self, config: &ConfigSpace) -> bool {
        let mut moved = false;
        let Some(bus) = self.bus.upgrade() else {
            return moved;
        };
        for index in 0..BARS {
            let wanted = self.wanted(config, index);
            let Some(bar) = &mut self.bars[index] else {
                continue;
            };
            if bar.mapped == wanted {
                continue;
            }
            if let Some(base) = bar.mapped.take() {
                bus.remove(base);
                moved = true;
            }
            let device = bar.device.upgrade();
            if let (Some(base), Some(device)) = (wanted, device) {
                let device: SharedDevice = device;
                match bus.insert(base, bar.size, device) {
                    Ok(()) => {
                        bar.mapped = Some(base);
                        moved = true;
                    }
                    Err(error) => tracing::debug!(%error, index, "BAR stays unmapped"),
                }
            }
        }
        moved
    }

    fn kind(&self, index: usize) -> Option<BarKind> {
        Some(self.bars.get(index)?.as_ref()?.kind)
    }

    /// The addresses configuration space holds, decoded or not.
    pub fn ranges(&self, config: &ConfigSpace) -> Vec<Range<u64>> {
        let sizes = self.requests().into_iter();
        sizes
            .filter_map(|(index, size, _)| {
                let base = self.address(config, index)?;
                Some(base..base.checked_add(size)?)
            })
            .collect()
    }

    fn wanted(&self, config: &ConfigSpace, index: usize) -> Option<u64> {
        if !config.memory_enabled() {
            return None;
        }
        self.address(config, index)
    }

    fn address(&self, config: &ConfigSpace, index: usize) -> Option<u64> {
        let bar = self.bars[index].as_ref()?;
        let offset = register::BAR0 + index * 4;
        let mut base = u64::from(config.u32(offset) & !0xf);
        if bar.kind.wide() {
            base |= u64::from(config.u32(offset + 4)) << 32;
        }
        // Zero is what a BAR holds before anybody gave it an address.
        (base != 0).then_some(base)
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        let Some(bus) = self.bus.upgrade() else {
            return;
        };
        for bar in self.bars.iter().flatten() {
            if let Some(base) = bar.mapped {
                bus.remove(base);
            }
        }
    }
}
