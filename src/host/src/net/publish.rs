//! Makes the published state from what the kernel has.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::bridge::taps_of;
use super::config::HostAddress;
use super::dhcp4::{Lease, boot_time};
use super::ethtool;
use super::kernel::{KernelLink, Snapshot};
use super::reconcile::Target;
use super::state::{
    AddressInfo, Dhcp4State, DnsConfig, IpState, LeaseInfo, LinkState, NetworkInfo, NetworkState,
};
use super::worker::Worker;
use crate::seed::MacAddress;

/// A lease with times that people can read.
pub(super) fn lease_info(lease: &Lease) -> Option<LeaseInfo> {
    let age = SignedDuration::try_from(boot_time().saturating_sub(lease.obtained)).ok()?;
    let obtained_at = Timestamp::now().checked_sub(age).ok()?;
    let duration = lease
        .duration
        .and_then(|duration| SignedDuration::try_from(duration).ok());
    Some(LeaseInfo {
        address: HostAddress::new(lease.address.into(), lease.prefix_len).ok()?,
        server: lease.server,
        obtained_at,
        expires_at: duration.and_then(|duration| obtained_at.checked_add(duration).ok()),
    })
}

impl Worker {
    /// Publishes the state, and the resolver configuration, if they changed.
    pub(super) fn publish(&mut self, snapshot: &Snapshot, targets: &[Target]) {
        let dns = self.dns_config(targets);
        if let Some(path) = self.config.resolv_conf.clone()
            && let Err(error) = dns.write(&path)
        {
            self.warn("host", error.to_string(), &error.hint());
        }
        let leases = targets
            .iter()
            .filter_map(|target| self.clients.get(&target.mac?)?.lease.as_ref());
        let mut ntp_servers: Vec<_> = leases
            .clone()
            .flat_map(|lease| lease.ntp.iter().copied())
            .collect();
        ntp_servers.dedup();
        let state = NetworkState {
            links: self.link_states(snapshot),
            networks: self.network_infos(snapshot),
            dns: dns.clone(),
            hostname_hint: leases.clone().find_map(|lease| lease.hostname.clone()),
            ntp_servers,
            warnings: self.warnings.clone(),
        };
        self.dns
            .send_if_modified(|current| replace_if_new(current, dns));
        self.state
            .send_if_modified(|current| replace_if_new(current, state));
    }

    fn dns_config(&self, targets: &[Target]) -> DnsConfig {
        let mut dns = DnsConfig::default();
        for target in targets {
            let lease = target
                .mac
                .and_then(|mac| self.clients.get(&mac))
                .and_then(|slot| slot.lease.as_ref());
            let leased = lease
                .map_or(&[][..], |lease| &lease.dns)
                .iter()
                .map(|server| IpAddr::V4(*server));
            target
                .addressing
                .dns
                .iter()
                .copied()
                .chain(leased)
                .for_each(|server| dns.add_server(server));
            let leased = lease.map_or(&[][..], |lease| &lease.search);
            target
                .addressing
                .search
                .iter()
                .chain(leased)
                .for_each(|domain| dns.add_search(domain));
        }
        dns
    }

    fn link_states(&self, snapshot: &Snapshot) -> Vec<LinkState> {
        let network_of = |mac| {
            self.uplinks
                .iter()
                .find(|(_, uplink)| **uplink == mac)
                .map(|(network, _)| network.clone())
        };
        let links = self.ethernet(snapshot).into_iter();
        let states = links.map(|(mac, link)| {
            let network = network_of(mac);
            LinkState {
                mac,
                driver: ethtool::driver(&link.name),
                speed_mbps: link
                    .carrier
                    .then(|| ethtool::speed_mbps(&link.name))
                    .flatten(),
                index: link.index,
                carrier: link.up && link.carrier,
                up: link.up,
                mtu: link.mtu,
                managed: self.addressing_of(mac).is_some() || network.is_some(),
                ip: self.ip_state(snapshot, link.index, network.is_none().then_some(mac)),
                network,
                name: link.name,
            }
        });
        states.collect()
    }

    fn network_infos(&self, snapshot: &Snapshot) -> Vec<NetworkInfo> {
        let ethernet = snapshot.ethernet();
        let infos = self.networks.values().map(|network| {
            let bridge = snapshot
                .named(&network.bridge)
                .filter(|link| link.is_bridge());
            let uplink = self.uplinks.get(&network.spec.name).copied();
            let link: Option<&KernelLink> = ethernet
                .iter()
                .find(|(mac, _)| Some(*mac) == uplink)
                .map(|(_, link)| *link);
            let index = bridge.map_or(0, |bridge| bridge.index);
            NetworkInfo {
                name: network.spec.name.clone(),
                bridge: network.bridge.clone(),
                index,
                mac: bridge.and_then(|bridge| bridge.address),
                uplink_spec: network.spec.uplink,
                uplink: link.and(uplink),
                carrier: link.is_some_and(|link| link.up && link.carrier),
                mtu: bridge.map_or(0, |bridge| bridge.mtu),
                taps: bridge
                    .map(|bridge| taps_of(snapshot, bridge.index))
                    .unwrap_or_default(),
                ip: self.ip_state(snapshot, index, uplink),
            }
        });
        infos.collect()
    }

    fn ip_state(&self, snapshot: &Snapshot, index: u32, mac: Option<MacAddress>) -> IpState {
        let addresses = snapshot
            .addresses
            .iter()
            .filter(|address| address.index == index);
        let gateway = |ipv4: bool| {
            let routes = snapshot
                .routes
                .iter()
                .filter(|route| route.index == index && route.is_default());
            let routes = routes.filter(|route| route.destination.is_ipv4() == ipv4);
            routes
                .min_by_key(|route| route.metric)
                .and_then(|route| route.gateway)
        };
        let slot = mac.and_then(|mac| self.clients.get(&mac));
        IpState {
            addresses: addresses
                .map(|address| AddressInfo {
                    address: address.address,
                    tentative: address.tentative,
                    duplicate: address.duplicate,
                    dynamic: !address.permanent,
                })
                .collect(),
            gateway4: gateway(true).and_then(|gateway| {
                if let IpAddr::V4(gateway) = gateway {
                    Some(gateway)
                } else {
                    None
                }
            }),
            gateway6: gateway(false).and_then(|gateway| {
                if let IpAddr::V6(gateway) = gateway {
                    Some(gateway)
                } else {
                    None
                }
            }),
            dhcp4: slot.map(|slot| Dhcp4State {
                phase: slot.phase,
                lease: slot.info.clone(),
            }),
        }
    }
}

/// `true` if the value was another one.
fn replace_if_new<T: PartialEq>(current: &mut T, new: T) -> bool {
    let changed = *current != new;
    if changed {
        *current = new;
    }
    changed
}
