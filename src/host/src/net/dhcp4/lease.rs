//! What a DHCP server granted.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{Message, array, is_host, option};
use crate::net::config::{MIN_MTU, is_domain};
use crate::seed::MacAddress;

/// More of anything than a real network offers; a server that sends more is cut short.
const LIST_LIMIT: usize = 8;
const ROUTE_LIMIT: usize = 32;

/// Shortest time between renewals. A server that wants it more often floods its own network.
const SHORTEST_T1: Duration = Duration::from_secs(1);

/// On the wire, "for ever".
const INFINITE: u32 = u32::MAX;

/// A lease. Times are relative to the machine's boot, so that setting the clock changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The link it was granted to.
    pub mac: MacAddress,
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of the network's prefix, 1 to 32.
    pub prefix_len: u8,
    /// The server's identifier, an address of it.
    pub server: Ipv4Addr,
    /// The Ethernet address its answer came from: the server's, or the relay's.
    pub server_mac: MacAddress,
    /// When it was asked for, since boot: the clock of a lease starts with the request, not the answer.
    pub obtained: Duration,
    /// How long it lasts; `None` for ever.
    pub duration: Option<Duration>,
    /// When to ask the server for more, from `obtained`.
    pub t1: Duration,
    /// When to ask any server for more, from `obtained`.
    pub t2: Duration,
    /// Routes, the default one included.
    pub routes: Vec<LeaseRoute>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Domains to search.
    pub search: Vec<String>,
    /// The name the network has for this machine.
    pub hostname: Option<String>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// MTU of the network in bytes.
    pub mtu: Option<u32>,
}

/// A route that came with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRoute {
    /// The network it leads to; 0.0.0.0 for the default route.
    pub destination: Ipv4Addr,
    /// Bits of the network's prefix, 0 for the default route.
    pub prefix_len: u8,
    /// The router; `None` when the network is on the link itself.
    pub gateway: Option<Ipv4Addr>,
}

impl Lease {
    /// Reads a lease from an offer or an acknowledgement. `None` if it cannot be used.
    ///
    /// `obtained` is when the request was sent, since boot.
    pub(super) fn from_ack(
        message: &Message,
        mac: MacAddress,
        server_mac: MacAddress,
        obtained: Duration,
    ) -> Option<Self> {
        let address = message.yiaddr;
        let server = message.address(option::SERVER_ID)?;
        let prefix_len = prefix_len(message, address)?;
        if !is_host(address) || !is_host(server) || is_edge(address, prefix_len) {
            return None;
        }
        let (duration, t1, t2) = times(message)?;
        Some(Self {
            mac,
            address,
            prefix_len,
            server,
            server_mac,
            obtained,
            duration,
            t1,
            t2,
            routes: routes(message, address),
            dns: message.addresses(option::DNS_SERVER, LIST_LIMIT),
            search: search(message),
            hostname: message
                .text(option::HOST_NAME)
                .filter(|name| is_domain(name)),
            ntp: message.addresses(option::NTP_SERVER, LIST_LIMIT),
            mtu: message
                .short(option::MTU)
                .map(u32::from)
                .filter(|mtu| *mtu >= MIN_MTU),
        })
    }

    /// When it ends, since boot; `None` never.
    #[must_use]
    pub fn expires(&self) -> Option<Duration> {
        self.duration
            .map(|duration| self.obtained.saturating_add(duration))
    }

    /// Whether it may be used at `now`, since boot.
    #[must_use]
    pub fn is_valid(&self, now: Duration) -> bool {
        self.obtained <= now && self.expires().is_none_or(|end| now < end)
    }
}

/// The mask of a lease, or that of the address's class when the server sends none. `None` for a mask with holes.
fn prefix_len(message: &Message, address: Ipv4Addr) -> Option<u8> {
    let mask = match message.address(option::SUBNET_MASK) {
        Some(mask) => mask.to_bits(),
        None => match address.octets()[0] {
            0..=127 => 0xff00_0000,
            128..=191 => 0xffff_0000,
            _ => 0xffff_ff00,
        },
    };
    let length = u8::try_from(mask.leading_ones()).ok()?;
    (length > 0 && mask.count_ones() == mask.leading_ones()).then_some(length)
}

/// Whether the address is the network's own or its broadcast address.
fn is_edge(address: Ipv4Addr, prefix_len: u8) -> bool {
    let hosts = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
    let host = address.to_bits() & hosts;
    prefix_len < 31 && (host == 0 || host == hosts)
}

/// Duration, T1 and T2 (RFC 2131, section 4.4.5).
fn times(message: &Message) -> Option<(Option<Duration>, Duration, Duration)> {
    let seconds = message
        .number(option::LEASE_TIME)
        .filter(|seconds| *seconds > 0)?;
    let duration = Duration::from_secs(u64::from(seconds));
    let given = |code| {
        message
            .number(code)
            .filter(|value| *value > 0)
            .map(|value| Duration::from_secs(u64::from(value)))
    };
    let t2 = given(option::REBINDING_TIME)
        .filter(|t2| *t2 < duration)
        .unwrap_or(duration * 7 / 8);
    let t1 = given(option::RENEWAL_TIME)
        .filter(|t1| *t1 < t2)
        .unwrap_or_else(|| (duration / 2).min(t2));
    let t1 = t1.max(SHORTEST_T1);
    Some((
        (seconds != INFINITE).then_some(duration.max(SHORTEST_T1 * 2)),
        t1,
        t2.max(t1),
    ))
}

/// Classless routes, which take the place of the router option (RFC 3442).
fn routes(message: &Message, own: Ipv4Addr) -> Vec<LeaseRoute> {
    if let Some(data) = message.options.get(&option::CLASSLESS_ROUTES) {
        let routes = classless_routes(data);
        if !routes.is_empty() {
            return routes;
        }
    }
    let router = message
        .addresses(option::ROUTER, LIST_LIMIT)
        .into_iter()
        .find(|router| *router != own);
    let default = |gateway| LeaseRoute {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_len: 0,
        gateway: Some(gateway),
    };
    router.map(default).into_iter().collect()
}

fn classless_routes(mut data: &[u8]) -> Vec<LeaseRoute> {
    let mut routes: Vec<LeaseRoute> = Vec::new();
    while let Some((&prefix_len, rest)) = data.split_first() {
        let significant = usize::from(prefix_len).div_ceil(8);
        let (true, Some((prefix, rest))) = (prefix_len <= 32, rest.split_at_checked(significant))
        else {
            break;
        };
        let Some(gateway) = array(rest, 0).map(Ipv4Addr::from) else {
            break;
        };
        data = &rest[4..];
        let mut octets = [0; 4];
        octets[..significant].copy_from_slice(prefix);
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix_len))
            .unwrap_or(0);
        let destination = Ipv4Addr::from_bits(u32::from_be_bytes(octets) & mask);
        let gateway = (!gateway.is_unspecified()).then_some(gateway);
        let usable = gateway.is_none_or(is_host)
            && !destination.is_loopback()
            && !destination.is_multicast();
        let known = routes
            .iter()
            .any(|route| (route.destination, route.prefix_len) == (destination, prefix_len));
        if usable && !known && routes.len() < ROUTE_LIMIT {
            routes.push(LeaseRoute {
                destination,
                prefix_len,
                gateway,
            });
        }
    }
    routes
}

/// The search list (RFC 3397), else the domain name.
fn search(message: &Message) -> Vec<String> {
    let list = message
        .options
        .get(&option::DOMAIN_SEARCH)
        .map(|data| domain_list(data))
        .unwrap_or_default();
    if !list.is_empty() {
        return list;
    }
    // Some servers put several domains, with blanks between, into the one for a single domain.
    let text = message.text(option::DOMAIN_NAME).unwrap_or_default();
    text.split(' ')
        .filter(|name| is_domain(name))
        .take(LIST_LIMIT)
        .map(str::to_owned)
        .collect()
}

/// Domain names as in DNS messages, with compression.
fn domain_list(data: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < data.len() && names.len() < LIST_LIMIT {
        let Some((name, next)) = domain(data, at) else {
            break;
        };
        if is_domain(&name) {
            names.push(name);
        }
        at = next;
    }
    names
}

/// One domain name at an offset, and the offset behind it.
fn domain(data: &[u8], start: usize) -> Option<(String, usize)> {
    let mut labels: Vec<&str> = Vec::new();
    let (mut at, mut end) = (start, None);
    // Every step but the last consumes a label or follows a pointer backwards; the bound stops loops anyway.
    for _ in 0..128 {
        let length = usize::from(*data.get(at)?);
        match length {
            0 => return Some((labels.join("."), end.unwrap_or(at + 1))),
            1..=63 => {
                labels.push(str::from_utf8(data.get(at + 1..at + 1 + length)?).ok()?);
                at += 1 + length;
            }
            0xc0.. => {
                let target = (length & 0x3f) << 8 | usize::from(*data.get(at + 1)?);
                end = end.or(Some(at + 2));
                (target < at).then_some(())?;
                at = target;
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::message::MessageType;
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const SERVER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    fn ack(options: &[(u8, &[u8])]) -> Message {
        let mut message = Message::request(MessageType::Ack, 1, MAC);
        message.reply = true;
        message.yiaddr = Ipv4Addr::new(192, 0, 2, 7);
        message
            .options
            .insert(option::SERVER_ID, vec![192, 0, 2, 1]);
        message
            .options
            .insert(option::LEASE_TIME, 800_u32.to_be_bytes().to_vec());
        message
            .options
            .insert(option::SUBNET_MASK, vec![255, 255, 255, 0]);
        for (code, value) in options {
            message.options.insert(*code, value.to_vec());
        }
        message
    }

    fn lease(options: &[(u8, &[u8])]) -> Option<Lease> {
        Lease::from_ack(&ack(options), MAC, SERVER, Duration::from_secs(100))
    }

    #[test]
    fn times_default_and_are_put_in_order() {
        let plain = lease(&[]).expect("a lease");
        assert_eq!((plain.t1.as_secs(), plain.t2.as_secs()), (400, 700));
        assert_eq!(plain.expires(), Some(Duration::from_secs(900)));
        assert!(
            plain.is_valid(Duration::from_secs(899)) && !plain.is_valid(Duration::from_secs(900))
        );
        assert!(
            !plain.is_valid(Duration::from_secs(99)),
            "from before the last boot"
        );
        let wrong =
            lease(&[(58, &9000_u32.to_be_bytes()), (59, &800_u32.to_be_bytes())]).expect("a lease");
        assert_eq!((wrong.t1.as_secs(), wrong.t2.as_secs()), (400, 700));
        let given =
            lease(&[(58, &10_u32.to_be_bytes()), (59, &20_u32.to_be_bytes())]).expect("a lease");
        assert_eq!((given.t1.as_secs(), given.t2.as_secs()), (10, 20));
        let short = lease(&[(51, &1_u32.to_be_bytes())]).expect("a lease");
        assert!(short.t1 >= SHORTEST_T1 && short.t2 >= short.t1 && short.duration > Some(short.t2));
        let infinite = lease(&[(51, &u32::MAX.to_be_bytes())]).expect("a lease");
        assert_eq!(infinite.duration, None);
        assert_eq!(lease(&[(51, &[0; 4])]), None);
    }

    #[test]
    fn bad_addresses_are_refused() {
        assert_eq!(lease(&[(1, &[255, 0, 255, 0])]), None, "mask with a hole");
        assert_eq!(lease(&[(1, &[0; 4])]), None, "empty mask");
        assert_eq!(lease(&[(54, &[0; 4])]), None, "no server");
        assert_eq!(
            lease(&[(1, &[255, 255, 255, 248])]),
            None,
            "broadcast address of 192.0.2.0/29"
        );
        assert!(
            lease(&[(1, &[255; 4])]).is_some(),
            "a /32, as some clouds hand out"
        );
        let mut loopback = ack(&[]);
        loopback.yiaddr = Ipv4Addr::LOCALHOST;
        assert_eq!(
            Lease::from_ack(&loopback, MAC, SERVER, Duration::ZERO),
            None
        );
        let mut no_mask = ack(&[]);
        no_mask.options.remove(&option::SUBNET_MASK);
        assert_eq!(
            Lease::from_ack(&no_mask, MAC, SERVER, Duration::ZERO).map(|lease| lease.prefix_len),
            Some(24)
        );
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let router: (u8, &[u8]) = (3, &[192, 0, 2, 7, 192, 0, 2, 1]);
        let default = |gateway| LeaseRoute {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
            gateway: Some(gateway),
        };
        assert_eq!(
            lease(&[router]).expect("a lease").routes,
            [default(Ipv4Addr::new(192, 0, 2, 1))],
            "own address skipped"
        );
        let classless: (u8, &[u8]) = (
            121,
            &[0, 192, 0, 2, 254, 12, 172, 31, 0, 0, 0, 0, 33, 1, 2, 3],
        );
        let routes = lease(&[router, classless]).expect("a lease").routes;
        let link = LeaseRoute {
            destination: Ipv4Addr::new(172, 16, 0, 0),
            prefix_len: 12,
            gateway: None,
        };
        assert_eq!(routes, [default(Ipv4Addr::new(192, 0, 2, 254)), link]);
    }

    #[test]
    fn names_are_checked() {
        let list: &[u8] = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04";
        assert_eq!(
            lease(&[(119, list)]).expect("a lease").search,
            ["eng.apple.com", "marketing.apple.com"]
        );
        assert_eq!(
            lease(&[(119, b"\xc0\x00"), (15, b"a.example b.example\0")])
                .expect("a lease")
                .search,
            ["a.example", "b.example"]
        );
        assert_eq!(
            lease(&[(15, b"x\nnameserver"), (12, b"a\nb")])
                .expect("a lease")
                .search,
            [""; 0]
        );
        assert_eq!(lease(&[(12, b"a\nb")]).expect("a lease").hostname, None);
        assert_eq!(lease(&[(26, &[0, 68])]).expect("a lease").mtu, None);
        assert_eq!(lease(&[(26, &[5, 0x78])]).expect("a lease").mtu, Some(1400));
    }
}
