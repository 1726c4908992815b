//! Vendor capabilities that tell a driver where in the BAR each structure is (virtio 1.2, 4.1.4).

use super::{BAR, BAR_BYTES, COMMON, COMMON_BYTES, DEVICE, ISR, NOTIFY, NOTIFY_STRIDE, PAGE};
use crate::pci::ConfigSpace;

const VENDOR: u8 = 0x09;
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_ISR: u8 = 3;
const TYPE_DEVICE: u8 = 4;
const TYPE_PCI_CFG: u8 = 5;

/// Offsets within the configuration access capability.
const WINDOW_BAR: usize = 4;
const WINDOW_OFFSET: usize = 8;
const WINDOW_LENGTH: usize = 12;
const WINDOW_DATA: usize = 16;
const WINDOW_END: usize = 20;

/// Adds all of them at build time and returns the offset of the last, the window.
pub(super) fn add_all(config: &mut ConfigSpace) -> Window {
    add(config, TYPE_COMMON, COMMON, COMMON_BYTES, &[]);
    let stride = (NOTIFY_STRIDE as u32).to_le_bytes();
    add(config, TYPE_NOTIFY, NOTIFY, PAGE, &stride);
    add(config, TYPE_ISR, ISR, 1, &[]);
    add(config, TYPE_DEVICE, DEVICE, PAGE, &[]);
    let offset = add(config, TYPE_PCI_CFG, 0, 0, &[0; 4]);
    // BAR, offset, length and data are the driver's.
    config.define(offset + WINDOW_BAR, &[0], &[0xff]);
    config.define(offset + WINDOW_OFFSET, &[0; 8], &[0xff; 8]);
    Window { offset }
}

fn add(config: &mut ConfigSpace, kind: u8, offset: u64, length: u64, extra: &[u8]) -> usize {
    let mut body = vec![(16 + extra.len()) as u8, kind, BAR, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend((length as u32).to_le_bytes());
    body.extend(extra);
    config.add_capability(VENDOR, &body, &vec![0; body.len()])
}

/// The alternative access to the BAR through configuration space (virtio 1.2, 4.1.4.9).
pub(super) struct Window {
    offset: usize,
}

impl Window {
    /// If an access of `length` bytes at `offset` of configuration space reaches the data
    /// register and the window is set up rightly: the BAR offset and width it stands for.
    pub(super) fn target(
        &self,
        config: &ConfigSpace,
        offset: usize,
        length: usize,
    ) -> Option<(u64, usize)> {
        let data = self.offset + WINDOW_DATA..self.offset + WINDOW_END;
        if !data.contains(&offset) {
            return None;
        }
        let bar = config.u16(self.offset + WINDOW_BAR) as u8;
        let target = u64::from(config.u32(self.offset + WINDOW_OFFSET));
        let width = config.u32(self.offset + WINDOW_LENGTH);
        let right = bar == BAR
            && matches!(width, 1 | 2 | 4)
            && target.is_multiple_of(width.into())
            && target < BAR_BYTES
            && offset == data.start
            && length >= width as usize;
        right.then_some((target, width as usize))
    }
}
