//! Statistics registers (82574 datasheet, 10.2.7). Reading one clears it, and none wraps.

use serde::{Deserialize, Serialize};

use super::registers::at;

/// Registers there are, most of which always read as zero here.
const COUNT: usize = 0x128 / 4;

/// Which register, counted from the first.
pub(super) mod counter {
    const fn index(offset: usize) -> usize {
        (offset - 0x4000) / 4
    }

    /// Packets received, the first of six by length; likewise sent.
    pub const RECEIVED_BY_LENGTH: usize = index(0x405c);
    pub const SENT_BY_LENGTH: usize = index(0x40d8);
    pub const GOOD_RECEIVED: usize = index(0x4074);
    pub const BROADCASTS_RECEIVED: usize = index(0x4078);
    pub const MULTICASTS_RECEIVED: usize = index(0x407c);
    pub const GOOD_SENT: usize = index(0x4080);
    /// Low half of two registers, the second of which clears both.
    pub const GOOD_OCTETS_RECEIVED: usize = index(0x4088);
    pub const GOOD_OCTETS_SENT: usize = index(0x4090);
    pub const OVERSIZED: usize = index(0x40ac);
    pub const OCTETS_RECEIVED: usize = index(0x40c0);
    pub const OCTETS_SENT: usize = index(0x40c8);
    pub const PACKETS_RECEIVED: usize = index(0x40d0);
    pub const PACKETS_SENT: usize = index(0x40d4);
    pub const MULTICASTS_SENT: usize = index(0x40f0);
    pub const BROADCASTS_SENT: usize = index(0x40f4);
    pub const SEGMENTED: usize = index(0x40f8);
    pub const NOT_SEGMENTED: usize = index(0x40fc);

    pub const WIDE: [usize; 4] = [
        GOOD_OCTETS_RECEIVED,
        GOOD_OCTETS_SENT,
        OCTETS_RECEIVED,
        OCTETS_SENT,
    ];
}

/// Where a packet goes, by its destination address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Unicast,
    Multicast,
    Broadcast,
}

impl Destination {
    /// That of a frame, which has at least an address.
    pub fn of(frame: &[u8]) -> Self {
        match frame.get(..6) {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => Self::Broadcast,
            Some([first, ..]) if first & 1 != 0 => Self::Multicast,
            _ => Self::Unicast,
        }
    }
}

/// The registers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Counters(Vec<u32>);

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self(vec![0; COUNT])
    }

    /// Whether these are as many as there are.
    pub fn complete(&self) -> bool {
        self.0.len() == COUNT
    }

    /// Whether `offset` is one of them.
    pub fn contain(offset: u64) -> bool {
        (at::STATISTICS..at::STATISTICS + 4 * COUNT as u64).contains(&offset)
    }

    /// Counts one.
    pub fn count(&mut self, counter: usize) {
        self.0[counter] = self.0[counter].saturating_add(1);
    }

    fn add_wide(&mut self, counter: usize, amount: u64) {
        let before = u64::from(self.0[counter]) | u64::from(self.0[counter + 1]) << 32;
        let now = before.saturating_add(amount);
        self.0[counter] = now as u32;
        self.0[counter + 1] = (now >> 32) as u32;
    }

    fn by_length(&mut self, first: usize, bytes: u64) {
        let limits = [64, 127, 255, 511, 1023];
        let class = limits.iter().filter(|&&limit| bytes > limit).count();
        self.count(first + class);
    }

    /// A packet of so many bytes, checksum included, was given to the driver.
    pub fn received(&mut self, destination: Destination, bytes: u64) {
        self.count(counter::GOOD_RECEIVED);
        self.count(counter::PACKETS_RECEIVED);
        match destination {
            Destination::Unicast => {}
            Destination::Multicast => self.count(counter::MULTICASTS_RECEIVED),
            Destination::Broadcast => self.count(counter::BROADCASTS_RECEIVED),
        }
        self.by_length(counter::RECEIVED_BY_LENGTH, bytes);
        self.add_wide(counter::GOOD_OCTETS_RECEIVED, bytes);
        self.add_wide(counter::OCTETS_RECEIVED, bytes);
    }

    /// A packet of so many bytes, checksum included, was sent.
    pub fn sent(&mut self, destination: Destination, bytes: u64) {
        self.count(counter::GOOD_SENT);
        self.count(counter::PACKETS_SENT);
        match destination {
            Destination::Unicast => {}
            Destination::Multicast => self.count(counter::MULTICASTS_SENT),
            Destination::Broadcast => self.count(counter::BROADCASTS_SENT),
        }
        self.by_length(counter::SENT_BY_LENGTH, bytes);
        self.add_wide(counter::GOOD_OCTETS_SENT, bytes);
        self.add_wide(counter::OCTETS_SENT, bytes);
    }

    /// Reads, and clears, the register at `offset`, which [`Counters::contain`] knows.
    pub fn read(&mut self, offset: u64) -> u32 {
        let index = ((offset - at::STATISTICS) / 4) as usize;
        if counter::WIDE.contains(&index) {
            return self.0[index];
        }
        let value = std::mem::take(&mut self.0[index]);
        if index > 0 && counter::WIDE.contains(&(index - 1)) {
            self.0[index - 1] = 0;
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_clears() {
        let mut counters = Counters::new();
        counters.received(Destination::Broadcast, 64);
        counters.received(Destination::Unicast, 65);
        counters.received(Destination::Multicast, 9000);
        let read = |counters: &mut Counters, offset| counters.read(offset);
        assert_eq!(read(&mut counters, 0x4074), 3);
        assert_eq!(read(&mut counters, 0x4074), 0);
        assert_eq!(read(&mut counters, 0x4078), 1);
        assert_eq!(read(&mut counters, 0x407c), 1);
        let lengths = [0x405c, 0x4060, 0x4064, 0x4070].map(|at| read(&mut counters, at));
        assert_eq!(lengths, [1, 1, 0, 1]);
        assert_eq!(read(&mut counters, 0x4088), 9129);
        assert_eq!(
            read(&mut counters, 0x4088),
            9129,
            "until its upper half is read"
        );
        assert_eq!(read(&mut counters, 0x408c), 0);
        assert_eq!(read(&mut counters, 0x4088), 0);
    }

    #[test]
    fn nothing_wraps() {
        let mut counters = Counters(vec![u32::MAX; COUNT]);
        counters.sent(Destination::Unicast, 1 << 40);
        assert!(counters.0.iter().all(|counter| *counter == u32::MAX));
    }
}
