//! What the host network looks like right now: the output of [`HostNetwork`](super::HostNetwork).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::{HostAddress, Uplink};
use crate::seed::MacAddress;

/// A snapshot of the host network, published whenever something in it changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkState {
    /// Every Ethernet link of the machine, in order of kernel index.
    pub links: Vec<LinkState>,
    /// Every managed network, in order of name.
    pub networks: Vec<NetworkInfo>,
    /// The resolver configuration in force.
    pub dns: DnsConfig,
    /// Host name a DHCP server gave this machine, of the first link that got one.
    pub hostname_hint: Option<String>,
    /// Time servers offered by DHCP.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// What is not as it should be, for people to see.
    pub warnings: Vec<NetWarning>,
}

impl NetworkState {
    /// Addresses under which the host can be reached from outside: global ones first, link-local ones left out.
    #[must_use]
    pub fn reachable_addresses(&self) -> Vec<IpAddr> {
        let links = self.links.iter().map(|link| &link.ip);
        let networks = self.networks.iter().map(|network| &network.ip);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for entry in networks.chain(links).flat_map(|ip| &ip.addresses) {
            let address = entry.address.address();
            if entry.usable() && !is_link_local(address) && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// The network of that name.
    #[must_use]
    pub fn network(&self, name: &str) -> Option<&NetworkInfo> {
        self.networks.iter().find(|network| network.name == name)
    }

    /// The link with that permanent address.
    #[must_use]
    pub fn link(&self, mac: MacAddress) -> Option<&LinkState> {
        self.links.iter().find(|link| link.mac == mac)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// One Ethernet link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Permanent address, or the current one if the driver knows no permanent one. The key of the link.
    pub mac: MacAddress,
    /// Kernel name, for people only.
    pub name: String,
    /// Kernel index.
    pub index: u32,
    /// Name of the driver.
    pub driver: Option<String>,
    /// Speed in Mbit/s; not known without carrier, nor for most virtual links.
    pub speed_mbps: Option<u32>,
    /// Whether there is a signal.
    pub carrier: bool,
    /// Whether the link is switched on.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether this process configures the link.
    pub managed: bool,
    /// The network it is the uplink of; addresses then are on the network's bridge.
    pub network: Option<String>,
    /// Addresses on the link itself.
    pub ip: IpState,
}

/// One managed network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// Its name.
    pub name: String,
    /// The bridge.
    pub bridge: String,
    /// Kernel index of the bridge, 0 while it could not be made.
    pub index: u32,
    /// Ethernet address of the bridge.
    pub mac: Option<MacAddress>,
    /// What was asked for.
    pub uplink_spec: Uplink,
    /// The link that is the uplink now.
    pub uplink: Option<MacAddress>,
    /// Whether the uplink has a signal; `false` without uplink.
    pub carrier: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Kernel names of the guests' taps attached to it.
    pub taps: Vec<String>,
    /// Addresses of the host on this network.
    pub ip: IpState,
}

/// Addresses and routers of one link or bridge.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IpState {
    /// Addresses, the kernel's own order.
    pub addresses: Vec<AddressInfo>,
    /// IPv4 router.
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 router.
    pub gateway6: Option<Ipv6Addr>,
    /// The DHCP client, where there is one.
    pub dhcp4: Option<Dhcp4State>,
}

/// One address of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressInfo {
    /// Address and prefix.
    pub address: HostAddress,
    /// Whether the check for duplicates (IPv6) is still going on.
    pub tentative: bool,
    /// Whether another host has the address.
    pub duplicate: bool,
    /// Whether the address expires if nobody renews it.
    pub dynamic: bool,
}

impl AddressInfo {
    /// Whether the address can be connected to.
    #[must_use]
    pub const fn usable(&self) -> bool {
        !self.tentative && !self.duplicate
    }
}

/// What the DHCPv4 client of a link does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp4State {
    /// Its phase.
    pub phase: Dhcp4Phase,
    /// The lease in use.
    pub lease: Option<LeaseInfo>,
}

/// Phases of a DHCP client (RFC 2131, section 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dhcp4Phase {
    /// The link has no signal.
    NoCarrier,
    /// Looking for a server.
    Discovering,
    /// A server made an offer; asked for it.
    Requesting,
    /// Asking whether an earlier lease still holds.
    Rebooting,
    /// Has a lease.
    Bound,
    /// Has a lease, asking its server for more time.
    Renewing,
    /// Has a lease, asking any server for more time.
    Rebinding,
}

/// A lease, for people and the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// The address leased.
    pub address: HostAddress,
    /// The server.
    pub server: Ipv4Addr,
    /// When it was granted or last renewed.
    pub obtained_at: Timestamp,
    /// When it ends; `None` if never.
    pub expires_at: Option<Timestamp>,
}

/// Which name servers to ask.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Name servers in order of preference.
    pub servers: Vec<IpAddr>,
    /// Domains that short names are looked up in.
    pub search: Vec<String>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetWarning {
    /// What it is about: a network's name, a link's MAC address, or `host`.
    pub subject: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}
