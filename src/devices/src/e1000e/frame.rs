//! A packet from the tap on its way to the driver.

use std::ops::Range;

use super::filter::FCS_BYTES;
use crate::tap::{HEADER_BYTES, MAX_PACKET, Tap};

/// Bytes of an Ethernet header, the least that is a packet.
pub(super) const ETHERNET_HEADER: usize = 14;

/// Bytes of the two addresses in front of a VLAN tag.
pub(super) const ADDRESSES: usize = 12;

/// Bytes of a VLAN tag.
pub(super) const TAG: usize = 4;

/// Shortest frame on a wire, without its checksum. Drivers take shorter ones for damaged.
const SHORTEST: usize = 60;

/// A buffer for one packet.
pub(super) struct Frame {
    buffer: Box<[u8]>,
    range: Range<usize>,
}

impl Frame {
    /// No packet.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; MAX_PACKET + FCS_BYTES].into_boxed_slice(),
            range: 0..0,
        }
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Takes the next packet; tells whether there was one.
    pub fn take(&mut self, tap: &Tap) -> bool {
        match tap.receive(&mut self.buffer[..MAX_PACKET]) {
            Ok(Some(length)) if length >= HEADER_BYTES + ETHERNET_HEADER => {
                let end = length.max(HEADER_BYTES + SHORTEST);
                self.buffer[length..end].fill(0);
                self.range = HEADER_BYTES..end;
                true
            }
            Ok(_) => false,
            Err(error) => {
                // The interface is down or gone: the same as a pulled cable.
                tracing::debug!(%error, "reading from the tap");
                false
            }
        }
    }

    /// The packet, from its destination address on.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }

    /// Forgets the packet.
    pub fn clear(&mut self) {
        self.range = 0..0;
    }

    /// Takes the VLAN tag out of a frame that has one.
    pub fn strip_tag(&mut self) {
        let start = self.range.start;
        self.buffer
            .copy_within(start..start + ADDRESSES, start + TAG);
        self.range.start += TAG;
    }

    /// Appends the frame check sequence (IEEE 802.3, 3.2.9).
    pub fn append_checksum(&mut self) {
        let sum = checksum(self.bytes()).to_le_bytes();
        let end = self.range.end;
        self.buffer[end..end + FCS_BYTES].copy_from_slice(&sum);
        self.range.end += FCS_BYTES;
    }
}

/// CRC-32 of IEEE 802.3, bit by bit: drivers that want it are none of the fast ones.
fn checksum(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let step = |crc: u32| crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
    let sum = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc))
    });
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_ethernet() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }
}
