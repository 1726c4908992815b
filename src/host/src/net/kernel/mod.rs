//! The kernel's side of the network: what is there, and how to change it. All names of things are kernel indices.

mod addresses;
mod links;
mod routes;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;

use super::attributes::Body;
use super::config::HostAddress;
use super::error::NetError;
use super::netlink::{Netlink, NetlinkError, Request};
use crate::seed::MacAddress;

/// Groups whose announcements tell of changes of links, addresses and routes (`linux/rtnetlink.h`).
const GROUPS: [u32; 5] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// Address families, which fit the byte that headers have for them.
const INET: u8 = 2;
const INET6: u8 = 10;

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

/// A connection to the kernel.
pub(super) struct Kernel {
    netlink: Netlink,
}

impl Kernel {
    /// Connects to the kernel, in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, NetError> {
        let netlink = open().map_err(|error| failed("open a netlink socket", &error))?;
        Ok(Self { netlink })
    }

    /// Reads everything.
    pub(super) async fn snapshot(&mut self) -> Result<Snapshot, NetError> {
        Ok(Snapshot {
            links: self.links().await?,
            addresses: self.addresses().await?,
            routes: self.routes().await?,
        })
    }

    /// Has something changed. `action` is for the error.
    pub(super) async fn change(&mut self, request: Request, action: &str) -> Result<(), NetError> {
        let done = self.netlink.change(&request).await;
        done.map_err(|error| failed(action, &error))
    }

    /// Has something changed whose errors mean something.
    pub(super) async fn try_change(&mut self, request: Request) -> Result<(), NetlinkError> {
        self.netlink.change(&request).await
    }

    /// Has something removed; that it is gone already is fine.
    async fn remove(&mut self, request: Request, action: &str) -> Result<(), NetError> {
        let done = gone_is_fine(self.netlink.change(&request).await);
        done.map_err(|error| failed(action, &error))
    }

    /// Reads all things that there are, asking with a header that is all zero.
    async fn list(
        &mut self,
        kind: u16,
        header: usize,
        action: &str,
    ) -> Result<Vec<Vec<u8>>, NetError> {
        let request = Request::new(kind, 0, Body::new(&vec![0; header]));
        let listed = self.netlink.list(&request).await;
        listed.map_err(|error| failed(action, &error))
    }
}

fn open() -> Result<Netlink, NetlinkError> {
    Netlink::open(netlink_sys::protocols::NETLINK_ROUTE)
}

/// Calls `changed` after every change of links, addresses and routes, until something breaks.
///
/// What changed is not said: whoever listens looks again. A lost message is a change too.
pub(super) async fn monitor(changed: impl Fn() + Send) -> NetError {
    let Err(error) = follow(changed).await;
    failed("follow changes of the network", &error)
}

async fn follow(changed: impl Fn() + Send) -> Result<Infallible, NetlinkError> {
    let netlink = open()?;
    for group in GROUPS {
        netlink.join(group)?;
    }
    // Changes before that went unnoticed.
    changed();
    loop {
        match netlink.announced().await {
            Err(error) if error.errno() != Some(libc::ENOBUFS) => return Err(error),
            _ => changed(),
        }
    }
}

/// The IP address in an attribute.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// An IP address as attributes hold it.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `AF_INET` or `AF_INET6`, as headers hold it.
fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => INET,
        IpAddr::V6(_) => INET6,
    }
}

pub(super) fn gone_is_fine(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    const GONE: [i32; 4] = [libc::ENOENT, libc::ENODEV, libc::ESRCH, libc::EADDRNOTAVAIL];
    done.or_else(|error| match error.errno() {
        Some(errno) if GONE.contains(&errno) => Ok(()),
        _ => Err(error),
    })
}

/// What the kernel answered, as an error of ours.
pub(super) fn failed(action: &str, error: &NetlinkError) -> NetError {
    let action = action.to_owned();
    match error.errno() {
        Some(libc::EPERM | libc::EACCES) => NetError::Permission { action },
        errno => NetError::Kernel {
            action,
            problem: error.to_string(),
            errno,
        },
    }
}
