//! PCI slots. Each kind of device has its own range, so that adding a disk does not
//! rename a guest's network interfaces.

use std::ops::RangeInclusive;

use lodge_devices::pci::Address;

/// Slots for network interfaces, as long as they last.
pub const NICS: RangeInclusive<u8> = 1..=8;
/// Slots for disks, as long as they last.
pub const DISKS: RangeInclusive<u8> = 9..=26;
/// Slots for disks that come while the guest runs: as many as a guest may have.
pub const HOT_DISKS: RangeInclusive<u8> = 9..=24;
/// The tablet. To be taken last: where there are as many disks as fit, it is elsewhere.
pub const TABLET: RangeInclusive<u8> = 25..=25;
/// The watchdog.
pub const WATCHDOG: RangeInclusive<u8> = 26..=26;
/// The sockets between guest and host.
pub const VSOCK: RangeInclusive<u8> = 27..=27;
/// The memory balloon.
pub const BALLOON: RangeInclusive<u8> = 28..=28;
/// The entropy device.
pub const RNG: RangeInclusive<u8> = 29..=29;
/// The console.
pub const CONSOLE: RangeInclusive<u8> = 30..=30;

/// Slots without a fixed use: all but the host bridge's and the LPC bridge's.
const ALL: RangeInclusive<u8> = 1..=30;

/// Which slots are taken.
#[derive(Default)]
pub struct Slots {
    taken: u32,
}

impl Slots {
    /// Takes the first free slot of `range`, or else of all.
    pub fn take(&mut self, range: RangeInclusive<u8>) -> Option<Address> {
        self.take_of(range.chain(ALL))
    }

    /// Takes the first free slot of `slots`.
    pub fn take_of(&mut self, mut slots: impl Iterator<Item = u8>) -> Option<Address> {
        let free = |slot: &u8| ALL.contains(slot) && self.taken & (1 << slot) == 0;
        let slot = slots.find(free)?;
        self.taken |= 1 << slot;
        Address::new(slot, 0)
    }

    /// Frees the slot at `address`.
    pub fn give_back(&mut self, address: Address) {
        self.taken &= !(1 << address.device());
    }
}

#[cfg(test)]
mod tests {
    use lodge_devices::hotplug::HOTPLUG_SLOTS;

    use super::*;

    #[test]
    fn a_slot_that_is_free_again_is_taken_first() {
        assert!(
            HOT_DISKS
                .chain(NICS)
                .all(|slot| HOTPLUG_SLOTS.contains(&slot))
        );
        let mut slots = Slots::default();
        let [first, _, third] = [(); 3].map(|()| slots.take_of(HOT_DISKS).unwrap());
        slots.give_back(first);
        assert_eq!(slots.take_of(std::iter::once(third.device())), None);
        assert_eq!(slots.take_of([0, 31].into_iter()), None, "not for devices");
        assert_eq!(slots.take_of(HOT_DISKS), Some(first));
        let left = std::iter::from_fn(|| slots.take_of(HOT_DISKS));
        assert_eq!(left.count(), HOT_DISKS.count() - 3);
    }

    #[test]
    fn every_mix_of_disks_and_interfaces_fits() {
        for nics in 0..=24 {
            let mut slots = Slots::default();
            let mut seen = std::collections::BTreeSet::new();
            let fixed = [BALLOON, RNG, CONSOLE, VSOCK, WATCHDOG].into_iter();
            let all = fixed
                .chain((0..nics).map(|_| NICS))
                .chain((nics..24).map(|_| DISKS))
                .chain([TABLET]);
            for range in all {
                assert!(seen.insert(slots.take(range).unwrap()));
            }
        }
    }
}
