//! Ethernet frames of the DHCP client: UDP over IPv4, and ARP (RFC 826).
//!
//! The client speaks below the kernel's IPv4: before there is an address there is nothing else to speak with.

use std::net::Ipv4Addr;

use super::message::array;
use crate::seed::MacAddress;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const PROTOCOL_UDP: u8 = 17;
const ETHERNET_LEN: usize = 14;
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const BROADCAST: [u8; 6] = [0xff; 6];

/// Where a datagram comes from and goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoints {
    /// Our Ethernet address.
    pub(super) source_mac: MacAddress,
    /// The next machine's Ethernet address; `None` for everybody.
    pub(super) target_mac: Option<MacAddress>,
    pub(super) source: Ipv4Addr,
    pub(super) target: Ipv4Addr,
}

/// A frame with a datagram from the client's port to the server's.
pub(super) fn datagram(ends: Endpoints, payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut ip = [0_u8; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&udp_len.saturating_add(20).to_be_bytes());
    ip[6] = 0x40; // Don't fragment.
    ip[8] = 64;
    ip[9] = PROTOCOL_UDP;
    ip[12..16].copy_from_slice(&ends.source.octets());
    ip[16..20].copy_from_slice(&ends.target.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut udp = [0_u8; 8];
    udp[0..2].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    udp[2..4].copy_from_slice(&SERVER_PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    let mut pseudo = [0_u8; 12];
    pseudo[..8].copy_from_slice(&ip[12..20]);
    pseudo[9] = PROTOCOL_UDP;
    pseudo[10..12].copy_from_slice(&udp_len.to_be_bytes());
    // A sum of zero is sent as all ones: zero says that there is none (RFC 768).
    let sum = match checksum(&[&pseudo, &udp, payload]) {
        0 => u16::MAX,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());

    let target_mac = ends.target_mac.map_or(BROADCAST, |mac| mac.0);
    [
        &target_mac[..],
        &ends.source_mac.0,
        &ETHERTYPE_IPV4,
        &ip,
        &udp,
        payload,
    ]
    .concat()
}

/// The payload of a frame that holds a whole datagram from a server to a client, and the sender's Ethernet address.
///
/// Checksums are not looked at: a virtual link leaves them to hardware that is not there, and what the
/// payload says is checked anyway.
pub(super) fn read_datagram(frame: &[u8]) -> Option<(MacAddress, &[u8])> {
    let from = MacAddress(array(frame, 6)?);
    if array(frame, 12)? != ETHERTYPE_IPV4 {
        return None;
    }
    let ip = frame.get(ETHERNET_LEN..)?;
    let header_len = usize::from(ip.first()? & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes(array(ip, 2)?));
    let fragment = u16::from_be_bytes(array(ip, 6)?) & 0x3fff;
    if ip[0] >> 4 != 4 || header_len < 20 || fragment != 0 || *ip.get(9)? != PROTOCOL_UDP {
        return None;
    }
    let udp = ip.get(header_len..total_len)?;
    let length = usize::from(u16::from_be_bytes(array(udp, 4)?));
    let ports = (
        u16::from_be_bytes(array(udp, 0)?),
        u16::from_be_bytes(array(udp, 2)?),
    );
    if ports != (SERVER_PORT, CLIENT_PORT) {
        return None;
    }
    Some((from, udp.get(8..length)?))
}

/// A frame that asks who has an address, from nobody (an ARP probe, RFC 5227).
pub(super) fn arp_probe(source_mac: MacAddress, address: Ipv4Addr) -> Vec<u8> {
    arp_request(source_mac, Ipv4Addr::UNSPECIFIED, address)
}

/// A frame that tells everybody who has an address (an ARP announcement, RFC 5227).
pub(super) fn arp_announcement(source_mac: MacAddress, address: Ipv4Addr) -> Vec<u8> {
    arp_request(source_mac, address, address)
}

fn arp_request(source_mac: MacAddress, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    let frame = [
        &BROADCAST[..],
        &source_mac.0,
        &ETHERTYPE_ARP,
        &head,
        &source_mac.0,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
        &[0; 18], // Up to Ethernet's shortest frame.
    ];
    frame.concat()
}

/// The IPv4 address that a frame claims, with the claimant's Ethernet address: the sender of any ARP message.
/// A probe for the same address by another machine claims it too.
pub(super) fn read_arp(frame: &[u8]) -> Option<(Ipv4Addr, MacAddress)> {
    let arp = frame.get(ETHERNET_LEN..)?;
    if array(frame, 12)? != ETHERTYPE_ARP || array(arp, 0)? != [0_u8, 1, 8, 0, 6, 4] {
        return None;
    }
    let sender_mac = MacAddress(array(arp, 8)?);
    let sender = Ipv4Addr::from(array::<4>(arp, 14)?);
    let address = if sender.is_unspecified() {
        array::<4>(arp, 24)?.into()
    } else {
        sender
    };
    Some((address, sender_mac))
}

/// The Internet checksum (RFC 1071) over parts of even length, but for the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        sum += u32::from(word);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    /// A server's answer: a client's frame with the ports swapped.
    fn answer(payload: &[u8]) -> Vec<u8> {
        let ends = Endpoints {
            source_mac: OTHER,
            target_mac: Some(OWN),
            source: SERVER,
            target: ADDRESS,
        };
        let mut frame = datagram(ends, payload);
        frame[34..38].copy_from_slice(&[0, 67, 0, 68]);
        frame
    }

    #[test]
    fn datagrams_are_well_formed() {
        let ends = Endpoints {
            source_mac: OWN,
            target_mac: None,
            source: Ipv4Addr::UNSPECIFIED,
            target: Ipv4Addr::BROADCAST,
        };
        let frame = datagram(ends, b"odd");
        assert_eq!(frame.len(), 14 + 20 + 8 + 3);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(checksum(&[&frame[14..34]]), 0, "IPv4 checksum");
        let mut pseudo = frame[26..34].to_vec();
        pseudo.extend([0, PROTOCOL_UDP, 0, 11]);
        assert_eq!(checksum(&[&pseudo, &frame[34..]]), 0, "UDP checksum");
        assert_eq!(read_datagram(&frame), None, "our own request is no answer");
    }

    #[test]
    fn answers_are_read_without_padding() {
        let mut frame = answer(b"payload");
        frame.extend([0; 20]);
        assert_eq!(read_datagram(&frame), Some((OTHER, &b"payload"[..])));
    }

    #[test]
    fn lying_lengths_are_refused() {
        let good = answer(b"payload");
        for (at, value) in [
            (14, 0x46),
            (14, 0x44),
            (14, 0x65),
            (17, 255),
            (17, 10),
            (20, 0x20),
            (21, 1),
            (23, 6),
            (39, 4),
            (39, 200),
        ] {
            let mut frame = good.clone();
            frame[at] = value;
            assert_eq!(read_datagram(&frame), None, "byte {at} = {value}");
        }
    }

    #[test]
    fn claims_are_read() {
        assert_eq!(
            read_arp(&arp_announcement(OTHER, ADDRESS)),
            Some((ADDRESS, OTHER))
        );
        assert_eq!(read_arp(&arp_probe(OTHER, ADDRESS)), Some((ADDRESS, OTHER)));
        assert_eq!(arp_probe(OWN, ADDRESS).len(), 60);
        assert_eq!(read_arp(&answer(b"x")), None);
    }

    proptest! {
        #[test]
        fn any_frame_is_survived(mut frame in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..3_u8) {
            if frame.len() > 24 {
                match kind {
                    0 => frame[12..14].copy_from_slice(&ETHERTYPE_ARP),
                    1 => frame[12..15].copy_from_slice(&[8, 0, 0x45]),
                    _ => {}
                }
                frame[23] = PROTOCOL_UDP;
            }
            let _ = (read_datagram(&frame), read_arp(&frame));
        }
    }
}
