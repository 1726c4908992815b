//! Addresses and routes of one link: what they shall be, and the way there from what they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::config::{Addressing, HostAddress, Ipv4Config, Ipv6Config};
use super::dhcp4::Lease;
use super::error::NetError;
use super::kernel::{Kernel, KernelAddress, KernelRoute, RouteOrigin, Snapshot};

/// Difference of remaining times in seconds that is left alone: the kernel rounds, and time passes.
const LIFETIME_SLACK: u32 = 3;

/// What a link shall have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    /// Addresses with the seconds they are valid for, [`u32::MAX`] for ever.
    addresses: Vec<(HostAddress, u32)>,
    routes: Vec<KernelRoute>,
    metric: u32,
}

impl Wanted {
    /// No addresses at all.
    pub(super) fn nothing() -> Self {
        Self::default()
    }

    /// Fixed addresses without routes.
    pub(super) fn addresses(addresses: &[HostAddress], metric: u32) -> Self {
        Self {
            addresses: addresses
                .iter()
                .map(|address| (*address, u32::MAX))
                .collect(),
            routes: Vec::new(),
            metric,
        }
    }

    /// What the configuration and a lease, if there is one, add up to at `now`, since boot.
    pub(super) fn new(
        config: &Addressing,
        lease: Option<&Lease>,
        index: u32,
        metric: u32,
        now: Duration,
    ) -> Self {
        let mut wanted = Self {
            metric,
            ..Self::default()
        };
        match (&config.ipv4, lease) {
            (Ipv4Config::Static { addresses, gateway }, _) => {
                wanted.addresses.extend(
                    addresses
                        .iter()
                        .map(|address| ((*address).into(), u32::MAX)),
                );
                let source = addresses.first().map(|address| address.address.into());
                wanted.routes.extend(
                    gateway.map(|gateway| default_route(gateway.into(), source, index, metric)),
                );
            }
            (Ipv4Config::Dhcp, Some(lease)) if lease.is_valid(now) => {
                wanted.add_lease(lease, index, now);
            }
            _ => {}
        }
        if let Ipv6Config::Static { addresses, gateway } = &config.ipv6 {
            wanted.addresses.extend(
                addresses
                    .iter()
                    .map(|address| ((*address).into(), u32::MAX)),
            );
            wanted
                .routes
                .extend(gateway.map(|gateway| default_route(gateway.into(), None, index, metric)));
        }
        wanted
    }

    fn add_lease(&mut self, lease: &Lease, index: u32, now: Duration) {
        let Ok(address) = HostAddress::new(lease.address.into(), lease.prefix_len) else {
            return;
        };
        let remaining = lease
            .expires()
            .map(|end| end.saturating_sub(now).as_secs() + 1);
        let valid_for = remaining.map_or(u32::MAX, |seconds| {
            u32::try_from(seconds).unwrap_or(u32::MAX - 1)
        });
        self.addresses.push((address, valid_for));
        let subnet = |ip: Ipv4Addr| {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(lease.prefix_len))
                .unwrap_or(0);
            ip.to_bits() & mask == lease.address.to_bits() & mask
        };
        for route in &lease.routes {
            // Some clouds hand out a /32 and a router outside it.
            let on_link = route.gateway.is_some_and(|gateway| !subnet(gateway));
            self.routes.push(KernelRoute {
                index,
                destination: route.destination.into(),
                prefix_len: route.prefix_len,
                gateway: route.gateway.map(IpAddr::from),
                source: Some(lease.address.into()),
                metric: self.metric,
                origin: RouteOrigin::Dhcp,
                on_link,
            });
        }
    }

    /// Addresses to take away from a link.
    fn surplus_addresses(&self, now: &[&KernelAddress]) -> Vec<HostAddress> {
        let wanted =
            |address: HostAddress| self.addresses.iter().any(|(wanted, _)| *wanted == address);
        let ours = |address: &KernelAddress| match address.address.address() {
            IpAddr::V4(_) => true,
            // The others are the kernel's: link-local, or from router advertisements.
            IpAddr::V6(_) => address.permanent && !address.link_local,
        };
        now.iter()
            .filter(|address| ours(address) && !wanted(address.address))
            .map(|address| address.address)
            .collect()
    }

    /// Addresses to add or to give another lifetime.
    fn missing_addresses(&self, now: &[&KernelAddress]) -> Vec<(HostAddress, u32)> {
        let good = |address: HostAddress, valid_for: u32| {
            now.iter().any(|current| {
                current.address == address
                    && current.metric == self.metric
                    && (current.valid_for == valid_for
                        || (current.valid_for != u32::MAX
                            && valid_for != u32::MAX
                            && current.valid_for.abs_diff(valid_for) <= LIFETIME_SLACK))
            })
        };
        self.addresses
            .iter()
            .filter(|(address, valid_for)| !good(*address, *valid_for))
            .copied()
            .collect()
    }
}

/// A default route of the configuration.
fn default_route(gateway: IpAddr, source: Option<IpAddr>, index: u32, metric: u32) -> KernelRoute {
    let destination = if gateway.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    KernelRoute {
        index,
        destination,
        prefix_len: 0,
        gateway: Some(gateway),
        source,
        metric,
        origin: RouteOrigin::Static,
        on_link: false,
    }
}

/// Brings a link to what is wanted, changing only what differs. `true` if anything was changed.
pub(super) async fn apply(
    kernel: &mut Kernel,
    snapshot: &Snapshot,
    index: u32,
    wanted: &Wanted,
) -> Result<bool, NetError> {
    let current: Vec<_> = snapshot
        .addresses
        .iter()
        .filter(|address| address.index == index)
        .collect();
    let surplus = wanted.surplus_addresses(&current);
    let missing = wanted.missing_addresses(&current);
    for address in &surplus {
        kernel.remove_address(index, *address).await?;
    }
    for (address, valid_for) in &missing {
        kernel
            .set_address(index, *address, *valid_for, wanted.metric)
            .await?;
    }
    let mut changed = !surplus.is_empty() || !missing.is_empty();
    // Routes go when the address they hang on goes: look again.
    let fresh = if changed {
        Some(kernel.snapshot().await?)
    } else {
        None
    };
    let routes = &fresh.as_ref().unwrap_or(snapshot).routes;
    let ours: Vec<_> = routes
        .iter()
        .filter(|route| route.index == index && route.origin != RouteOrigin::Other)
        .collect();
    for route in ours.iter().filter(|route| !wanted.routes.contains(route)) {
        changed = true;
        kernel.remove_route(route).await?;
    }
    // Routes on the link first: routers of others may be behind them.
    let mut missing: Vec<_> = wanted
        .routes
        .iter()
        .filter(|route| !ours.contains(route))
        .collect();
    missing.sort_by_key(|route| route.gateway.is_some());
    for route in missing {
        changed = true;
        kernel.set_route(route).await?;
    }
    Ok(changed)
}
