//! Transmit descriptors (82574 datasheet, 7.2.10 and 7.2.11): 16 bytes in three forms.

use serde::{Deserialize, Serialize};

/// Command, in byte 11 of all forms.
mod command {
    pub const END: u8 = 1 << 0;
    /// Legacy: insert a checksum. Data: this is a packet to be segmented.
    pub const INSERT_CHECKSUM: u8 = 1 << 2;
    pub const SEGMENT: u8 = 1 << 2;
    pub const REPORT: u8 = 1 << 3;
    pub const EXTENDED: u8 = 1 << 5;
    pub const TAG: u8 = 1 << 6;
    /// Context: which protocols; IPv6 and UDP without.
    pub const TCP: u8 = 1 << 0;
    pub const IPV4: u8 = 1 << 1;
}

/// A descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Descriptor {
    /// How to treat the packets that follow.
    Context(Context),
    /// A piece of a packet.
    Data(Data),
}

/// A range of a packet to sum up, and where to put the sum; offsets from the packet's begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sum {
    pub start: u8,
    pub place: u8,
    /// The last byte; 0 for the packet's.
    pub end: u16,
}

/// A context descriptor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Context {
    /// Of the IP header.
    pub ip: Sum,
    /// Of TCP or UDP.
    pub transport: Sum,
    pub ipv4: bool,
    pub tcp: bool,
    /// Bytes of the headers in front of what is segmented.
    pub headers: u8,
    /// Most bytes of a segment.
    pub segment: u16,
}

/// A legacy or data descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Data {
    pub address: u64,
    /// At most 1 MiB.
    pub length: u32,
    /// The packet's last.
    pub end: bool,
    /// The context applies so, if this is the packet's first.
    pub ip_checksum: bool,
    pub checksum: bool,
    pub segment: bool,
    /// A checksum the legacy way, if this is the packet's last.
    pub legacy: Option<Sum>,
    /// A VLAN tag to put in, if this is the packet's last.
    pub tag: Option<u16>,
}

/// Whether the driver wants to hear that a descriptor is done.
pub(super) fn reports(bytes: &[u8; 16]) -> bool {
    bytes[11] & command::REPORT != 0
}

/// Takes a descriptor apart.
pub(super) fn decode(bytes: &[u8; 16]) -> Descriptor {
    let command = bytes[11];
    let extended = command & command::EXTENDED != 0;
    if extended && bytes[10] >> 4 == 0 {
        return Descriptor::Context(context(bytes));
    }
    let mut address = [0; 8];
    address.copy_from_slice(&bytes[..8]);
    let length = u32::from_le_bytes([bytes[8], bytes[9], bytes[10] & 0xf, 0]);
    let options = if extended { bytes[13] } else { 0 };
    let legacy = !extended && command & command::INSERT_CHECKSUM != 0;
    Descriptor::Data(Data {
        address: u64::from_le_bytes(address),
        length: if extended { length } else { length & 0xffff },
        end: command & command::END != 0,
        ip_checksum: options & 1 != 0,
        checksum: options & 2 != 0,
        segment: extended && command & command::SEGMENT != 0,
        legacy: legacy.then_some(Sum {
            start: bytes[13],
            place: bytes[10],
            end: 0,
        }),
        tag: (command & command::TAG != 0).then_some(u16::from_le_bytes([bytes[14], bytes[15]])),
    })
}

fn context(bytes: &[u8; 16]) -> Context {
    let sum = |at: usize| Sum {
        start: bytes[at],
        place: bytes[at + 1],
        end: u16::from_le_bytes([bytes[at + 2], bytes[at + 3]]),
    };
    Context {
        ip: sum(0),
        transport: sum(4),
        ipv4: bytes[11] & command::IPV4 != 0,
        tcp: bytes[11] & command::TCP != 0,
        headers: bytes[13],
        segment: u16::from_le_bytes([bytes[14], bytes[15]]),
    }
}
