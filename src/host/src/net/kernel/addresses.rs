//! Addresses of this host in the kernel.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};

use super::super::attributes::{Attributes, Body};
use super::super::config::HostAddress;
use super::super::error::NetError;
use super::super::netlink::Request;
use super::{Kernel, KernelAddress, family, ip, octets};

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index of the link.
const HEADER: usize = 8;

/// Metric of the route to an address's subnet (`linux/if_addr.h`).
const IFA_RT_PRIORITY: u16 = 9;

fn body(index: u32, address: HostAddress) -> Body {
    let mut header = [0; HEADER];
    header[0] = family(address.address());
    header[1] = address.prefix_len();
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let octets = octets(address.address());
    Body::new(&header)
        .with(libc::IFA_LOCAL, &octets)
        .with(libc::IFA_ADDRESS, &octets)
}

impl Kernel {
    /// All addresses.
    pub(super) async fn addresses(&mut self) -> Result<Vec<KernelAddress>, NetError> {
        let listed = self
            .list(libc::RTM_GETADDR, HEADER, "list addresses")
            .await?;
        Ok(listed.iter().filter_map(|message| parse(message)).collect())
    }

    /// Adds an address, or changes its remaining time. `valid_for` in seconds, [`u32::MAX`] for ever.
    pub(in super::super) async fn set_address(
        &mut self,
        index: u32,
        address: HostAddress,
        valid_for: u32,
        metric: u32,
    ) -> Result<(), NetError> {
        // struct ifa_cacheinfo: preferred and valid time; when it was made and changed is for the kernel to say.
        let times = [valid_for, valid_for, 0, 0].map(u32::to_ne_bytes).concat();
        let mut body = body(index, address)
            .with(libc::IFA_CACHEINFO, times)
            .with_u32(IFA_RT_PRIORITY, metric);
        if let IpAddr::V4(ip) = address.address()
            && address.prefix_len() < 31
        {
            let hosts = u32::MAX
                .checked_shr(u32::from(address.prefix_len()))
                .unwrap_or(0);
            body = body.with(libc::IFA_BROADCAST, (ip.to_bits() | hosts).to_be_bytes());
        }
        let request = Request::new(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body);
        self.change(request, &format!("set address {address} on link {index}"))
            .await
    }

    /// Removes an address; one that is gone already is fine.
    pub(in super::super) async fn remove_address(
        &mut self,
        index: u32,
        address: HostAddress,
    ) -> Result<(), NetError> {
        let request = Request::new(libc::RTM_DELADDR, 0, body(index, address));
        self.remove(
            request,
            &format!("remove address {address} from link {index}"),
        )
        .await
    }
}

fn parse(message: &[u8]) -> Option<KernelAddress> {
    let (header, attributes) = message.split_first_chunk::<HEADER>()?;
    let [_, prefix_len, flags, _, index @ ..] = *header;
    let attributes = Attributes::new(attributes);
    // Where there is a peer, IFA_ADDRESS is the peer's.
    let address = attributes
        .get(libc::IFA_LOCAL)
        .or_else(|| attributes.get(libc::IFA_ADDRESS))
        .and_then(ip)?;
    let flags = attributes
        .u32(libc::IFA_FLAGS)
        .unwrap_or_else(|| u32::from(flags));
    let has = |flag: u32| flags & flag != 0;
    Some(KernelAddress {
        index: u32::from_ne_bytes(index),
        address: HostAddress::new(address, prefix_len).ok()?,
        link_local: match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        },
        tentative: has(libc::IFA_F_TENTATIVE),
        duplicate: has(libc::IFA_F_DADFAILED),
        permanent: has(libc::IFA_F_PERMANENT),
        valid_for: attributes
            .get(libc::IFA_CACHEINFO)
            .and_then(|times| times.get(4..8)?.first_chunk())
            .map_or(u32::MAX, |valid| u32::from_ne_bytes(*valid)),
        metric: attributes.u32(IFA_RT_PRIORITY).unwrap_or(0),
    })
}
