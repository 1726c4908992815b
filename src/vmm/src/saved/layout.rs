//! Where a machine's disks and network interfaces are, which is no longer what their order says once some have come and gone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The places of all disks and network interfaces, each in the order of the guest's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Disks.
    pub disks: Vec<Place>,
    /// Network interfaces.
    pub nics: Vec<Place>,
}

/// The place of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its device is called by it: `disk3`.
    pub number: u8,
    /// PCI device number; absent for disks on SATA, which are where their order says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u8>,
    /// Queues of a disk; absent where the number of vCPUs says it. Pairs of queues of a virtio network interface, which has a
    /// control queue as well; absent where it has one pair and none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
}

impl Layout {
    /// The places of so many disks and network interfaces; what the order says, where it is a layout of others.
    pub fn places(self, disks: usize, nics: usize) -> [Vec<Option<Place>>; 2] {
        [(self.disks, disks), (self.nics, nics)].map(|(places, count)| {
            let numbers: BTreeSet<u8> = places.iter().map(|place| place.number).collect();
            if places.len() == count && numbers.len() == count {
                places.into_iter().map(Some).collect()
            } else {
                vec![None; count]
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_of_others_is_none() {
        let place = |number| Place {
            number,
            slot: Some(9),
            queues: None,
        };
        let layout = |disks: &[u8]| Layout {
            disks: disks.iter().map(|&number| place(number)).collect(),
            nics: Vec::new(),
        };
        let [disks, nics] = layout(&[4, 0]).places(2, 1);
        assert_eq!(disks, [Some(place(4)), Some(place(0))]);
        assert_eq!(nics, [None]);
        for other in [&[4, 4][..], &[4], &[1, 2, 3], &[]] {
            assert_eq!(layout(other).places(2, 0)[0], [None, None]);
        }
    }
}
