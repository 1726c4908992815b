//! DHCP messages on the wire (RFC 2131, section 2; options RFC 2132).
//!
//! Written by us because what comes in is hostile and odd: one option that makes no sense must not make the
//! others unreadable, options may be split (RFC 3396) and spill into the `file` and `sname` fields, and no
//! length in a packet may be believed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::seed::MacAddress;

/// Length of the fixed part, before the options.
const FIXED_LEN: usize = 240;
/// Many relays and servers drop requests shorter than a BOOTP message (RFC 1542, section 2.1).
const MIN_LEN: usize = 300;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

/// Option numbers used here.
pub(super) mod option {
    pub(in super::super) const SUBNET_MASK: u8 = 1;
    pub(in super::super) const ROUTER: u8 = 3;
    pub(in super::super) const DNS_SERVER: u8 = 6;
    pub(in super::super) const HOST_NAME: u8 = 12;
    pub(in super::super) const DOMAIN_NAME: u8 = 15;
    pub(in super::super) const MTU: u8 = 26;
    pub(in super::super) const NTP_SERVER: u8 = 42;
    pub(in super::super) const REQUESTED_ADDRESS: u8 = 50;
    pub(in super::super) const LEASE_TIME: u8 = 51;
    pub(in super::super) const OVERLOAD: u8 = 52;
    pub(in super::super) const MESSAGE_TYPE: u8 = 53;
    pub(in super::super) const SERVER_ID: u8 = 54;
    pub(in super::super) const PARAMETER_LIST: u8 = 55;
    pub(in super::super) const MAX_MESSAGE_SIZE: u8 = 57;
    pub(in super::super) const RENEWAL_TIME: u8 = 58;
    pub(in super::super) const REBINDING_TIME: u8 = 59;
    pub(in super::super) const CLIENT_ID: u8 = 61;
    pub(in super::super) const DOMAIN_SEARCH: u8 = 119;
    pub(in super::super) const CLASSLESS_ROUTES: u8 = 121;
    pub(super) const PAD: u8 = 0;
    pub(super) const END: u8 = 255;
}

/// Kind of message (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageType {
    /// Who has an address for me?
    Discover,
    /// I have.
    Offer,
    /// I want it, or want to keep it.
    Request,
    /// I will not have it: somebody uses it.
    Decline,
    /// It is yours.
    Ack,
    /// It is not.
    Nak,
    /// I am done with it.
    Release,
}

impl MessageType {
    const ALL: [(u8, Self); 7] = [
        (1, Self::Discover),
        (2, Self::Offer),
        (3, Self::Request),
        (4, Self::Decline),
        (5, Self::Ack),
        (6, Self::Nak),
        (7, Self::Release),
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(number, _)| *number == code)
            .map(|(_, kind)| *kind)
    }

    fn code(self) -> u8 {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or(0, |(number, _)| *number)
    }
}

/// A message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: MessageType,
    /// `true` from a server.
    pub(super) reply: bool,
    pub(super) xid: u32,
    pub(super) secs: u16,
    pub(super) ciaddr: Ipv4Addr,
    pub(super) yiaddr: Ipv4Addr,
    pub(super) chaddr: MacAddress,
    /// Options by number, without the message type; split ones joined.
    pub(super) options: BTreeMap<u8, Vec<u8>>,
}

impl Message {
    /// A request of that kind, without options.
    pub(super) fn request(kind: MessageType, xid: u32, chaddr: MacAddress) -> Self {
        Self {
            kind,
            reply: false,
            xid,
            secs: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            chaddr,
            options: BTreeMap::new(),
        }
    }

    /// Reads a message. `None` for anything that is not a DHCP message about Ethernet.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let fixed = data.get(..FIXED_LEN)?;
        if fixed[236..240] != MAGIC || fixed[1] != 1 || fixed[2] != 6 {
            return None;
        }
        let reply = match fixed[0] {
            1 => false,
            2 => true,
            _ => return None,
        };
        let mut options = BTreeMap::new();
        read_options(&data[FIXED_LEN..], &mut options);
        // RFC 2131, section 4.1: first the options field, then `file`, then `sname`.
        let overload = options
            .get(&option::OVERLOAD)
            .and_then(|value: &Vec<u8>| value.first().copied())
            .unwrap_or(0);
        if overload & 1 != 0 {
            read_options(&fixed[FILE], &mut options);
        }
        if overload & 2 != 0 {
            read_options(&fixed[SNAME], &mut options);
        }
        let kind = match options.remove(&option::MESSAGE_TYPE)?.as_slice() {
            [code] => MessageType::from_code(*code)?,
            _ => return None,
        };
        Some(Self {
            kind,
            reply,
            xid: u32::from_be_bytes(array(fixed, 4)?),
            secs: u16::from_be_bytes(array(fixed, 8)?),
            ciaddr: array(fixed, 12)?.into(),
            yiaddr: array(fixed, 16)?.into(),
            chaddr: MacAddress(array(fixed, 28)?),
            options,
        })
    }

    /// Writes the message. Option values longer than 255 bytes, which we never send, are left out.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut data = vec![0_u8; FIXED_LEN];
        data[0] = if self.reply { 2 } else { 1 };
        data[1] = 1;
        data[2] = 6;
        data[4..8].copy_from_slice(&self.xid.to_be_bytes());
        data[8..10].copy_from_slice(&self.secs.to_be_bytes());
        data[12..16].copy_from_slice(&self.ciaddr.octets());
        data[16..20].copy_from_slice(&self.yiaddr.octets());
        data[28..34].copy_from_slice(&self.chaddr.0);
        data[236..240].copy_from_slice(&MAGIC);
        data.extend([option::MESSAGE_TYPE, 1, self.kind.code()]);
        for (&code, value) in &self.options {
            if let Ok(length) = u8::try_from(value.len()) {
                data.extend([code, length]);
                data.extend(value);
            }
        }
        data.push(option::END);
        data.resize(data.len().max(MIN_LEN), option::PAD);
        data
    }

    /// An option that is one IPv4 address.
    pub(super) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        array(self.options.get(&code)?, 0).map(Ipv4Addr::from)
    }

    /// An option that is a list of IPv4 addresses, at most `limit` of them.
    pub(super) fn addresses(&self, code: u8, limit: usize) -> Vec<Ipv4Addr> {
        let value = self.options.get(&code).map_or(&[][..], Vec::as_slice);
        let addresses = value
            .chunks_exact(4)
            .filter_map(|chunk| array(chunk, 0).map(Ipv4Addr::from));
        addresses
            .filter(|address| is_host(*address))
            .take(limit)
            .collect()
    }

    /// An option that is a 32-bit number.
    pub(super) fn number(&self, code: u8) -> Option<u32> {
        array(self.options.get(&code)?, 0).map(u32::from_be_bytes)
    }

    /// An option that is a 16-bit number.
    pub(super) fn short(&self, code: u8) -> Option<u16> {
        array(self.options.get(&code)?, 0).map(u16::from_be_bytes)
    }

    /// An option that is text, without the NUL that some servers append.
    pub(super) fn text(&self, code: u8) -> Option<String> {
        let value = self.options.get(&code)?;
        let end = value.iter().rposition(|byte| *byte != 0)?;
        String::from_utf8(value.get(..=end)?.to_vec()).ok()
    }
}

/// Whether the address can be that of another machine.
pub(super) fn is_host(address: Ipv4Addr) -> bool {
    // 0.0.0.0/8 is "this network"; 240.0.0.0/4, broadcast included, was never handed out.
    let first = address.octets()[0];
    first != 0 && first < 240 && !address.is_loopback() && !address.is_multicast()
}

/// Reads one options field. Stops at what makes no sense and keeps what came before.
fn read_options(mut data: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) {
    while let Some((&code, rest)) = data.split_first() {
        match code {
            option::PAD => data = rest,
            option::END => return,
            _ => {
                let Some((&length, rest)) = rest.split_first() else {
                    return;
                };
                let Some((value, rest)) = rest.split_at_checked(usize::from(length)) else {
                    return;
                };
                options.entry(code).or_default().extend_from_slice(value);
                data = rest;
            }
        }
    }
}

/// `N` bytes at an offset.
pub(super) fn array<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn offer() -> Message {
        let mut message = Message::request(MessageType::Offer, 0x1234_5678, MAC);
        message.reply = true;
        message.yiaddr = Ipv4Addr::new(192, 0, 2, 7);
        message
            .options
            .insert(option::SUBNET_MASK, vec![255, 255, 255, 0]);
        message.options.insert(
            option::DNS_SERVER,
            vec![192, 0, 2, 53, 0, 0, 0, 0, 198, 51, 100, 1, 9],
        );
        message
    }

    #[test]
    fn what_is_written_reads_back() {
        let message = offer();
        let data = message.encode();
        assert!(data.len() >= MIN_LEN);
        assert_eq!(Message::parse(&data), Some(message));
    }

    #[test]
    fn addresses_skip_nonsense_and_keep_to_the_limit() {
        let message = offer();
        let both = [Ipv4Addr::new(192, 0, 2, 53), Ipv4Addr::new(198, 51, 100, 1)];
        assert_eq!(message.addresses(option::DNS_SERVER, 9), both);
        assert_eq!(message.addresses(option::DNS_SERVER, 1), both[..1]);
        assert!(message.addresses(option::ROUTER, 9).is_empty());
    }

    #[test]
    fn split_options_are_joined() {
        let mut data = offer().encode();
        data.truncate(FIXED_LEN);
        data.extend([53, 1, 5, 12, 2, b'a', b'b', 0, 0, 12, 2, b'c', 0, 255]);
        let message = Message::parse(&data).expect("a message");
        assert_eq!(message.kind, MessageType::Ack);
        assert_eq!(message.text(option::HOST_NAME).as_deref(), Some("abc"));
    }

    #[test]
    fn overloaded_fields_are_read() {
        let mut data = offer().encode();
        data.truncate(FIXED_LEN);
        data.extend([53, 1, 5, 52, 1, 3, 255]);
        data[FILE][..7].copy_from_slice(&[3, 4, 192, 0, 2, 1, 255]);
        data[SNAME][..4].copy_from_slice(&[12, 1, b'x', 255]);
        let message = Message::parse(&data).expect("a message");
        assert_eq!(
            message.address(option::ROUTER),
            Some(Ipv4Addr::new(192, 0, 2, 1))
        );
        assert_eq!(message.text(option::HOST_NAME).as_deref(), Some("x"));
    }

    #[test]
    fn an_option_past_the_end_spares_the_others() {
        let mut data = offer().encode();
        data.truncate(FIXED_LEN);
        data.extend([53, 1, 2, 3, 4, 192, 0, 2, 1, 6, 200, 1]);
        let message = Message::parse(&data).expect("a message");
        assert_eq!(
            message.address(option::ROUTER),
            Some(Ipv4Addr::new(192, 0, 2, 1))
        );
        assert!(message.addresses(option::DNS_SERVER, 8).is_empty());
    }

    #[test]
    fn foreign_messages_are_refused() {
        let good = offer().encode();
        for (at, value) in [(0, 3), (1, 6), (2, 255), (236, 0)] {
            let mut data = good.clone();
            data[at] = value;
            assert_eq!(Message::parse(&data), None, "byte {at} = {value}");
        }
        assert_eq!(Message::parse(&good[..FIXED_LEN]), None, "no message type");
        assert_eq!(Message::parse(&good[..100]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut data in proptest::collection::vec(any::<u8>(), 0..700), fix in any::<bool>()) {
            if fix && data.len() >= FIXED_LEN {
                data[0] = 2;
                data[1] = 1;
                data[2] = 6;
                data[236..240].copy_from_slice(&MAGIC);
            }
            if let Some(message) = Message::parse(&data) {
                let _ = super::super::lease::Lease::from_ack(&message, MAC, MAC, std::time::Duration::ZERO);
            }
        }
    }
}
