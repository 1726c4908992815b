//! From what is to what shall be: one pass over bridges, links and addresses.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::addressing::{self, Wanted};
use super::config::{Addressing, DEFAULT_NETWORK, Ipv4Config, Ipv6Config, Uplink};
use super::dhcp4::{Client, ClientSettings, boot_time};
use super::error::NetError;
use super::guard;
use super::kernel::{KernelLink, Snapshot};
use super::state::Dhcp4Phase;
use super::sysctl::{self, Ipv6Mode};
use super::tap::TAP_PREFIX;
use super::uplink::{self, Candidate};
use super::worker::{ClientSlot, Network, Worker};
use crate::seed::MacAddress;

/// Time that links get to find their signal before one without is chosen as an uplink. Negotiation on copper
/// takes two to four seconds.
const PATIENCE: Duration = Duration::from_secs(6);
/// Metric of the routes of the first link; each further one gets [`METRIC_STEP`] more.
const FIRST_METRIC: u32 = 100;
const METRIC_STEP: u32 = 10;

/// How a pass went.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Whether something could not be done and has to be tried again.
    pub(super) failed: bool,
    /// When to look again although nothing changed.
    pub(super) next: Option<Duration>,
}

/// A link that addresses live on, with what it shall have.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Index of the link or bridge.
    pub(super) index: u32,
    pub(super) name: String,
    /// The Ethernet link behind it.
    pub(super) mac: Option<MacAddress>,
    pub(super) addressing: Addressing,
    /// Fixed addresses of an isolated network.
    pub(super) addresses: Vec<super::config::HostAddress>,
    pub(super) metric: u32,
}

impl Worker {
    /// One pass. What cannot be done becomes a warning, and everything else is done all the same.
    pub(super) async fn reconcile(&mut self) -> Outcome {
        self.warnings.clear();
        let mut outcome = Outcome::default();
        if let Err(error) = self.pass(&mut outcome).await {
            self.fail("host", &error, &mut outcome);
        }
        outcome
    }

    async fn pass(&mut self, outcome: &mut Outcome) -> Result<(), NetError> {
        let snapshot = self.kernel.snapshot().await?;
        if snapshot
            .links
            .iter()
            .any(|link| link.name.starts_with(TAP_PREFIX))
        {
            self.ensure_guard().await;
        }
        if let Some(Err(error)) = self.guard.clone() {
            let message = format!("guests can change the host's IPv6 routes: {error}");
            self.warn("host", message, &error.hint());
        }
        outcome.next = self.choose_uplinks(&snapshot);
        for name in self.networks.keys().cloned().collect::<Vec<_>>() {
            if let Err(error) = self.ensure_network(&name, &snapshot).await {
                self.fail(&name, &error, outcome);
            }
        }
        let snapshot = self.kernel.snapshot().await?;
        if self.config.manage_links {
            for (mac, link) in self.ethernet(&snapshot) {
                if let Err(error) = self.ensure_link(mac, &link, &snapshot).await {
                    self.fail(&mac.to_string(), &error, outcome);
                }
            }
        }
        let snapshot = self.kernel.snapshot().await?;
        let targets = self.targets(&snapshot);
        self.sync_clients(&targets, &snapshot);
        let mut changed = false;
        for target in &targets {
            match self.ensure_addresses(target, &snapshot).await {
                Ok(new) => changed |= new,
                Err(error) => self.fail(&target.name, &error, outcome),
            }
        }
        let snapshot = if changed {
            self.kernel.snapshot().await?
        } else {
            snapshot
        };
        self.find_problems(&snapshot, outcome);
        self.publish(&snapshot, &targets);
        Ok(())
    }

    /// Once, with the first guest: loading the packet filter takes time that a booting host has better use for. A
    /// kernel that cannot do it will not learn it.
    pub(super) async fn ensure_guard(&mut self) {
        if self.guard.is_none() {
            self.guard = Some(guard::install().await);
        }
    }

    /// Ethernet links in order of index, without wireless ones, which cannot be ports of a bridge.
    pub(super) fn ethernet(&self, snapshot: &Snapshot) -> Vec<(MacAddress, KernelLink)> {
        let wireless = |link: &KernelLink| {
            std::path::Path::new("/sys/class/net")
                .join(&link.name)
                .join("phy80211")
                .exists()
        };
        let links = snapshot
            .ethernet()
            .into_iter()
            .filter(|(_, link)| !wireless(link));
        links.map(|(mac, link)| (mac, link.clone())).collect()
    }

    /// Chooses the uplinks, and says when to choose again.
    pub(super) fn choose_uplinks(&mut self, snapshot: &Snapshot) -> Option<Duration> {
        let links = self.ethernet(snapshot);
        if links.is_empty() {
            self.choosing_since = None;
        }
        let since = if links.is_empty() {
            Instant::now()
        } else {
            *self.choosing_since.get_or_insert_with(Instant::now)
        };
        let bridge_name = |index| {
            snapshot
                .indexed(index)
                .filter(|master| master.is_bridge())
                .map(|master| master.name.as_str())
        };
        let candidates: Vec<_> = links
            .iter()
            .map(|(mac, link)| Candidate {
                mac: *mac,
                carrier: link.carrier,
                configured: self.config.links.iter().any(|config| config.mac == *mac),
                bridge: link.master.and_then(bridge_name),
            })
            .collect();
        // Automatic choice is for links that are ours.
        let choosable =
            |network: &&Network| self.config.manage_links || network.spec.uplink != Uplink::Auto;
        let mut networks: Vec<_> = self.networks.values().filter(choosable).collect();
        networks.sort_by_key(|network| network.spec.name != DEFAULT_NETWORK);
        let pairs = networks
            .into_iter()
            .map(|network| (&network.spec, network.bridge.as_str()));
        let choice = uplink::choose(pairs, &candidates, since.elapsed() < PATIENCE);
        for (network, mac) in choice
            .uplinks
            .iter()
            .filter(|(network, mac)| self.uplinks.get(*network) != Some(mac))
        {
            info!(%network, %mac, "uplink chosen");
        }
        self.uplinks = choice.uplinks;
        choice
            .waiting
            .then(|| PATIENCE.saturating_sub(since.elapsed()) + Duration::from_millis(10))
    }

    /// How a link is addressed, if by us.
    pub(super) fn addressing_of(&self, mac: MacAddress) -> Option<&Addressing> {
        let own = self
            .config
            .links
            .iter()
            .find(|link| link.mac == mac)
            .map(|link| &link.addressing);
        own.or_else(|| {
            self.config
                .manage_links
                .then_some(&self.config.default_link)
        })
    }

    /// Everything that gets addresses from us, most preferred first.
    fn targets(&self, snapshot: &Snapshot) -> Vec<Target> {
        let mut targets = Vec::new();
        let mut links = self.ethernet(snapshot);
        let main = self.uplinks.get(DEFAULT_NETWORK).copied();
        links.sort_by_key(|(mac, link)| (Some(*mac) != main, link.index));
        let metric =
            |position: usize| FIRST_METRIC + METRIC_STEP * u32::try_from(position).unwrap_or(1000);
        let mut served = Vec::new();
        for (mac, link) in &links {
            let Some(addressing) = self.addressing_of(*mac) else {
                continue;
            };
            let master = link.master.and_then(|master| snapshot.indexed(master));
            let network = self
                .networks
                .values()
                .find(|network| self.uplinks.get(&network.spec.name) == Some(mac));
            let carrier = match (network, master) {
                (Some(network), Some(master)) if master.name == network.bridge => master,
                (None, None) => link,
                // The bridge cannot be made: better a host without guests' network than one without any.
                (Some(network), None) if snapshot.named(&network.bridge).is_none() => link,
                // A port of something else, or not yet of our bridge.
                _ => continue,
            };
            served.push(carrier.index);
            targets.push(Target {
                index: carrier.index,
                name: carrier.name.clone(),
                mac: Some(*mac),
                addressing: addressing.clone(),
                addresses: Vec::new(),
                metric: metric(targets.len()),
            });
        }
        for network in self.networks.values() {
            let Some(bridge) = snapshot
                .named(&network.bridge)
                .filter(|link| link.is_bridge())
            else {
                continue;
            };
            if served.contains(&bridge.index) {
                continue;
            }
            let ipv6 = network
                .spec
                .addresses
                .iter()
                .any(|address| address.address().is_ipv6());
            let ipv6 = if ipv6 {
                Ipv6Config::LinkLocal
            } else {
                Ipv6Config::Disabled
            };
            targets.push(Target {
                index: bridge.index,
                name: bridge.name.clone(),
                mac: None,
                addressing: Addressing {
                    ipv4: Ipv4Config::Disabled,
                    ipv6,
                    ..Addressing::default()
                },
                addresses: network.spec.addresses.clone(),
                metric: metric(targets.len()),
            });
        }
        targets
    }

    fn sync_clients(&mut self, targets: &[Target], snapshot: &Snapshot) {
        let links = self.ethernet(snapshot);
        let wanted = |mac: &MacAddress| {
            targets.iter().any(|target| {
                target.mac == Some(*mac) && target.addressing.ipv4 == Ipv4Config::Dhcp
            })
        };
        self.clients.retain(|mac, _| wanted(mac));
        for (mac, link) in links.iter().filter(|(mac, _)| wanted(mac)) {
            let current_mac = link.address.unwrap_or(*mac);
            if self
                .clients
                .get(mac)
                .is_none_or(|slot| !slot.client.fits(link.index, current_mac))
            {
                let earlier = self.clients.remove(mac).map(|slot| slot.lease);
                let lease = earlier
                    .unwrap_or_else(|| self.leases.load(*mac))
                    .filter(|lease| lease.is_valid(boot_time()));
                let info = lease.as_ref().and_then(super::publish::lease_info);
                let hostname = self.config.hostname.clone();
                let settings = ClientSettings {
                    mac: *mac,
                    current_mac,
                    index: link.index,
                    hostname,
                    lease: lease.clone(),
                };
                self.next_client += 1;
                let client = Client::start(settings, self.next_client, self.events.clone());
                let slot = ClientSlot {
                    client,
                    phase: Dhcp4Phase::NoCarrier,
                    lease,
                    info,
                    searching_since: None,
                };
                self.clients.insert(*mac, slot);
            }
            if let Some(slot) = self.clients.get(mac) {
                slot.client.set_carrier(link.up && link.carrier);
            }
        }
    }

    async fn ensure_addresses(
        &mut self,
        target: &Target,
        snapshot: &Snapshot,
    ) -> Result<bool, NetError> {
        sysctl::set_ipv4(&target.name)?;
        sysctl::set_ipv6(
            &target.name,
            Ipv6Mode::of(&target.addressing.ipv6, target.metric),
        )?;
        let wanted = if target.mac.is_none() {
            Wanted::addresses(&target.addresses, target.metric)
        } else {
            let lease = target
                .mac
                .and_then(|mac| self.clients.get(&mac))
                .and_then(|slot| slot.lease.as_ref());
            Wanted::new(
                &target.addressing,
                lease,
                target.index,
                target.metric,
                boot_time(),
            )
        };
        addressing::apply(&mut self.kernel, snapshot, target.index, &wanted).await
    }
}
