//! The kernel's side of the network: what is there, and how to change it.
//!
//! With the packet filter of `guard` and the rates of `traffic`, this is the only module that knows the netlink library. All names of things are kernel indices.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use nlink::netlink::addr::{Ipv4Address, Ipv6Address};
use nlink::netlink::link::LinkConfig as NewLink;
use nlink::netlink::route::{Ipv4Route, Ipv6Route};
use nlink::netlink::types::route::{RouteProtocol, RouteScope, RouteType};
use nlink::netlink::{Connection, Error, MessageBuilder, Route, RtnetlinkGroup};

use super::config::HostAddress;
use super::error::NetError;
use crate::seed::MacAddress;

/// Time the kernel gets to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Routes of the main table only.
const MAIN_TABLE: u32 = 254;

/// Attributes of links (`linux/if_link.h`).
mod attribute {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const LINK_INFO: u16 = 18;
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const INFO_DATA: u16 = 2;
    pub(super) const BRIDGE_FORWARD_DELAY: u16 = 1;
    pub(super) const BRIDGE_STP_STATE: u16 = 5;
    pub(super) const BRIDGE_MULTICAST_SNOOPING: u16 = 23;
}

/// A link of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelLink {
    pub(super) index: u32,
    pub(super) name: String,
    /// Free text that somebody gave it.
    pub(super) alias: Option<String>,
    /// `bridge`, `tun`, `veth` …; `None` for hardware.
    pub(super) kind: Option<String>,
    /// Present Ethernet address.
    pub(super) address: Option<MacAddress>,
    /// The address burnt in; `None` if the driver knows none.
    pub(super) permanent: Option<MacAddress>,
    pub(super) mtu: u32,
    /// 0 if not known.
    pub(super) max_mtu: u32,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) loopback: bool,
    /// The bridge or bond it is a port of.
    pub(super) master: Option<u32>,
}

impl KernelLink {
    /// Whether this is an Ethernet link to the world outside: hardware, or the one end of a pair that a
    /// container has in its place.
    pub(super) fn is_ethernet(&self) -> bool {
        !self.loopback
            && self.address.is_some()
            && matches!(self.kind.as_deref(), None | Some("veth"))
    }

    /// The address it is known by.
    pub(super) fn key(&self) -> Option<MacAddress> {
        self.permanent.or(self.address)
    }

    pub(super) fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }
}

/// An address of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelAddress {
    pub(super) index: u32,
    pub(super) address: HostAddress,
    pub(super) link_local: bool,
    pub(super) tentative: bool,
    pub(super) duplicate: bool,
    /// Without end. Addresses from router advertisements and leases are not.
    pub(super) permanent: bool,
    /// Remaining time in seconds.
    pub(super) valid_for: u32,
    /// Metric of the route to its subnet, 0 if not set.
    pub(super) metric: u32,
}

/// Who made a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RouteOrigin {
    /// We, from a lease.
    Dhcp,
    /// We, from the configuration.
    Static,
    /// The kernel or somebody else.
    Other,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KernelRoute {
    pub(super) index: u32,
    /// The unspecified address for a default route.
    pub(super) destination: IpAddr,
    pub(super) prefix_len: u8,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) metric: u32,
    pub(super) origin: RouteOrigin,
    /// The router need not be in a subnet of ours.
    pub(super) on_link: bool,
}

impl KernelRoute {
    /// Whether it is a default route.
    pub(super) fn is_default(&self) -> bool {
        self.prefix_len == 0
    }
}

/// Everything at one time.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) links: Vec<KernelLink>,
    pub(super) addresses: Vec<KernelAddress>,
    pub(super) routes: Vec<KernelRoute>,
}

impl Snapshot {
    /// The link with that kernel name.
    pub(super) fn named(&self, name: &str) -> Option<&KernelLink> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The link with that index.
    pub(super) fn indexed(&self, index: u32) -> Option<&KernelLink> {
        self.links.iter().find(|link| link.index == index)
    }

    /// Ethernet links in order of index, each MAC address once.
    pub(super) fn ethernet(&self) -> Vec<(MacAddress, &KernelLink)> {
        let mut links: Vec<_> = self
            .links
            .iter()
            .filter(|link| link.is_ethernet())
            .collect();
        links.sort_by_key(|link| link.index);
        let mut seen = BTreeSet::new();
        let keyed = links
            .into_iter()
            .filter_map(|link| Some((link.key()?, link)));
        keyed.filter(|(mac, _)| seen.insert(*mac)).collect()
    }
}

/// A bridge as we make it.
struct NewBridge<'a> {
    name: &'a str,
    mac: MacAddress,
}

impl NewLink for NewBridge<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn kind(&self) -> &str {
        "bridge"
    }

    fn write_to(&self, builder: &mut MessageBuilder, _parent_index: Option<u32>) {
        builder.append_attr_str(attribute::NAME, self.name);
        // A bridge given its address keeps it whatever ports come and go.
        builder.append_attr(attribute::ADDRESS, &self.mac.0);
        let info = builder.nest_start(attribute::LINK_INFO);
        builder.append_attr_str(attribute::INFO_KIND, "bridge");
        let data = builder.nest_start(attribute::INFO_DATA);
        // No spanning tree, hence no delay before a new port forwards.
        builder.append_attr_u32(attribute::BRIDGE_STP_STATE, 0);
        builder.append_attr_u32(attribute::BRIDGE_FORWARD_DELAY, 0);
        // Without a querier on the network snooping loses groups, IPv6 neighbour discovery among them.
        builder.append_attr_u8(attribute::BRIDGE_MULTICAST_SNOOPING, 0);
        builder.nest_end(data);
        builder.nest_end(info);
    }
}

/// A connection to the kernel.
pub(super) struct Kernel {
    pub(super) connection: Connection<Route>,
}

impl Kernel {
    /// Connects to the kernel, in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, NetError> {
        let connection =
            Connection::<Route>::new().map_err(|error| failed("open a netlink socket", &error))?;
        Ok(Self {
            connection: connection.timeout(TIMEOUT),
        })
    }

    /// Reads everything.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, NetError> {
        let links = self
            .connection
            .get_links()
            .await
            .map_err(|error| failed("list links", &error))?;
        let addresses = self
            .connection
            .get_addresses()
            .await
            .map_err(|error| failed("list addresses", &error))?;
        let routes = self
            .connection
            .get_routes()
            .await
            .map_err(|error| failed("list routes", &error))?;
        Ok(Snapshot {
            links: links.iter().map(link).collect(),
            addresses: addresses.iter().filter_map(address).collect(),
            routes: routes.iter().filter_map(route).collect(),
        })
    }

    /// The link with that name now.
    pub(super) async fn find(&self, name: &str) -> Result<Option<KernelLink>, NetError> {
        let found = self.connection.get_link_by_name(name).await;
        let found = found.map_err(|error| failed(&format!("look up {name}"), &error))?;
        Ok(found.as_ref().map(link))
    }

    /// Makes a bridge that is down.
    pub(super) async fn create_bridge(&self, name: &str, mac: MacAddress) -> Result<(), NetError> {
        let made = self.connection.add_link(NewBridge { name, mac }).await;
        made.map_err(|error| match error.errno().map(i32::abs) {
            Some(libc::EOPNOTSUPP) => NetError::KindUnsupported { kind: "bridge" },
            Some(libc::EEXIST) => NetError::NameTaken {
                what: "link",
                name: name.to_owned(),
            },
            _ => failed(&format!("create bridge {name}"), &error),
        })
    }

    /// Removes a link; one that is gone already is fine.
    pub(super) async fn delete_link(&self, index: u32) -> Result<(), NetError> {
        gone_is_fine(self.connection.del_link_by_index(index).await)
            .map_err(|error| failed(&format!("delete link {index}"), &error))
    }

    /// Switches a link on or off.
    pub(super) async fn set_up(&self, index: u32, up: bool) -> Result<(), NetError> {
        let action = if up { "switch on" } else { "switch off" };
        let done = self.connection.set_link_state_by_index(index, up).await;
        done.map_err(|error| failed(&format!("{action} link {index}"), &error))
    }

    /// Sets the present Ethernet address.
    pub(super) async fn set_mac(&self, index: u32, mac: MacAddress) -> Result<(), NetError> {
        let done = self
            .connection
            .set_link_address_by_index(index, mac.0)
            .await;
        done.map_err(|error| failed(&format!("set the address of link {index}"), &error))
    }

    /// Sets the free text of a link.
    pub(super) async fn set_alias(&self, index: u32, alias: &str) -> Result<(), NetError> {
        let done = self.connection.set_link_alias_by_index(index, alias).await;
        done.map_err(|error| failed(&format!("name link {index}"), &error))
    }

    /// Sets the MTU in bytes.
    pub(super) async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetError> {
        let done = self.connection.set_link_mtu_by_index(index, mtu).await;
        done.map_err(|error| failed(&format!("set the MTU of link {index} to {mtu}"), &error))
    }

    /// Sets the MTU of a bridge in bytes so that it stays whatever ports come and go.
    pub(super) async fn pin_mtu(&self, index: u32, mtu: u32) -> Result<(), NetError> {
        let done = self.connection.pin_bridge_mtu_by_index(index, mtu).await;
        done.map_err(|error| failed(&format!("set the MTU of bridge {index} to {mtu}"), &error))
    }

    /// Makes a link a port of a bridge, or of none.
    pub(super) async fn set_master(&self, index: u32, master: Option<u32>) -> Result<(), NetError> {
        let done = match master {
            Some(master) => {
                self.connection
                    .set_link_master_by_index(index, master)
                    .await
            }
            None => self.connection.set_link_nomaster_by_index(index).await,
        };
        done.map_err(|error| failed(&format!("change the bridge of link {index}"), &error))
    }

    /// Adds an address, or changes its remaining time. `valid_for` in seconds, [`u32::MAX`] for ever.
    pub(super) async fn set_address(
        &self,
        index: u32,
        address: HostAddress,
        valid_for: u32,
        metric: u32,
    ) -> Result<(), NetError> {
        let prefix_len = address.prefix_len();
        let done = match address.address() {
            IpAddr::V4(ip) => {
                let mut new = Ipv4Address::with_index(index, ip, prefix_len).metric(metric);
                new = new.valid_lifetime(valid_for).preferred_lifetime(valid_for);
                if prefix_len < 31 {
                    let hosts = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
                    new = new.broadcast((ip.to_bits() | hosts).into());
                }
                self.connection.replace_address(new).await
            }
            IpAddr::V6(ip) => {
                let new = Ipv6Address::with_index(index, ip, prefix_len).metric(metric);
                self.connection
                    .replace_address(new.valid_lifetime(valid_for).preferred_lifetime(valid_for))
                    .await
            }
        };
        done.map_err(|error| failed(&format!("set address {address} on link {index}"), &error))
    }

    /// Removes an address; one that is gone already is fine.
    pub(super) async fn remove_address(
        &self,
        index: u32,
        address: HostAddress,
    ) -> Result<(), NetError> {
        let done = self
            .connection
            .del_address_by_index(index, address.address(), address.prefix_len())
            .await;
        gone_is_fine(done).map_err(|error| {
            failed(
                &format!("remove address {address} from link {index}"),
                &error,
            )
        })
    }

    /// Adds a route, or replaces the one with the same destination and metric.
    pub(super) async fn set_route(&self, route: &KernelRoute) -> Result<(), NetError> {
        let done = match route.destination {
            IpAddr::V4(_) => self.connection.replace_route(ipv4_route(route)).await,
            IpAddr::V6(_) => self.connection.replace_route(ipv6_route(route)).await,
        };
        done.map_err(|error| {
            failed(
                &format!(
                    "set the route to {}/{}",
                    route.destination, route.prefix_len
                ),
                &error,
            )
        })
    }

    /// Removes a route; one that is gone already is fine.
    pub(super) async fn remove_route(&self, route: &KernelRoute) -> Result<(), NetError> {
        let done = match route.destination {
            IpAddr::V4(_) => self.connection.del_route(ipv4_route(route)).await,
            IpAddr::V6(_) => self.connection.del_route(ipv6_route(route)).await,
        };
        gone_is_fine(done).map_err(|error| {
            failed(
                &format!(
                    "remove the route to {}/{}",
                    route.destination, route.prefix_len
                ),
                &error,
            )
        })
    }
}

/// Calls `changed` after every change of links, addresses and routes, until something breaks.
///
/// What changed is not said: whoever listens looks again. A lost message is a change too.
pub(super) async fn monitor(changed: impl Fn() + Send) -> NetError {
    let action = "follow changes of the network";
    let connection = match Connection::<Route>::new() {
        Ok(connection) => connection,
        Err(error) => return failed(action, &error),
    };
    let groups = [
        RtnetlinkGroup::Link,
        RtnetlinkGroup::Ipv4Addr,
        RtnetlinkGroup::Ipv6Addr,
        RtnetlinkGroup::Ipv4Route,
        RtnetlinkGroup::Ipv6Route,
    ];
    if let Err(error) = connection.subscribe(&groups) {
        return failed(action, &error);
    }
    let mut events = connection.into_events().await;
    // Changes before the subscription went unnoticed.
    changed();
    while let Some(event) = events.next().await {
        match event {
            Ok(_) => changed(),
            Err(error) if error.is_no_buffer_space() || error.is_backpressure() => changed(),
            Err(error) => return failed(action, &error),
        }
    }
    NetError::Kernel {
        action: action.to_owned(),
        problem: "the kernel closed the socket".to_owned(),
        errno: None,
    }
}

fn link(message: &nlink::netlink::messages::LinkMessage) -> KernelLink {
    let mac = |bytes: Option<&[u8]>| bytes.and_then(from_kernel);
    KernelLink {
        index: message.ifindex(),
        name: message.name_or("").to_owned(),
        alias: message.alias().map(str::to_owned),
        kind: message.kind().map(str::to_owned),
        address: mac(message.address()),
        permanent: mac(message.perm_address()),
        mtu: message.mtu().unwrap_or(0),
        max_mtu: message.max_mtu().unwrap_or(0),
        up: message.is_up(),
        carrier: message.has_carrier(),
        loopback: message.is_loopback(),
        master: message.master().filter(|master| *master != 0),
    }
}

/// A link's address as the kernel reports it: `None` unless it is one of a single Ethernet station.
fn from_kernel(bytes: &[u8]) -> Option<MacAddress> {
    let octets: [u8; 6] = bytes.try_into().ok()?;
    (octets != [0; 6] && octets[0] & 1 == 0).then_some(MacAddress(octets))
}

fn address(message: &nlink::netlink::messages::AddressMessage) -> Option<KernelAddress> {
    let address = *message.primary_address()?;
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    Some(KernelAddress {
        index: message.ifindex(),
        address: HostAddress::new(address, message.prefix_len()).ok()?,
        link_local,
        tentative: message.is_tentative(),
        duplicate: message.is_dad_failed(),
        permanent: message.is_permanent(),
        valid_for: message.cache_info().map_or(u32::MAX, |info| info.valid),
        metric: message.metric().unwrap_or(0),
    })
}

fn route(message: &nlink::netlink::messages::RouteMessage) -> Option<KernelRoute> {
    if message.table_id() != MAIN_TABLE || message.route_type() != RouteType::Unicast {
        return None;
    }
    let unspecified: IpAddr = if message.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    Some(KernelRoute {
        index: message.oif()?,
        destination: message.destination().copied().unwrap_or(unspecified),
        prefix_len: message.dst_len(),
        gateway: message.gateway().copied(),
        source: message.prefsrc().copied(),
        metric: message.priority().unwrap_or(0),
        origin: match message.protocol() {
            RouteProtocol::Dhcp => RouteOrigin::Dhcp,
            RouteProtocol::Static => RouteOrigin::Static,
            _ => RouteOrigin::Other,
        },
        on_link: message.is_onlink(),
    })
}

fn protocol(origin: RouteOrigin) -> RouteProtocol {
    match origin {
        RouteOrigin::Dhcp => RouteProtocol::Dhcp,
        RouteOrigin::Static | RouteOrigin::Other => RouteProtocol::Static,
    }
}

fn ipv4_route(route: &KernelRoute) -> Ipv4Route {
    let IpAddr::V4(destination) = route.destination else {
        return Ipv4Route::default_route();
    };
    let mut new = Ipv4Route::new(destination, route.prefix_len)
        .dev_index(route.index)
        .metric(route.metric)
        .protocol(protocol(route.origin));
    match route.gateway {
        Some(IpAddr::V4(gateway)) => new = new.gateway(gateway),
        Some(IpAddr::V6(gateway)) => new = new.gateway_v6(gateway),
        None => new = new.scope(RouteScope::Link),
    }
    if let Some(IpAddr::V4(source)) = route.source {
        new = new.prefsrc(source);
    }
    if route.on_link { new.onlink() } else { new }
}

fn ipv6_route(route: &KernelRoute) -> Ipv6Route {
    let IpAddr::V6(destination) = route.destination else {
        return Ipv6Route::default_route();
    };
    let mut new = Ipv6Route::new(destination, route.prefix_len)
        .dev_index(route.index)
        .metric(route.metric)
        .protocol(protocol(route.origin));
    if let Some(IpAddr::V6(gateway)) = route.gateway {
        new = new.gateway(gateway);
    }
    if let Some(IpAddr::V6(source)) = route.source {
        new = new.prefsrc(source);
    }
    if route.on_link { new.onlink() } else { new }
}

pub(super) fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| {
        if error.is_not_found() || error.is_no_device() {
            Ok(())
        } else {
            Err(error)
        }
    })
}

/// What the kernel answered, as an error of ours.
pub(super) fn failed(action: &str, error: &Error) -> NetError {
    if error.is_permission_denied() {
        return NetError::Permission {
            action: action.to_owned(),
        };
    }
    let errno = error.errno().map(i32::abs);
    let problem = match (error.ext_ack(), errno) {
        (Some(text), _) => text.to_owned(),
        (None, Some(errno)) => std::io::Error::from_raw_os_error(errno).to_string(),
        (None, None) => error.to_string(),
    };
    NetError::Kernel {
        action: action.to_owned(),
        problem,
        errno,
    }
}
