//! What the driver leaves to the card: checksums and segmentation (82574 datasheet, 7.2.9 to
//! 7.2.12). The host's kernel does most of it, or leaves it to who is next; the header in front
//! of each packet (`struct virtio_net_hdr_v1`) says what is still to be done.

use virtio_bindings::virtio_net as abi;

use super::descriptor::{Context, Data, Sum};
use crate::tap::HEADER_BYTES;

/// TCP's header without options, and where in it the flag CWR is.
const TCP_HEADER: usize = 20;
const TCP_FLAGS: usize = 13;
const CWR: u8 = 1 << 7;

/// IP's headers without options or extensions.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// What is to be done with a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Plan {
    context: Context,
    ip_checksum: bool,
    checksum: bool,
    pub segment: bool,
}

impl Plan {
    /// That of a packet with this descriptor first.
    pub fn new(context: Context, first: &Data) -> Self {
        Self {
            context,
            ip_checksum: first.ip_checksum,
            checksum: first.checksum,
            segment: first.segment,
        }
    }
}

/// What the host is told of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    flags: u8,
    kind: u8,
    headers: u16,
    segment: u16,
    start: u16,
    offset: u16,
}

impl Header {
    fn checksum(sum: Sum) -> Self {
        Self {
            flags: abi::VIRTIO_NET_HDR_F_NEEDS_CSUM as u8,
            start: sum.start.into(),
            offset: (sum.place - sum.start).into(),
            ..Self::default()
        }
    }

    /// The packet got `bytes` more in front of its headers.
    pub fn shift(&mut self, bytes: u16) {
        if self.flags != 0 {
            self.start += bytes;
        }
        if self.kind != 0 {
            self.headers += bytes;
        }
    }

    /// As the tap takes it.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.flags;
        bytes[1] = self.kind;
        let words = [self.headers, self.segment, self.start, self.offset];
        for (at, word) in (2..).step_by(2).zip(words) {
            bytes[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// Does what the host cannot, and tells what is left to it. `None` when the descriptors ask for
/// what cannot be.
pub(super) fn prepare(frame: &mut [u8], plan: &Plan, legacy: Option<Sum>) -> Option<Header> {
    if plan.segment {
        return segment(frame, &plan.context);
    }
    if plan.ip_checksum {
        insert(frame, plan.context.ip)?;
    }
    let sum = match legacy {
        Some(sum) => sum,
        None if plan.checksum => plan.context.transport,
        None => return Some(Header::default()),
    };
    if sum.end == 0 && sum.place >= sum.start && usize::from(sum.place) + 2 <= frame.len() {
        return Some(Header::checksum(sum));
    }
    insert(frame, sum)?;
    Some(Header::default())
}

/// Puts a checksum in.
fn insert(frame: &mut [u8], sum: Sum) -> Option<()> {
    let end = match sum.end {
        0 => frame.len(),
        last => usize::from(last) + 1,
    };
    let value = !add(frame.get(sum.start.into()..end)?);
    put(frame, sum.place.into(), value)
}

/// The sum of all 16-bit words in ones' complement (RFC 1071).
fn add(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(high) << 8,
        _ => 0,
    });
    fold(words.sum())
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn put(frame: &mut [u8], place: usize, value: u16) -> Option<()> {
    frame
        .get_mut(place..place + 2)?
        .copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// Makes a packet of many segments one that the host can cut: drivers leave lengths, and IP's
/// checksum, to whoever cuts.
fn segment(frame: &mut [u8], context: &Context) -> Option<Header> {
    let Context { ip, transport, .. } = *context;
    let (headers, start) = (usize::from(context.headers), usize::from(transport.start));
    let begin = usize::from(ip.start);
    let least = if context.ipv4 {
        IPV4_HEADER
    } else {
        IPV6_HEADER
    };
    let place = usize::from(transport.place);
    let sound = context.tcp
        && context.segment > 0
        && headers < frame.len()
        && start + TCP_HEADER <= headers
        && begin + least <= start
        && (start..start + TCP_HEADER - 1).contains(&place);
    if !sound {
        return None;
    }
    if context.ipv4 {
        let length = u16::try_from(frame.len() - begin).ok()?;
        put(frame, begin + 2, length)?;
        put(frame, begin + 10, 0)?;
        let sum = !add(&frame[begin..start]);
        put(frame, begin + 10, sum)?;
    } else {
        let length = u16::try_from(frame.len() - begin - IPV6_HEADER).ok()?;
        put(frame, begin + 4, length)?;
    }
    // The driver has put in the sum of a pseudo header without a length.
    let pseudo = u64::from(u16::from_be_bytes([frame[place], frame[place + 1]]));
    let length = (frame.len() - start) as u64;
    put(frame, place, fold(pseudo + length))?;
    let mut kind = match context.ipv4 {
        true => abi::VIRTIO_NET_HDR_GSO_TCPV4,
        false => abi::VIRTIO_NET_HDR_GSO_TCPV6,
    };
    if frame[start + TCP_FLAGS] & CWR != 0 {
        kind |= abi::VIRTIO_NET_HDR_GSO_ECN;
    }
    Some(Header {
        kind: kind as u8,
        headers: context.headers.into(),
        segment: context.segment,
        ..Header::checksum(transport)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: usize = 14;

    /// An Ethernet and an IPv4 header, a TCP header as drivers leave it, and a payload.
    fn packet(payload: usize) -> Vec<u8> {
        let mut frame = vec![0; 54 + payload];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[IP] = 0x45;
        frame[IP + 8..IP + 10].copy_from_slice(&[64, 6]);
        frame[IP + 12..IP + 20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame[34 + 12] = 0x50;
        let pseudo = fold(0x0a00 + 1 + 0x0a00 + 2 + 6);
        put(&mut frame, 34 + 16, pseudo).unwrap();
        frame
    }

    fn context() -> Context {
        Context {
            ip: Sum {
                start: 14,
                place: 24,
                end: 33,
            },
            transport: Sum {
                start: 34,
                place: 50,
                end: 0,
            },
            ipv4: true,
            tcp: true,
            headers: 54,
            segment: 1448,
        }
    }

    fn segmented(context: Context) -> Plan {
        Plan {
            context,
            segment: true,
            ..Plan::default()
        }
    }

    #[test]
    fn checksums_are_left_to_the_host() {
        let mut frame = packet(100);
        let plan = Plan {
            context: context(),
            checksum: true,
            ip_checksum: true,
            segment: false,
        };
        let before = frame.clone();
        let header = prepare(&mut frame, &plan, None).unwrap();
        assert_eq!(header.to_bytes(), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        assert_eq!(add(&frame[IP..34]), 0xffff, "IP's is right already");
        assert_eq!(before[34..], frame[34..]);
        let sum = Sum {
            start: 34,
            place: 50,
            end: 0,
        };
        let legacy = prepare(&mut frame, &Plan::default(), Some(sum)).unwrap();
        assert_eq!(legacy, header);
    }

    #[test]
    fn checksums_the_host_does_not_know_are_put_in() {
        let mut frame = packet(100);
        // Without the last two bytes, and in front of what is summed up.
        for (place, end) in [(50, 151), (0, 0)] {
            let sum = Sum {
                start: 34,
                place,
                end,
            };
            let expected = match end {
                0 => !add(&frame[34..]),
                end => !add(&frame[34..=usize::from(end)]),
            };
            let header = prepare(&mut frame, &Plan::default(), Some(sum)).unwrap();
            assert_eq!(header, Header::default());
            let place = usize::from(place);
            assert_eq!(frame[place..place + 2], expected.to_be_bytes());
        }
    }

    #[test]
    fn segmentation_is_left_to_the_host() {
        let mut frame = packet(5000);
        frame[34 + TCP_FLAGS] = 0x90;
        let mut header = prepare(&mut frame, &segmented(context()), None).unwrap();
        let mss = 1448_u16.to_le_bytes();
        assert_eq!(
            header.to_bytes(),
            [1, 0x81, 54, 0, mss[0], mss[1], 34, 0, 16, 0, 0, 0]
        );
        assert_eq!(frame[IP + 2..IP + 4], 5040_u16.to_be_bytes());
        assert_eq!(add(&frame[IP..34]), 0xffff);
        let pseudo = fold(0x0a00 + 1 + 0x0a00 + 2 + 6 + 5020);
        assert_eq!(frame[50..52], pseudo.to_be_bytes());
        header.shift(4);
        assert_eq!(
            header.to_bytes()[2..],
            [58, 0, mss[0], mss[1], 38, 0, 16, 0, 0, 0]
        );
    }

    #[test]
    fn segmentation_of_ipv6() {
        let mut frame = vec![0; 14 + 40 + 20 + 3000];
        let context = Context {
            ipv4: false,
            headers: 74,
            transport: Sum {
                start: 54,
                place: 70,
                end: 0,
            },
            ..context()
        };
        let header = prepare(&mut frame, &segmented(context), None).unwrap();
        assert_eq!(header.to_bytes()[..2], [1, 4]);
        assert_eq!(frame[18..20], 3020_u16.to_be_bytes());
        assert_eq!(frame[70..72], 3020_u16.to_be_bytes());
    }

    #[test]
    fn absurd_contexts_are_refused() {
        let sum = |start, place| Sum {
            start,
            place,
            end: 0,
        };
        let base = context();
        for context in [
            Context { segment: 0, ..base },
            Context {
                headers: 53,
                ..base
            },
            Context { headers: 0, ..base },
            Context { tcp: false, ..base },
            Context {
                ipv4: false,
                ..base
            },
            Context {
                ip: sum(15, 0),
                ..base
            },
            Context {
                ip: sum(255, 0),
                ..base
            },
            Context {
                transport: sum(35, 51),
                ..base
            },
            Context {
                transport: sum(34, 53),
                ..base
            },
            Context {
                transport: sum(34, 33),
                ..base
            },
            Context {
                transport: sum(255, 255),
                headers: 255,
                ..base
            },
            Context::default(),
        ] {
            let mut frame = packet(3000);
            assert_eq!(
                prepare(&mut frame, &segmented(context), None),
                None,
                "{context:?}"
            );
        }
        assert_eq!(
            prepare(&mut packet(0), &segmented(base), None),
            None,
            "nothing to cut"
        );
        assert_eq!(prepare(&mut [], &segmented(base), None), None);
        for sum in [sum(200, 0), sum(0, 199), sum(255, 255)] {
            let mut frame = packet(0);
            assert_eq!(
                prepare(&mut frame, &Plan::default(), Some(sum)),
                None,
                "{sum:?}"
            );
        }
        let backwards = Sum {
            start: 34,
            place: 0,
            end: 3,
        };
        assert_eq!(
            prepare(&mut packet(0), &Plan::default(), Some(backwards)),
            None
        );
    }
}
