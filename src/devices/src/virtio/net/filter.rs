//! Which packets the driver wants (virtio 1.2, 5.1.6.5.1 and 5.1.6.5.2).
//!
//! The tap's own filter spares everybody the packets that it is sure of; the rest is dropped here where a thread moves the
//! packets.

use std::sync::{RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};

use crate::tap::{ADDRESSES_OF_FILTER, EXACT_ADDRESSES_OF_FILTER, TapFilter};

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];

/// Most addresses that are kept of one table. Of a longer one all addresses of its kind are let through.
pub(super) const MAX_ADDRESSES: usize = 64;

/// Addresses of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    /// Those that are let through, at most [`MAX_ADDRESSES`].
    pub addresses: Vec<Mac>,
    /// The driver gave more, and all are.
    pub overflows: bool,
}

impl Table {
    /// A table of a driver, whose addresses are all of this kind; `None` if one is not.
    pub fn of(addresses: Vec<Mac>, multicast: bool) -> Option<Self> {
        let table = Self {
            addresses,
            overflows: false,
        };
        table.is_of(multicast).then_some(table)
    }

    /// The table of a driver that gave more than are kept.
    pub fn overflowing() -> Self {
        Self {
            addresses: Vec::new(),
            overflows: true,
        }
    }

    fn is_of(&self, multicast: bool) -> bool {
        self.addresses.len() <= MAX_ADDRESSES
            && self
                .addresses
                .iter()
                .all(|address| is_multicast(address) == multicast)
    }

    fn has(&self, address: &Mac) -> bool {
        self.overflows || self.addresses.contains(address)
    }
}

/// What the driver wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rules {
    /// Everything: so it is until the driver wants less.
    pub promiscuous: bool,
    /// Everything that is for several.
    pub all_multicast: bool,
    /// The interface's own address.
    pub mac: Mac,
    /// Further addresses of its own.
    pub unicast: Table,
    /// Addresses of groups.
    pub multicast: Table,
}

impl Rules {
    /// Those of a driver that has said nothing, of an interface with this address.
    pub fn new(mac: Mac) -> Self {
        Self {
            promiscuous: true,
            all_multicast: false,
            mac,
            unicast: Table::default(),
            multicast: Table::default(),
        }
    }

    /// Whether a driver could have set them.
    pub fn possible(&self) -> bool {
        is_individual(&self.mac) && self.unicast.is_of(false) && self.multicast.is_of(true)
    }

    /// Whether a frame is wanted. One that is too short to have a destination is not.
    pub fn want(&self, frame: &[u8]) -> bool {
        let Some(destination) = frame.first_chunk::<6>() else {
            return false;
        };
        if self.promiscuous || *destination == BROADCAST {
            true
        } else if is_multicast(destination) {
            self.all_multicast || self.multicast.has(destination)
        } else {
            *destination == self.mac || self.unicast.has(destination)
        }
    }

    /// The same for the tap, which may let more through, and never less.
    pub fn for_tap(&self) -> TapFilter {
        let own = 1 + self.unicast.addresses.len();
        if self.promiscuous || self.unicast.overflows || own > EXACT_ADDRESSES_OF_FILTER {
            return TapFilter::default();
        }
        // What is for one first: that the kernel only knows exactly. Groups may be among the exact ones as well.
        let mut addresses = vec![self.mac];
        addresses.extend(&self.unicast.addresses);
        addresses.push(BROADCAST);
        addresses.extend(&self.multicast.addresses);
        TapFilter {
            all_multicast: self.all_multicast || self.multicast.overflows,
            addresses,
        }
    }
}

// The longest list there can be has room in the tap's filter.
const _: () = assert!(EXACT_ADDRESSES_OF_FILTER + 1 + MAX_ADDRESSES <= ADDRESSES_OF_FILTER);

/// Whether an address is a group's.
fn is_multicast(address: &Mac) -> bool {
    address[0] & 1 != 0
}

/// Whether an address can be an interface's.
pub(super) fn is_individual(address: &Mac) -> bool {
    !is_multicast(address) && *address != [0; 6]
}

/// The rules, for whoever moves packets and whoever changes them.
pub(super) struct Filter {
    rules: RwLock<Rules>,
}

impl Filter {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules: RwLock::new(rules),
        }
    }

    /// The rules, which do not change while the result is held.
    pub fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap()
    }

    /// Other rules: for all packets that are looked at after the return of this call.
    pub fn set(&self, rules: Rules) {
        *self.rules.write().unwrap() = rules;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [0x52, 0x54, 0, 1, 2, 3];
    const OTHER: Mac = [0x52, 0x54, 0, 9, 9, 9];
    const GROUP: Mac = [1, 0, 0x5e, 0, 0, 1];

    /// Which of broadcast, its own, another's and a group's frames it wants.
    fn wanted(rules: &Rules) -> [bool; 4] {
        [BROADCAST, OWN, OTHER, GROUP].map(|destination| rules.want(&destination))
    }

    fn table(addresses: &[Mac]) -> Table {
        Table {
            addresses: addresses.to_vec(),
            overflows: false,
        }
    }

    #[test]
    fn wants_what_the_driver_said() {
        let all = Rules::new(OWN);
        assert_eq!(wanted(&all), [true; 4]);
        assert_eq!(all.for_tap(), TapFilter::default());
        let mut rules = Rules {
            promiscuous: false,
            ..all
        };
        assert_eq!(wanted(&rules), [true, true, false, false]);
        assert_eq!(rules.for_tap().addresses, [OWN, BROADCAST]);
        rules.all_multicast = true;
        assert_eq!(wanted(&rules), [true, true, false, true]);
        assert!(rules.for_tap().all_multicast);
        rules.all_multicast = false;
        rules.multicast = table(&[GROUP]);
        assert_eq!(wanted(&rules), [true, true, false, true]);
        rules.unicast = table(&[OTHER]);
        assert_eq!(wanted(&rules), [true; 4]);
        assert_eq!(rules.for_tap().addresses, [OWN, OTHER, BROADCAST, GROUP]);
        rules.multicast = Table::default();
        rules.mac = OTHER;
        rules.unicast = Table::default();
        assert_eq!(wanted(&rules), [true, false, true, false]);
        assert!(!rules.want(&BROADCAST[..5]), "no frame at all");
    }

    #[test]
    fn a_table_too_long_lets_all_through() {
        let mut rules = Rules {
            promiscuous: false,
            ..Rules::new(OWN)
        };
        rules.multicast.overflows = true;
        assert_eq!(wanted(&rules), [true, true, false, true]);
        assert!(rules.for_tap().all_multicast);
        rules.unicast.overflows = true;
        assert_eq!(wanted(&rules), [true; 4]);
        assert_eq!(rules.for_tap(), TapFilter::default());
    }

    #[test]
    fn the_tap_is_told_of_what_it_can_know() {
        let mut rules = Rules {
            promiscuous: false,
            ..Rules::new(OWN)
        };
        rules.multicast = table(&[GROUP; MAX_ADDRESSES]);
        rules.unicast = table(&[OTHER; EXACT_ADDRESSES_OF_FILTER - 1]);
        let addresses = rules.for_tap().addresses;
        assert_eq!(
            addresses.len(),
            EXACT_ADDRESSES_OF_FILTER + 1 + MAX_ADDRESSES
        );
        rules.unicast = table(&[OTHER; EXACT_ADDRESSES_OF_FILTER]);
        assert_eq!(rules.for_tap(), TapFilter::default());
    }
}
