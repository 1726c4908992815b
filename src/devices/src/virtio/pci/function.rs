//! The PCI side of the transport: configuration space.

use std::ops::Range;

use super::BAR;
use super::transport::VirtioPci;
use crate::pci::{BarKind, PciFunction};

impl VirtioPci {
    /// Makes everything agree with configuration space after it may have changed.
    pub(super) fn sync(&mut self) {
        self.events.msix.sync(&self.config, self.msix_capability);
        if self.bars.sync(&self.config) {
            self.place_doorbells();
        }
    }
}

impl PciFunction for VirtioPci {
    fn config_read(&mut self, offset: usize, data: &mut [u8]) {
        let window = self.window.target(&self.config, offset, data.len());
        self.config.read(offset, data);
        if let Some((target, width)) = window {
            self.bar_read(target, &mut data[..width]);
        }
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        if let Some((target, width)) = self.window.target(&self.config, offset, data.len()) {
            self.bar_write(target, &data[..width]);
        }
        self.sync();
    }

    fn bar_requests(&self) -> Vec<(usize, u64, BarKind)> {
        self.bars.requests()
    }

    fn bar_ranges(&self) -> Vec<Range<u64>> {
        self.bars.ranges(&self.config)
    }

    fn set_bar(&mut self, index: usize, base: u64) {
        debug_assert_eq!(index, usize::from(BAR));
        self.bars.set(&mut self.config, index, base);
        self.sync();
    }
}
