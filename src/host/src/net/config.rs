//! What the host network shall look like: the input of [`HostNetwork`](super::HostNetwork).
//!
//! Links are named by MAC address only. Kernel names change with slots, firmware and kernel versions.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::NetError;
use crate::seed::{Ipv4Cidr, Ipv6Cidr, MacAddress, SeedIpv4, SeedIpv6, SeedLink};

/// The name of the network guests are put in when nothing else is said.
pub const DEFAULT_NETWORK: &str = "default";

/// The bridge of [`DEFAULT_NETWORK`].
pub const DEFAULT_BRIDGE: &str = "lodge0";

/// Smallest MTU accepted anywhere, in bytes: what IPv4 asks of every host (RFC 791).
pub const MIN_MTU: u32 = 576;

/// Smallest MTU of a link with IPv6, in bytes (RFC 8200, section 5).
pub const MIN_MTU_IPV6: u32 = 1280;

/// Largest MTU accepted anywhere, in bytes.
pub const MAX_MTU: u32 = 65_535;

/// An address of this host with its prefix length, written `192.0.2.10/24` or `2001:db8::10/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostAddress {
    address: IpAddr,
    prefix_len: u8,
}

impl HostAddress {
    /// Pairs an address with its prefix length.
    ///
    /// # Errors
    /// When the prefix is longer than the address, or the address cannot be a host's own
    /// (unspecified, loopback, multicast, broadcast).
    pub fn new(address: IpAddr, prefix_len: u8) -> Result<Self, NetError> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let invalid = |problem: &str| NetError::InvalidConfig {
            field: "address".to_owned(),
            problem: format!("{address}/{prefix_len} {problem}"),
        };
        if prefix_len == 0 || prefix_len > longest {
            return Err(invalid(&format!(
                "has a bad prefix length: use 1 to {longest}"
            )));
        }
        if address.is_unspecified()
            || address.is_multicast()
            || address.is_loopback()
            || address == IpAddr::V4(Ipv4Addr::BROADCAST)
        {
            return Err(invalid("cannot be an address of this host"));
        }
        Ok(Self {
            address,
            prefix_len,
        })
    }

    /// The address without its prefix.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Length of the network prefix in bits.
    #[must_use]
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }
}

impl From<Ipv4Cidr> for HostAddress {
    fn from(cidr: Ipv4Cidr) -> Self {
        Self {
            address: cidr.address.into(),
            prefix_len: cidr.prefix,
        }
    }
}

impl From<Ipv6Cidr> for HostAddress {
    fn from(cidr: Ipv6Cidr) -> Self {
        Self {
            address: cidr.address.into(),
            prefix_len: cidr.prefix,
        }
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromStr for HostAddress {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || NetError::InvalidConfig {
            field: "address".to_owned(),
            problem: format!(
                "'{}' is not an address with a prefix: write it like 192.0.2.10/24",
                text.chars().take(64).collect::<String>()
            ),
        };
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        Self::new(
            address.parse().map_err(|_| invalid())?,
            prefix.parse().map_err(|_| invalid())?,
        )
    }
}

impl TryFrom<String> for HostAddress {
    type Error = NetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> Self {
        address.to_string()
    }
}

/// How a link gets its IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ipv4Config {
    /// From a DHCP server.
    #[default]
    Dhcp,
    /// Fixed addresses.
    Static {
        /// Addresses with prefix; the first is the source of outgoing connections. At least one.
        addresses: Vec<Ipv4Cidr>,
        /// The router, which must be in one of the subnets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gateway: Option<Ipv4Addr>,
    },
    /// No IPv4 on this link.
    Disabled,
}

/// How a link gets its IPv6 addresses. A link-local address is there in every case but `Disabled`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ipv6Config {
    /// From router advertisements (RFC 4862), done by the kernel.
    #[default]
    Auto,
    /// Fixed addresses; router advertisements are not listened to.
    Static {
        /// Addresses with prefix. At least one.
        addresses: Vec<Ipv6Cidr>,
        /// The router: link-local, or in one of the subnets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gateway: Option<Ipv6Addr>,
    },
    /// Only the link-local address.
    LinkLocal,
    /// No IPv6 on this link.
    Disabled,
}

/// What one Ethernet link of this machine shall do. Links without an entry use [`HostNetworkConfig::default_link`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// The link's permanent address.
    pub mac: MacAddress,
    /// The methods.
    #[serde(flatten)]
    pub addressing: Addressing,
}

/// How addresses, MTU and name servers of one link (or of the bridge it is the uplink of) come about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Addressing {
    /// IPv4.
    #[serde(default)]
    pub ipv4: Ipv4Config,
    /// IPv6.
    #[serde(default)]
    pub ipv6: Ipv6Config,
    /// Name servers used in addition to, and before, those that DHCP offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Domains that short names are looked up in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// MTU in bytes, [`MIN_MTU`] to [`MAX_MTU`]. Not given: what DHCP says, else the driver's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What connects a network's bridge to the world outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "mac", rename_all = "snake_case")]
pub enum Uplink {
    /// The first Ethernet link that no other network names: one with carrier if there is one. Only where links
    /// are managed; an uplink once chosen stays while it exists, also over a restart.
    Auto,
    /// This Ethernet link.
    Mac(MacAddress),
    /// Nothing: the network connects guests with each other and, if it has an address, with the host.
    Isolated,
}

/// A managed network: a Linux bridge guests attach to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Unique name: 1 to 63 letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// The bridge, `lodge0` to `lodge9999`. Not given: the lowest free number. Keep what
    /// [`HostNetwork::add_network`](super::HostNetwork::add_network) answers and give it at the next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The way out.
    pub uplink: Uplink,
    /// Fixed addresses of the host on an isolated network; must be empty on one with uplink, whose
    /// addressing follows the link's [`LinkConfig`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<HostAddress>,
    /// MTU of the bridge in bytes. Not given: that of the uplink, else 1500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

impl NetworkSpec {
    /// The network every appliance has: `lodge0` on the first Ethernet link.
    #[must_use]
    pub fn default_network() -> Self {
        Self {
            name: DEFAULT_NETWORK.to_owned(),
            bridge: Some(DEFAULT_BRIDGE.to_owned()),
            uplink: Uplink::Auto,
            addresses: Vec::new(),
            mtu: None,
        }
    }

    /// A network without uplink.
    #[must_use]
    pub fn isolated(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            bridge: None,
            uplink: Uplink::Isolated,
            addresses: Vec::new(),
            mtu: None,
        }
    }
}

/// Everything [`HostNetwork::start`](super::HostNetwork::start) needs to know.
#[derive(Debug, Clone)]
pub struct HostNetworkConfig {
    /// Whether this process owns all Ethernet links of the machine. `false` (hosted): only its own bridges and
    /// taps, and links that a network or a [`LinkConfig`] names, are touched.
    pub manage_links: bool,
    /// Host name told to DHCP servers.
    pub hostname: Option<String>,
    /// Directory for leases and other state that has to survive a restart of this process but not of the
    /// machine: `/run/lodge/net`. Created when missing.
    pub run_dir: PathBuf,
    /// Where the resolver configuration is written, `/etc/resolv.conf`; `None` writes none.
    pub resolv_conf: Option<PathBuf>,
    /// Links that do not use `default_link`.
    pub links: Vec<LinkConfig>,
    /// What managed links without an entry in `links` do.
    pub default_link: Addressing,
    /// The networks. More can be added later.
    pub networks: Vec<NetworkSpec>,
}

impl HostNetworkConfig {
    /// The appliance: every link up, DHCP and IPv6 autoconfiguration unless `links` says otherwise, one
    /// network named `default` on the first link.
    #[must_use]
    pub fn appliance(hostname: Option<String>, links: Vec<LinkConfig>) -> Self {
        Self {
            manage_links: true,
            hostname,
            run_dir: PathBuf::from("/run/lodge/net"),
            resolv_conf: Some(PathBuf::from("/etc/resolv.conf")),
            links,
            default_link: Addressing::default(),
            networks: vec![NetworkSpec::default_network()],
        }
    }

    /// An ordinary Linux host: nothing is touched but what networks added later name.
    #[must_use]
    pub fn hosted(run_dir: PathBuf) -> Self {
        Self {
            manage_links: false,
            hostname: None,
            run_dir,
            resolv_conf: None,
            links: Vec::new(),
            default_link: Addressing {
                ipv4: Ipv4Config::Disabled,
                ipv6: Ipv6Config::Disabled,
                ..Addressing::default()
            },
            networks: Vec::new(),
        }
    }

    /// Checks everything that can be checked without looking at the machine.
    ///
    /// # Errors
    /// [`NetError::InvalidConfig`] naming the field and the fix.
    pub fn validate(&self) -> Result<(), NetError> {
        let mut macs = BTreeSet::new();
        for (index, link) in self.links.iter().enumerate() {
            let field = format!("links[{index}]");
            if !macs.insert(link.mac) {
                return Err(invalid(
                    format!("{field}.mac"),
                    format!("{} is configured twice: keep one entry", link.mac),
                ));
            }
            link.addressing.validate(&field)?;
        }
        self.default_link.validate("default_link")?;
        let mut others: Vec<&NetworkSpec> = Vec::new();
        for (index, network) in self.networks.iter().enumerate() {
            network.validate(&format!("networks[{index}]"))?;
            for other in &others {
                network.validate_beside(other)?;
            }
            others.push(network);
        }
        Ok(())
    }
}

impl Addressing {
    /// Checks addresses, gateways and MTU; `field` is the path put before the name of a bad field.
    ///
    /// # Errors
    /// [`NetError::InvalidConfig`] naming the field and the fix.
    pub fn validate(&self, field: &str) -> Result<(), NetError> {
        if let Ipv4Config::Static { addresses, gateway } = &self.ipv4 {
            let field = format!("{field}.ipv4");
            let inside = gateway.map(|gateway| {
                (
                    gateway.into(),
                    addresses.iter().any(|cidr| cidr.contains(gateway)),
                )
            });
            check_static(
                &field,
                &addresses
                    .iter()
                    .map(|cidr| cidr.address.into())
                    .collect::<Vec<_>>(),
                inside,
            )?;
        }
        if let Ipv6Config::Static { addresses, gateway } = &self.ipv6 {
            let field = format!("{field}.ipv6");
            let near = |gateway: Ipv6Addr| {
                gateway.is_unicast_link_local()
                    || addresses.iter().any(|cidr| cidr.contains(gateway))
            };
            let inside = gateway.map(|gateway| (gateway.into(), near(gateway)));
            check_static(
                &field,
                &addresses
                    .iter()
                    .map(|cidr| cidr.address.into())
                    .collect::<Vec<_>>(),
                inside,
            )?;
        }
        if let Some(server) = self
            .dns
            .iter()
            .find(|server| server.is_unspecified() || server.is_multicast())
        {
            return Err(invalid(
                format!("{field}.dns"),
                format!("{server} cannot be a name server"),
            ));
        }
        if let Some(domain) = self.search.iter().find(|domain| !is_domain(domain)) {
            return Err(invalid(
                format!("{field}.search"),
                format!(
                    "'{}' is not a domain name",
                    domain.chars().take(64).collect::<String>()
                ),
            ));
        }
        let least = if self.ipv6 == Ipv6Config::Disabled {
            MIN_MTU
        } else {
            MIN_MTU_IPV6
        };
        check_mtu(&format!("{field}.mtu"), self.mtu, least)
    }
}

impl From<&SeedLink> for LinkConfig {
    fn from(seed: &SeedLink) -> Self {
        let ipv4 = match seed.ipv4 {
            SeedIpv4::Dhcp => Ipv4Config::Dhcp,
            SeedIpv4::Static { address, gateway } => Ipv4Config::Static {
                addresses: vec![address],
                gateway,
            },
            SeedIpv4::Off => Ipv4Config::Disabled,
        };
        let ipv6 = match seed.ipv6 {
            SeedIpv6::Auto => Ipv6Config::Auto,
            SeedIpv6::Static { address, gateway } => Ipv6Config::Static {
                addresses: vec![address],
                gateway,
            },
            SeedIpv6::Off => Ipv6Config::Disabled,
        };
        Self {
            mac: seed.mac,
            addressing: Addressing {
                ipv4,
                ipv6,
                dns: seed.dns.clone(),
                search: Vec::new(),
                mtu: seed.mtu,
            },
        }
    }
}

impl NetworkSpec {
    /// Checks this network for itself; `field` is the path put before the name of a bad field.
    ///
    /// # Errors
    /// [`NetError::InvalidConfig`] naming the field and the fix.
    pub fn validate(&self, field: &str) -> Result<(), NetError> {
        let good_name = (1..=63).contains(&self.name.len())
            && self
                .name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && self
                .name
                .starts_with(|first: char| first.is_ascii_alphanumeric());
        if !good_name {
            let problem = "must be 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit";
            return Err(invalid(format!("{field}.name"), problem.to_owned()));
        }
        if let Some(bridge) = &self.bridge
            && bridge_number(bridge).is_none()
        {
            return Err(invalid(
                format!("{field}.bridge"),
                "must be lodge0 to lodge9999, or left out".to_owned(),
            ));
        }
        if self.uplink != Uplink::Isolated && !self.addresses.is_empty() {
            let problem = "only an isolated network has addresses of its own; configure the uplink's link entry instead";
            return Err(invalid(format!("{field}.addresses"), problem.to_owned()));
        }
        check_mtu(&format!("{field}.mtu"), self.mtu, MIN_MTU)
    }

    /// Checks that two networks can exist side by side.
    pub(super) fn validate_beside(&self, other: &Self) -> Result<(), NetError> {
        if self.name == other.name {
            return Err(NetError::NameTaken {
                what: "network",
                name: self.name.clone(),
            });
        }
        if let (Some(bridge), Some(taken)) = (&self.bridge, &other.bridge)
            && bridge == taken
        {
            return Err(NetError::NameTaken {
                what: "bridge",
                name: bridge.clone(),
            });
        }
        if let (Uplink::Mac(mac), Uplink::Mac(taken)) = (self.uplink, other.uplink)
            && mac == taken
        {
            return Err(NetError::UplinkTaken {
                mac,
                network: other.name.clone(),
            });
        }
        Ok(())
    }
}

/// The number in a bridge name of ours, `None` for any other name.
pub(super) fn bridge_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("lodge")?;
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// Whether the text may appear as a domain in a resolver configuration.
pub(super) fn is_domain(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.trim_end_matches('.').split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
}

/// `gateway` comes with whether one of the subnets holds it.
fn check_static(
    field: &str,
    addresses: &[IpAddr],
    gateway: Option<(IpAddr, bool)>,
) -> Result<(), NetError> {
    if addresses.is_empty() {
        return Err(invalid(
            format!("{field}.addresses"),
            "is empty: give at least one address with prefix".to_owned(),
        ));
    }
    let field = format!("{field}.gateway");
    match gateway {
        Some((gateway, _)) if addresses.contains(&gateway) => Err(invalid(
            field,
            format!("{gateway} is an address of this host itself: give the router's"),
        )),
        Some((gateway, false)) => Err(invalid(
            field,
            format!("{gateway} is in no subnet of the addresses: correct it or the prefix length"),
        )),
        _ => Ok(()),
    }
}

/// Checks an MTU in bytes, if there is one.
pub(super) fn check_mtu(field: &str, mtu: Option<u32>, least: u32) -> Result<(), NetError> {
    match mtu {
        Some(mtu) if !(least..=MAX_MTU).contains(&mtu) => Err(invalid(
            field.to_owned(),
            format!("{mtu} is out of range: use {least} to {MAX_MTU}"),
        )),
        _ => Ok(()),
    }
}

fn invalid(field: String, problem: String) -> NetError {
    NetError::InvalidConfig { field, problem }
}
