//! Links in the kernel.

use super::super::attributes::{Attributes, Body};
use super::super::error::NetError;
use super::super::netlink::Request;
use super::{Kernel, KernelLink, failed};
use crate::seed::MacAddress;

/// `struct ifinfomsg`: family, type, index, flags, mask of the flags to change.
const HEADER: usize = 16;

/// Attributes within `IFLA_LINKINFO`, and for bridges within `IFLA_INFO_DATA` (`linux/if_link.h`).
mod attribute {
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const INFO_DATA: u16 = 2;
    pub(super) const BRIDGE_FORWARD_DELAY: u16 = 1;
    pub(super) const BRIDGE_STP_STATE: u16 = 5;
    pub(super) const BRIDGE_MULTICAST_SNOOPING: u16 = 23;
}

/// Flags of links (`linux/if.h`).
mod flag {
    pub(super) const UP: u32 = 1;
    pub(super) const LOOPBACK: u32 = 1 << 3;
    pub(super) const LOWER_UP: u32 = 1 << 16;
}

/// The least MTU in bytes that the kernel takes for IPv4 (`ETH_MIN_MTU`).
const LEAST_MTU: u32 = 68;

fn header(index: u32, flags: u32, change: u32) -> Body {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    Body::new(&header)
}

/// A request to change a link.
fn set(body: Body) -> Request {
    Request::new(libc::RTM_SETLINK, 0, body)
}

fn set_one(index: u32, attribute: u16, value: impl AsRef<[u8]>) -> Request {
    set(header(index, 0, 0).with(attribute, value))
}

impl Kernel {
    /// All links.
    pub(super) async fn links(&mut self) -> Result<Vec<KernelLink>, NetError> {
        let listed = self.list(libc::RTM_GETLINK, HEADER, "list links").await?;
        Ok(listed.iter().filter_map(|message| parse(message)).collect())
    }

    /// The link with that name now.
    pub(in super::super) async fn find(
        &mut self,
        name: &str,
    ) -> Result<Option<KernelLink>, NetError> {
        let body = header(0, 0, 0).with_text(libc::IFLA_IFNAME, name);
        let request = Request::new(libc::RTM_GETLINK, 0, body);
        match self.netlink.get(&request).await {
            Ok(message) => Ok(parse(&message)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(failed(&format!("look up {name}"), &error)),
        }
    }

    /// Makes a bridge that is down.
    pub(in super::super) async fn create_bridge(
        &mut self,
        name: &str,
        mac: MacAddress,
    ) -> Result<(), NetError> {
        let flags = netlink_packet_core::NLM_F_CREATE | netlink_packet_core::NLM_F_EXCL;
        let request = Request::new(libc::RTM_NEWLINK, flags, new_bridge(name, mac));
        let made = self.try_change(request).await;
        made.map_err(|error| match error.errno() {
            Some(libc::EOPNOTSUPP) => NetError::KindUnsupported { kind: "bridge" },
            Some(libc::EEXIST) => NetError::NameTaken {
                what: "link",
                name: name.to_owned(),
            },
            _ => failed(&format!("create bridge {name}"), &error),
        })
    }

    /// Removes a link; one that is gone already is fine.
    pub(in super::super) async fn delete_link(&mut self, index: u32) -> Result<(), NetError> {
        let request = Request::new(libc::RTM_DELLINK, 0, header(index, 0, 0));
        self.remove(request, &format!("delete link {index}")).await
    }

    /// Switches a link on or off.
    pub(in super::super) async fn set_up(&mut self, index: u32, up: bool) -> Result<(), NetError> {
        let action = if up { "switch on" } else { "switch off" };
        let flags = if up { flag::UP } else { 0 };
        let request = set(header(index, flags, flag::UP));
        self.change(request, &format!("{action} link {index}"))
            .await
    }

    /// Sets the present Ethernet address.
    pub(in super::super) async fn set_mac(
        &mut self,
        index: u32,
        mac: MacAddress,
    ) -> Result<(), NetError> {
        let request = set_one(index, libc::IFLA_ADDRESS, mac.0);
        self.change(request, &format!("set the address of link {index}"))
            .await
    }

    /// Sets the free text of a link.
    pub(in super::super) async fn set_alias(
        &mut self,
        index: u32,
        alias: &str,
    ) -> Result<(), NetError> {
        let request = set_one(index, libc::IFLA_IFALIAS, alias);
        self.change(request, &format!("name link {index}")).await
    }

    /// Sets the MTU in bytes.
    pub(in super::super) async fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetError> {
        let request = set_one(index, libc::IFLA_MTU, mtu.to_ne_bytes());
        self.change(request, &format!("set the MTU of link {index} to {mtu}"))
            .await
    }

    /// Sets the MTU of a bridge, which has `present`, in bytes so that it stays whatever ports come and go.
    pub(in super::super) async fn pin_mtu(
        &mut self,
        index: u32,
        present: u32,
        mtu: u32,
    ) -> Result<(), NetError> {
        if present == mtu {
            // The kernel takes no note of being told what is so already.
            let other = if mtu > LEAST_MTU { mtu - 1 } else { mtu + 1 };
            self.set_mtu(index, other).await?;
        }
        self.set_mtu(index, mtu).await
    }

    /// Makes a link a port of a bridge, or of none.
    pub(in super::super) async fn set_master(
        &mut self,
        index: u32,
        master: Option<u32>,
    ) -> Result<(), NetError> {
        let master = master.unwrap_or(0);
        let request = set_one(index, libc::IFLA_MASTER, master.to_ne_bytes());
        self.change(request, &format!("change the bridge of link {index}"))
            .await
    }
}

fn new_bridge(name: &str, mac: MacAddress) -> Body {
    let data = Body::default()
        // No spanning tree, hence no delay before a new port forwards.
        .with_u32(attribute::BRIDGE_STP_STATE, 0)
        .with_u32(attribute::BRIDGE_FORWARD_DELAY, 0)
        // Without a querier on the network snooping loses groups, IPv6 neighbour discovery among them.
        .with(attribute::BRIDGE_MULTICAST_SNOOPING, [0]);
    let info = Body::default()
        .with_text(attribute::INFO_KIND, "bridge")
        .with_nested(attribute::INFO_DATA, data);
    header(0, 0, 0)
        .with_text(libc::IFLA_IFNAME, name)
        // A bridge given its address keeps it whatever ports come and go.
        .with(libc::IFLA_ADDRESS, mac.0)
        .with_nested(libc::IFLA_LINKINFO, info)
}

fn parse(message: &[u8]) -> Option<KernelLink> {
    let (header, attributes) = message.split_first_chunk::<HEADER>()?;
    let word = |at: usize| {
        let bytes = header[at..].first_chunk();
        bytes.map(|bytes| u32::from_ne_bytes(*bytes))
    };
    let (index, flags) = (word(4)?, word(8)?);
    let attributes = Attributes::new(attributes);
    let mac = |kind| attributes.get(kind).and_then(from_kernel);
    Some(KernelLink {
        index,
        name: attributes.text(libc::IFLA_IFNAME).unwrap_or_default(),
        alias: attributes.text(libc::IFLA_IFALIAS),
        kind: attributes
            .nested(libc::IFLA_LINKINFO)
            .and_then(|info| info.text(attribute::INFO_KIND)),
        address: mac(libc::IFLA_ADDRESS),
        permanent: mac(libc::IFLA_PERM_ADDRESS),
        mtu: attributes.u32(libc::IFLA_MTU).unwrap_or(0),
        max_mtu: attributes.u32(libc::IFLA_MAX_MTU).unwrap_or(0),
        up: flags & flag::UP != 0,
        carrier: flags & flag::LOWER_UP != 0,
        loopback: flags & flag::LOOPBACK != 0,
        master: attributes
            .u32(libc::IFLA_MASTER)
            .filter(|master| *master != 0),
    })
}

/// A link's address as the kernel reports it: `None` unless it is one of a single Ethernet station.
fn from_kernel(bytes: &[u8]) -> Option<MacAddress> {
    let octets: [u8; 6] = bytes.try_into().ok()?;
    (octets != [0; 6] && octets[0] & 1 == 0).then_some(MacAddress(octets))
}
