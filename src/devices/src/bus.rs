//! Port and memory buses: which device answers at which address.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

/// Devices that were pulled of which is known where they were: more than a guest has.
const MOST_GHOSTS: usize = 32;

/// A device that answers reads and writes of a range of addresses.
///
/// Calls come from vCPU threads, one at a time per device. `data` is 1 to 8
/// bytes long (a guest may choose any of these widths, aligned or not) and
/// `offset` is relative to the start of the range, at most its length less one;
/// `offset + data.len()` may lie beyond the end. A device ignores writes and
/// leaves `data` as all ones for reads it does not understand. It never blocks
/// on anything a guest controls and never panics.
pub trait BusDevice: Send {
    /// Fills `data`, which holds all ones at entry.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes `data`.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A device with byte-wide registers, as on an ISA bus: a wider access is a
/// sequence of byte accesses at rising addresses, as the bus bridge splits it.
pub trait ByteDevice: Send {
    /// Number of registers; accesses beyond are nobody's.
    const LENGTH: u64;

    /// Reads the register at `offset`.
    fn read_byte(&mut self, offset: u64) -> u8;

    /// Writes the register at `offset`.
    fn write_byte(&mut self, offset: u64, value: u8);
}

impl<T: ByteDevice> BusDevice for T {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..Self::LENGTH).zip(data) {
            *byte = self.read_byte(at);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..Self::LENGTH).zip(data) {
            self.write_byte(at, *byte);
        }
    }
}

/// Reads from a device of `length` bytes whose registers are doublewords; `read` gets their
/// offsets. Part of a register is cut out of it, once for each register touched.
pub(crate) fn read_doublewords(
    offset: u64,
    length: u64,
    data: &mut [u8],
    mut read: impl FnMut(u64) -> u32,
) {
    let mut word = [0; 4];
    for (index, (at, byte)) in (offset..length).zip(data).enumerate() {
        let within = (at % 4) as usize;
        if index == 0 || within == 0 {
            word = read(at & !3).to_le_bytes();
        }
        *byte = word[within];
    }
}

/// Writes to a device of `length` bytes whose registers are doublewords, which take aligned
/// doublewords and quadwords; anything else is ignored.
pub(crate) fn write_doublewords(
    offset: u64,
    length: u64,
    data: &[u8],
    mut write: impl FnMut(u64, u32),
) {
    if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len() as u64) {
        return;
    }
    for (at, word) in (offset..length).step_by(4).zip(data.chunks_exact(4)) {
        write(at, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
}

/// A device shared between the vCPU threads that may address it.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// A range that cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range is empty or passes the end of the address space.
    #[error("range {base:#x}+{length:#x} is empty or wraps")]
    BadRange {
        /// First address.
        base: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Another device already answers in the range.
    #[error("range {base:#x}+{length:#x} overlaps another device")]
    Overlap {
        /// First address.
        base: u64,
        /// Length in bytes.
        length: u64,
    },
}

struct Range {
    base: u64,
    length: u64,
    device: SharedDevice,
}

/// An address space of non-overlapping device ranges.
///
/// The table lock is held only for the look-up, never while a device runs, so a
/// device may move ranges (a PCI BAR) from inside its own write.
#[derive(Default)]
pub struct Bus {
    /// By rising base. Looked through at every exit and changed hardly ever.
    ranges: RwLock<Vec<Range>>,
    /// Counts changes of `ranges`, so that whoever remembers one knows when to look again.
    changes: AtomicU64,
    /// Addresses of devices that were pulled.
    ghosts: RwLock<VecDeque<std::ops::Range<u64>>>,
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Places `device` at `base`.
    ///
    /// # Errors
    /// [`BusError`], and nothing is placed.
    pub fn insert(&self, base: u64, length: u64, device: SharedDevice) -> Result<(), BusError> {
        let end = base.checked_add(length).filter(|_| length > 0);
        let Some(end) = end else {
            return Err(BusError::BadRange { base, length });
        };
        let mut ranges = self.ranges.write().unwrap();
        let at = ranges.partition_point(|range| range.base < end);
        let below = at.checked_sub(1).map(|below| &ranges[below]);
        if below.is_some_and(|range| range.base + range.length > base) {
            return Err(BusError::Overlap { base, length });
        }
        let range = Range {
            base,
            length,
            device,
        };
        ranges.insert(at, range);
        self.changes.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Removes the range that starts at `base`; tells whether there was one.
    pub fn remove(&self, base: u64) -> bool {
        let mut ranges = self.ranges.write().unwrap();
        let found = ranges.binary_search_by_key(&base, |range| range.base);
        self.changes.fetch_add(1, Ordering::Release);
        found.map(|at| ranges.remove(at)).is_ok()
    }

    /// Reads from the device at `address`. Where there is none, or a width no
    /// device takes, the guest sees all ones; where one was pulled, zeroes.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        self.serve_read(self.locate(address), address, data);
    }

    /// Reads from what was found at `address`: an offset, and a device.
    fn serve_read(&self, found: Option<(u64, SharedDevice)>, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        match found {
            Some((offset, device)) if (1..=8).contains(&data.len()) => {
                device.lock().unwrap().read(offset, data);
            }
            Some(_) => {}
            None => self.read_nobodys(address, data),
        }
    }

    #[cold]
    fn read_nobodys(&self, address: u64, data: &mut [u8]) {
        let ghosts = self.ghosts.read().unwrap();
        if ghosts.iter().any(|ghost| ghost.contains(&address)) {
            data.fill(0);
        }
    }

    /// Has reads find zeroes where a device was pulled from under its driver, as long as nothing else is there. Drivers of virtio devices
    /// wait without end for a status of zero (virtio 1.2, 4.1.4.3.2) before they let go of one that is gone.
    pub fn leave_ghost(&self, range: std::ops::Range<u64>) {
        let mut ghosts = self.ghosts.write().unwrap();
        if ghosts.len() >= MOST_GHOSTS {
            ghosts.pop_front();
        }
        ghosts.push_back(range);
    }

    /// Forgets what was pulled, for a system that starts anew.
    pub fn forget_ghosts(&self) {
        self.ghosts.write().unwrap().clear();
    }

    /// Writes to the device at `address`; without one nothing happens.
    pub fn write(&self, address: u64, data: &[u8]) {
        write(self.locate(address), data);
    }

    /// The offset of `address` in the range it is in, and the range's device.
    fn locate(&self, address: u64) -> Option<(u64, SharedDevice)> {
        let ((base, _), device) = self.find(address)?;
        Some((address - base, device))
    }

    /// The range `address` is in, as base and length, and its device.
    fn find(&self, address: u64) -> Option<((u64, u64), SharedDevice)> {
        let ranges = self.ranges.read().unwrap();
        let after = ranges.partition_point(|range| range.base <= address);
        let range = &ranges[after.checked_sub(1)?];
        let inside = address - range.base < range.length;
        inside.then(|| ((range.base, range.length), Arc::clone(&range.device)))
    }
}

/// A bus as one thread sees it, which remembers the device it addressed last: guests mostly go on with the same.
pub struct BusView {
    bus: Arc<Bus>,
    last: Option<Remembered>,
}

struct Remembered {
    base: u64,
    length: u64,
    /// Weak: a device that was taken off the bus is to be gone, though this thread may not address anything for long.
    device: Weak<Mutex<dyn BusDevice>>,
    /// Changes of the bus until it was found.
    changes: u64,
}

impl BusView {
    /// Of `bus`.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self { bus, last: None }
    }

    /// See [`Bus::read`].
    pub fn read(&mut self, address: u64, data: &mut [u8]) {
        let found = self.find(address);
        self.bus.serve_read(found, address, data);
    }

    /// See [`Bus::write`].
    pub fn write(&mut self, address: u64, data: &[u8]) {
        write(self.find(address), data);
    }

    fn find(&mut self, address: u64) -> Option<(u64, SharedDevice)> {
        let changes = self.bus.changes.load(Ordering::Acquire);
        if let Some(last) = &self.last
            && last.changes == changes
            && address.wrapping_sub(last.base) < last.length
            && let Some(device) = last.device.upgrade()
        {
            return Some((address - last.base, device));
        }
        self.look_up(address, changes)
    }

    #[cold]
    fn look_up(&mut self, address: u64, changes: u64) -> Option<(u64, SharedDevice)> {
        let ((base, length), device) = self.bus.find(address)?;
        self.last = Some(Remembered {
            base,
            length,
            device: Arc::downgrade(&device),
            changes,
        });
        Some((address - base, device))
    }
}

/// Writes to what was found: an offset, and a device.
fn write(found: Option<(u64, SharedDevice)>, data: &[u8]) {
    if let Some((offset, device)) = found
        && (1..=8).contains(&data.len())
    {
        device.lock().unwrap().write(offset, data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Probe {
        last: Option<(u64, Vec<u8>)>,
    }

    impl BusDevice for Probe {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            self.last = Some((offset, data.to_vec()));
        }
    }

    fn probe() -> Arc<Mutex<Probe>> {
        Arc::default()
    }

    #[test]
    fn finds_devices_by_address() {
        let bus = Bus::new();
        let device = probe();
        bus.insert(0x100, 8, device.clone()).unwrap();
        let mut data = [0; 2];
        bus.read(0x107, &mut data);
        assert_eq!(data, [7, 7]);
        bus.read(0x108, &mut data);
        assert_eq!(data, [0xff, 0xff], "one past the end is nobody's");
        bus.write(0x103, &[1, 2]);
        assert_eq!(device.lock().unwrap().last, Some((3, vec![1, 2])));
    }

    #[test]
    fn a_view_sees_every_change() {
        let bus = Arc::new(Bus::new());
        let mut view = BusView::new(Arc::clone(&bus));
        let mut byte = |address| {
            let mut data = [0];
            view.read(address, &mut data);
            data[0]
        };
        let device = probe();
        bus.insert(0x100, 8, device.clone()).unwrap();
        assert_eq!([byte(0x107), byte(0x101), byte(0x108)], [7, 1, 0xff]);
        assert!(bus.remove(0x100));
        assert_eq!(byte(0x107), 0xff, "it was taken away");
        assert_eq!(Arc::strong_count(&device), 1, "and nobody keeps it");
        bus.insert(0x104, 8, device.clone()).unwrap();
        assert_eq!([byte(0x107), byte(0x10b), byte(0x103)], [3, 7, 0xff]);
        let mut view = BusView::new(bus);
        view.write(0x106, &[9]);
        view.write(0x106, &[]);
        assert_eq!(device.lock().unwrap().last, Some((2, vec![9])));
    }

    #[test]
    fn refuses_overlaps_and_wraps() {
        let bus = Bus::new();
        bus.insert(0x100, 0x10, probe()).unwrap();
        for (base, length) in [(0xff, 2), (0x100, 1), (0x10f, 1), (0, 0x1000)] {
            assert_eq!(
                bus.insert(base, length, probe()),
                Err(BusError::Overlap { base, length })
            );
        }
        for (base, length) in [(5, 0), (u64::MAX, 2)] {
            assert_eq!(
                bus.insert(base, length, probe()),
                Err(BusError::BadRange { base, length })
            );
        }
        bus.insert(0x110, 1, probe()).unwrap();
        assert!(bus.remove(0x100));
        assert!(!bus.remove(0x100));
        bus.insert(0xff, 2, probe()).unwrap();
    }

    #[test]
    fn where_a_device_was_pulled_reads_find_zeroes() {
        let bus = Bus::new();
        let read = |address| {
            let mut data = [7; 2];
            bus.read(address, &mut data);
            data
        };
        bus.leave_ghost(0x100..0x110);
        assert_eq!((read(0xff), read(0x100)), ([0xff; 2], [0; 2]));
        assert_eq!((read(0x10f), read(0x110)), ([0; 2], [0xff; 2]));
        // Another device in its place is no ghost.
        bus.insert(0x108, 8, probe()).unwrap();
        assert_eq!((read(0x104), read(0x109)), ([0; 2], [1; 2]));
        bus.remove(0x108);
        for base in (0x1000..).step_by(0x10).take(MOST_GHOSTS - 1) {
            bus.leave_ghost(base..base + 1);
        }
        assert_eq!(read(0x100), [0; 2]);
        bus.leave_ghost(0..1);
        assert_eq!((read(0x100), read(0)), ([0xff; 2], [0; 2]));
        bus.forget_ghosts();
        assert_eq!(read(0), [0xff; 2]);
    }

    #[test]
    fn ignores_widths_no_processor_issues() {
        let bus = Bus::new();
        bus.insert(0, 0x100, probe()).unwrap();
        let mut data = [0; 9];
        bus.read(0, &mut data);
        assert_eq!(data, [0xff; 9]);
        bus.write(0, &[]);
    }
}
