//! Which packets a driver wants (82574 datasheet, 7.1.1).

use super::counters::Destination;
use super::registers::{Registers, at};

/// RCTL.
mod rctl {
    pub const ANY_UNICAST: u32 = 1 << 3;
    pub const ANY_MULTICAST: u32 = 1 << 4;
    pub const LONG: u32 = 1 << 5;
    pub const BROADCAST: u32 = 1 << 15;
    pub const VLAN_FILTER: u32 = 1 << 18;
    /// Which bits of a multicast address are looked up.
    pub const MULTICAST_OFFSET: u32 = 12;
}

/// RAH: the entry counts.
const ADDRESS_VALID: u32 = 1 << 31;
/// Entries of the table of addresses.
const ADDRESSES: u64 = 16;

/// Longest frame without [`rctl::LONG`], checksum included.
const LONGEST: usize = 1522;

/// Bytes of the checksum at the end of each frame.
pub(super) const FCS_BYTES: usize = 4;

/// Whether the frame is longer than the driver wants any.
pub(super) fn too_long(registers: &Registers, frame: &[u8]) -> bool {
    frame.len() + FCS_BYTES > LONGEST && !registers.has(at::RCTL, rctl::LONG)
}

/// The VLAN tag of a frame that has one.
pub(super) fn tag(registers: &Registers, frame: &[u8]) -> Option<u16> {
    let pair = |offset| {
        let bytes = frame.get(offset..offset + 2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let kind = pair(12)?;
    (u32::from(kind) == registers.get(at::VET)).then(|| pair(14))?
}

/// Whether the driver wants a frame, which has at least an Ethernet header.
pub(super) fn wanted(registers: &Registers, frame: &[u8]) -> bool {
    by_address(registers, frame) && by_vlan(registers, frame)
}

fn by_address(registers: &Registers, frame: &[u8]) -> bool {
    let Some(&[a, b, c, d, e, f]) = frame.first_chunk::<6>() else {
        return false;
    };
    let wanted = match Destination::of(frame) {
        Destination::Broadcast => registers.has(at::RCTL, rctl::BROADCAST),
        Destination::Multicast => {
            registers.has(at::RCTL, rctl::ANY_MULTICAST) || hashed(registers, [e, f])
        }
        Destination::Unicast => registers.has(at::RCTL, rctl::ANY_UNICAST),
    };
    let low = u32::from_le_bytes([a, b, c, d]);
    let high = u32::from(u16::from_le_bytes([e, f])) | ADDRESS_VALID;
    wanted
        || (0..ADDRESSES).any(|entry| {
            let place = 8 * entry;
            registers.get(at::RAL0 + place) == low
                && registers.get(at::RAH0 + place) & (ADDRESS_VALID | 0xffff) == high
        })
}

/// Whether the table of multicast addresses has the one that ends so.
fn hashed(registers: &Registers, end: [u8; 2]) -> bool {
    let offset = registers.get(at::RCTL) >> rctl::MULTICAST_OFFSET & 3;
    let shift = [4, 3, 2, 0][offset as usize];
    let hash = u64::from(u16::from_le_bytes(end) >> shift & 0xfff);
    registers.get(at::MTA + 4 * (hash >> 5)) >> (hash & 31) & 1 != 0
}

fn by_vlan(registers: &Registers, frame: &[u8]) -> bool {
    if !registers.has(at::RCTL, rctl::VLAN_FILTER) {
        return true;
    }
    let Some(tag) = tag(registers, frame) else {
        return true;
    };
    let id = u64::from(tag & 0xfff);
    registers.get(at::VFTA + 4 * (id >> 5)) >> (id & 31) & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(address: [u8; 6]) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[..6].copy_from_slice(&address);
        frame
    }

    #[test]
    fn nothing_is_wanted_at_first() {
        let registers = Registers::new();
        for address in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [2, 0, 0, 0, 0, 1], [0; 6]] {
            assert!(!wanted(&registers, &frame(address)));
        }
        assert!(!wanted(&registers, &[0xff; 5]));
    }

    #[test]
    fn addresses() {
        let mut registers = Registers::new();
        registers.write(at::RAL0 + 8 * 15, 0x1200_5452);
        registers.write(at::RAH0 + 8 * 15, 0x5634);
        let own = frame([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert!(!wanted(&registers, &own), "the entry is not valid");
        registers.write(at::RAH0 + 8 * 15, 0x8000_5634);
        assert!(wanted(&registers, &own));
        let other = frame([0x52, 0x54, 0, 0x12, 0x34, 0x57]);
        assert!(!wanted(&registers, &other));
        registers.write(at::RCTL, rctl::ANY_UNICAST);
        assert!(wanted(&registers, &other));
        assert!(!wanted(&registers, &frame([0xff; 6])));
        registers.write(at::RCTL, rctl::BROADCAST);
        assert!(wanted(&registers, &frame([0xff; 6])));
    }

    #[test]
    fn multicasts() {
        let mut registers = Registers::new();
        let group = frame([1, 0, 0x5e, 0, 0x12, 0x34]);
        for (offset, hash) in [(0, 0x341), (1, 0x682), (2, 0xd04), (3, 0x412)] {
            registers = Registers::new();
            registers.write(at::RCTL, offset << rctl::MULTICAST_OFFSET);
            assert!(!wanted(&registers, &group));
            registers.write(at::MTA + 4 * (hash >> 5), 1 << (hash & 31));
            assert!(wanted(&registers, &group), "{offset}");
        }
        assert!(!wanted(&registers, &frame([1, 0, 0x5e, 0, 0, 1])));
        registers.write(at::RCTL, rctl::ANY_MULTICAST);
        assert!(wanted(&registers, &frame([1, 0, 0x5e, 0, 0, 1])));
    }

    #[test]
    fn tags() {
        let mut registers = Registers::new();
        registers.write(at::RCTL, rctl::ANY_UNICAST | rctl::VLAN_FILTER);
        let mut tagged = frame([2, 0, 0, 0, 0, 1]);
        assert!(wanted(&registers, &tagged));
        tagged[12..16].copy_from_slice(&[0x81, 0, 0x60, 0x21]);
        assert_eq!(tag(&registers, &tagged), Some(0x6021));
        assert!(!wanted(&registers, &tagged));
        registers.write(at::VFTA + 4, 1 << 1);
        assert!(wanted(&registers, &tagged));
        assert_eq!(tag(&registers, &tagged[..15]), None);
    }

    #[test]
    fn lengths() {
        let mut registers = Registers::new();
        assert!(!too_long(&registers, &[0; 1518]));
        assert!(too_long(&registers, &[0; 1519]));
        registers.write(at::RCTL, rctl::LONG);
        assert!(!too_long(&registers, &[0; 9000]));
    }
}
