//! Routes in the kernel's main table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};

use super::super::attributes::{Attributes, Body};
use super::super::error::NetError;
use super::super::netlink::Request;
use super::{INET, INET6, Kernel, KernelRoute, RouteOrigin, family, ip, octets};

/// `struct rtmsg`: family, lengths of the prefixes, type of service, table, protocol, scope, type, flags.
const HEADER: usize = 12;

/// The router need not be in a subnet of ours (`RTNH_F_ONLINK`).
const ON_LINK: u32 = 4;

/// Routes from leases (`linux/rtnetlink.h`).
const RTPROT_DHCP: u8 = 16;

fn body(route: &KernelRoute) -> Body {
    let mut header = [0; HEADER];
    header[0] = family(route.destination);
    header[1] = route.prefix_len;
    header[4] = libc::RT_TABLE_MAIN;
    header[5] = match route.origin {
        RouteOrigin::Dhcp => RTPROT_DHCP,
        RouteOrigin::Static | RouteOrigin::Other => libc::RTPROT_STATIC,
    };
    header[6] = match route.gateway {
        None if route.destination.is_ipv4() => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    header[7] = libc::RTN_UNICAST;
    let flags = if route.on_link { ON_LINK } else { 0 };
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    let mut body = Body::new(&header)
        .with_u32(libc::RTA_OIF, route.index)
        .with_u32(libc::RTA_PRIORITY, route.metric);
    if route.prefix_len > 0 {
        body = body.with(libc::RTA_DST, octets(route.destination));
    }
    if let Some(source) = route.source {
        body = body.with(libc::RTA_PREFSRC, octets(source));
    }
    match route.gateway {
        None => body,
        Some(gateway) if gateway.is_ipv4() == route.destination.is_ipv4() => {
            body.with(libc::RTA_GATEWAY, octets(gateway))
        }
        // struct rtvia: the family of a router that speaks another one, and its address.
        Some(gateway) => {
            let family = u16::from(family(gateway)).to_ne_bytes();
            body.with(libc::RTA_VIA, [&family[..], &octets(gateway)].concat())
        }
    }
}

impl Kernel {
    /// Routes of the main table.
    pub(super) async fn routes(&mut self) -> Result<Vec<KernelRoute>, NetError> {
        let listed = self.list(libc::RTM_GETROUTE, HEADER, "list routes").await?;
        Ok(listed.iter().filter_map(|message| parse(message)).collect())
    }

    /// Adds a route, or replaces the one with the same destination and metric.
    pub(in super::super) async fn set_route(
        &mut self,
        route: &KernelRoute,
    ) -> Result<(), NetError> {
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        let request = Request::new(libc::RTM_NEWROUTE, flags, body(route));
        let (to, length) = (route.destination, route.prefix_len);
        self.change(request, &format!("set the route to {to}/{length}"))
            .await
    }

    /// Removes a route; one that is gone already is fine.
    pub(in super::super) async fn remove_route(
        &mut self,
        route: &KernelRoute,
    ) -> Result<(), NetError> {
        let request = Request::new(libc::RTM_DELROUTE, 0, body(route));
        let (to, length) = (route.destination, route.prefix_len);
        self.remove(request, &format!("remove the route to {to}/{length}"))
            .await
    }
}

fn parse(message: &[u8]) -> Option<KernelRoute> {
    let (header, attributes) = message.split_first_chunk::<HEADER>()?;
    let [
        family,
        prefix_len,
        _,
        _,
        table,
        protocol,
        _,
        kind,
        flags @ ..,
    ] = *header;
    let attributes = Attributes::new(attributes);
    let table = attributes
        .u32(libc::RTA_TABLE)
        .unwrap_or_else(|| u32::from(table));
    if table != u32::from(libc::RT_TABLE_MAIN) || kind != libc::RTN_UNICAST {
        return None;
    }
    let unspecified: IpAddr = match family {
        INET => Ipv4Addr::UNSPECIFIED.into(),
        INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let address = |kind| attributes.get(kind).and_then(ip);
    Some(KernelRoute {
        index: attributes.u32(libc::RTA_OIF)?,
        destination: address(libc::RTA_DST).unwrap_or(unspecified),
        prefix_len,
        gateway: address(libc::RTA_GATEWAY)
            .or_else(|| ip(attributes.get(libc::RTA_VIA)?.get(2..)?)),
        source: address(libc::RTA_PREFSRC),
        metric: attributes.u32(libc::RTA_PRIORITY).unwrap_or(0),
        origin: match protocol {
            RTPROT_DHCP => RouteOrigin::Dhcp,
            libc::RTPROT_STATIC => RouteOrigin::Static,
            _ => RouteOrigin::Other,
        },
        on_link: u32::from_ne_bytes(flags) & ON_LINK != 0,
    })
}
