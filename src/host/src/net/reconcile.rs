//! From what is to what shall be: one pass over bridges, links and addresses.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::addressing::{self, Wanted};
use super::config::{Addressing, DEFAULT_NETWORK, Ipv4Config, Ipv6Config, Uplink};
use super::dhcp4::{Client, ClientSettings, boot_time};
use super::error::NetError;
use super::kernel::{KernelLink, Snapshot};
use super::state::{Dhcp4Phase, NetWarning};
use super::sysctl::{self, Ipv6Mode};
use super::tap::{self, TAP_PREFIX, Tap};
use super::uplink::{self, Candidate};
use super::worker::{ClientSlot, Network, Worker};
use crate::seed::MacAddress;

/// Time that links get to find their signal before one without is chosen as an uplink. Negotiation on copper
/// takes two to four seconds.
const PATIENCE: Duration = Duration::from_secs(6);
/// Time without a DHCP server after which people are told.
const SEARCH_LIMIT: Duration = Duration::from_secs(10);
/// Metric of the routes of the first link; each further one gets [`METRIC_STEP`] more.
const FIRST_METRIC: u32 = 100;
const METRIC_STEP: u32 = 10;
const DEFAULT_MTU: u32 = 1500;

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

/// Names of the guests' taps on a bridge.
pub(super) fn taps_of(snapshot: &Snapshot, bridge: u32) -> Vec<String> {
    let taps = snapshot
        .links
        .iter()
        .filter(|link| link.master == Some(bridge) && link.name.starts_with(TAP_PREFIX));
    taps.map(|link| link.name.clone()).collect()
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

    fn choose_uplinks(&mut self, snapshot: &Snapshot) -> Option<Duration> {
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

    /// Makes one network, for a caller who wants to know whether it worked.
    pub(super) async fn try_network(&mut self, name: &str) -> Result<(), NetError> {
        let snapshot = self.kernel.snapshot().await?;
        if let Some(network) = self.networks.get(name)
            && let Uplink::Mac(mac) = network.spec.uplink
            && let Some(other) = self
                .uplinks
                .iter()
                .find(|(other, taken)| **taken == mac && *other != name)
        {
            return Err(NetError::UplinkTaken {
                mac,
                network: other.0.clone(),
            });
        }
        self.choose_uplinks(&snapshot);
        self.ensure_network(name, &snapshot).await
    }

    /// Brings a network's bridge, and its uplink, to what they shall be.
    async fn ensure_network(&self, name: &str, snapshot: &Snapshot) -> Result<(), NetError> {
        let Some(network) = self.networks.get(name) else {
            return Ok(());
        };
        let links = self.ethernet(snapshot);
        let uplink = self
            .uplinks
            .get(name)
            .and_then(|mac| links.iter().find(|(key, _)| key == mac));
        let bridge = self
            .ensure_bridge(network, uplink.map(|(_, link)| link), snapshot)
            .await?;
        // A link that is a port of the bridge, and not its uplink, is left over from another configuration.
        for (_, link) in links
            .iter()
            .filter(|(mac, _)| uplink.is_none_or(|(uplink, _)| uplink != mac))
        {
            if link.master == Some(bridge.index) {
                self.kernel.set_master(link.index, None).await?;
            }
        }
        if let Some((mac, link)) = uplink {
            self.enslave(*mac, link, &bridge, snapshot).await?;
        }
        let wanted_mtu = network
            .spec
            .mtu
            .or_else(|| uplink.map(|(mac, link)| self.wanted_mtu(*mac, link).unwrap_or(link.mtu)));
        let wanted_mtu = wanted_mtu.unwrap_or(DEFAULT_MTU);
        if bridge.mtu != wanted_mtu {
            self.kernel.pin_mtu(bridge.index, wanted_mtu).await?;
        }
        if !bridge.up {
            self.kernel.set_up(bridge.index, true).await?;
        }
        Ok(())
    }

    async fn ensure_bridge(
        &self,
        network: &Network,
        uplink: Option<&KernelLink>,
        snapshot: &Snapshot,
    ) -> Result<KernelLink, NetError> {
        let address = uplink.and_then(|link| link.address);
        match snapshot.named(&network.bridge) {
            Some(bridge) if bridge.is_bridge() => {
                if let Some(mac) = address.filter(|mac| bridge.address != Some(*mac)) {
                    self.kernel.set_mac(bridge.index, mac).await?;
                }
                return Ok(bridge.clone());
            }
            Some(_) => {
                return Err(NetError::NameTaken {
                    what: "link",
                    name: network.bridge.clone(),
                });
            }
            None => {}
        }
        self.kernel
            .create_bridge(&network.bridge, address.unwrap_or_else(local_address))
            .await?;
        info!(network = %network.spec.name, bridge = %network.bridge, "bridge created");
        // Guests are on it: until it is said what the host does there, the host does nothing.
        sysctl::set_ipv6(&network.bridge, Ipv6Mode::Off)?;
        let made = self.kernel.find(&network.bridge).await?;
        let made = made.ok_or_else(|| NetError::Kernel {
            action: format!("create bridge {}", network.bridge),
            problem: "it disappeared again".to_owned(),
            errno: None,
        })?;
        // Whatever ports come, their MTU does not become the bridge's.
        self.kernel.pin_mtu(made.index, made.mtu).await?;
        Ok(made)
    }

    async fn enslave(
        &self,
        mac: MacAddress,
        link: &KernelLink,
        bridge: &KernelLink,
        snapshot: &Snapshot,
    ) -> Result<(), NetError> {
        let mtu = self.wanted_mtu(mac, link).filter(|mtu| *mtu != link.mtu);
        if let Some(mtu) = mtu {
            self.kernel.set_mtu(link.index, mtu).await?;
        }
        if link.master != Some(bridge.index) {
            self.check_free(mac, link, snapshot)?;
            sysctl::set_ipv6(&link.name, Ipv6Mode::Off)?;
            addressing::apply(&self.kernel, snapshot, link.index, &Wanted::nothing()).await?;
            self.kernel
                .set_master(link.index, Some(bridge.index))
                .await?;
            info!(%mac, link = %link.name, bridge = %bridge.name, "link is the uplink of the bridge");
        }
        if !link.up {
            self.kernel.set_up(link.index, true).await?;
        }
        Ok(())
    }

    /// Whether a link may be taken: it is part of nothing else, and, where links are not ours, nobody uses it.
    fn check_free(
        &self,
        mac: MacAddress,
        link: &KernelLink,
        snapshot: &Snapshot,
    ) -> Result<(), NetError> {
        let busy = |problem: String| {
            Err(NetError::UplinkBusy {
                mac,
                name: link.name.clone(),
                problem,
            })
        };
        if let Some(master) = link.master.and_then(|master| snapshot.indexed(master))
            && self
                .networks
                .values()
                .all(|network| network.bridge != master.name)
        {
            return busy(format!("it is a port of {}", master.name));
        }
        let used = snapshot
            .addresses
            .iter()
            .find(|address| address.index == link.index && !address.link_local);
        match used {
            Some(address) if !self.config.manage_links => {
                busy(format!("it has the address {}", address.address))
            }
            _ => Ok(()),
        }
    }

    /// A link that is ours: switched on, and a port of nothing unless it is an uplink.
    async fn ensure_link(
        &self,
        mac: MacAddress,
        link: &KernelLink,
        snapshot: &Snapshot,
    ) -> Result<(), NetError> {
        let uplink = self.uplinks.values().any(|uplink| *uplink == mac);
        let own_bridge = link
            .master
            .and_then(|master| snapshot.indexed(master))
            .filter(|master| super::config::bridge_number(&master.name).is_some());
        if !uplink && own_bridge.is_some() {
            self.kernel.set_master(link.index, None).await?;
        }
        if let Some(mtu) = self.wanted_mtu(mac, link).filter(|mtu| *mtu != link.mtu) {
            self.kernel.set_mtu(link.index, mtu).await?;
        }
        if !link.up {
            self.kernel.set_up(link.index, true).await?;
        }
        Ok(())
    }

    /// The MTU a link shall have; `None` leaves it as it is.
    fn wanted_mtu(&self, mac: MacAddress, link: &KernelLink) -> Option<u32> {
        let configured = self.addressing_of(mac)?.mtu;
        let leased = || {
            let mtu = self.clients.get(&mac)?.lease.as_ref()?.mtu?;
            // A server cannot make a link do what its hardware cannot, nor end its IPv6.
            Some(
                if link.max_mtu == 0 {
                    mtu
                } else {
                    mtu.min(link.max_mtu)
                }
                .max(super::config::MIN_MTU_IPV6),
            )
        };
        configured.or_else(leased)
    }

    /// How a link is addressed, if by us.
    pub(super) fn addressing_of(&self, mac: MacAddress) -> Option<&Addressing> {
        let own = self
            .config
            .links
            .iter()
            .find(|link| link.mac == mac)
            .map(|link| &link.addressing);
        own.or(self
            .config
            .manage_links
            .then_some(&self.config.default_link))
    }

    /// Everything that gets addresses from us, most preferred first.
    fn targets(&self, snapshot: &Snapshot) -> Vec<Target> {
        let mut targets = Vec::new();
        let mut links = self.ethernet(snapshot);
        let main = self.uplinks.get(DEFAULT_NETWORK).copied();
        links.sort_by_key(|(mac, link)| (Some(*mac) != main, link.index));
        let metric = |position: usize| {
            FIRST_METRIC + METRIC_STEP * u32::try_from(position).unwrap_or(u32::from(u16::MAX))
        };
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
        &self,
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
        addressing::apply(&self.kernel, snapshot, target.index, &wanted).await
    }

    /// Makes a tap and attaches it. Nothing is left of it after an error.
    pub(super) async fn attach_tap(
        &self,
        network: &str,
        name: &str,
        mtu: Option<u32>,
    ) -> Result<Tap, NetError> {
        super::config::check_mtu("mtu", mtu, super::config::MIN_MTU)?;
        let unknown = || NetError::UnknownNetwork {
            name: network.to_owned(),
        };
        let bridge = &self.networks.get(network).ok_or_else(unknown)?.bridge;
        let bridge = self
            .kernel
            .find(bridge)
            .await?
            .filter(KernelLink::is_bridge)
            .ok_or_else(unknown)?;
        let mtu = mtu.unwrap_or(bridge.mtu);
        let fd = tap::create(name)?;
        let link = self
            .kernel
            .find(name)
            .await?
            .ok_or_else(|| NetError::Kernel {
                action: format!("create tap {name}"),
                problem: "it disappeared again".to_owned(),
                errno: None,
            })?;
        // What the guest sends is for the bridge, never for the host's own IPv6.
        sysctl::set_ipv6(name, Ipv6Mode::Off)?;
        if link.mtu != mtu {
            self.kernel.set_mtu(link.index, mtu).await?;
        }
        self.kernel
            .set_master(link.index, Some(bridge.index))
            .await?;
        self.kernel.set_up(link.index, true).await?;
        Ok(Tap {
            fd,
            name: name.to_owned(),
            mtu,
        })
    }

    /// Removes the bridges, and what was set on links.
    pub(super) async fn tear_down(&mut self) -> Result<(), NetError> {
        let snapshot = self.kernel.snapshot().await?;
        for network in std::mem::take(&mut self.networks).into_values() {
            if let Some(bridge) = snapshot
                .named(&network.bridge)
                .filter(|link| link.is_bridge())
            {
                self.kernel.delete_link(bridge.index).await?;
            }
        }
        for (mac, link) in self.ethernet(&snapshot) {
            if self.addressing_of(mac).is_some() {
                addressing::apply(&self.kernel, &snapshot, link.index, &Wanted::nothing()).await?;
            }
        }
        Ok(())
    }

    fn fail(&mut self, subject: &str, error: &NetError, outcome: &mut Outcome) {
        outcome.failed = true;
        self.warn(subject, error.to_string(), error.hint());
    }

    fn warn(&mut self, subject: &str, message: String, hint: String) {
        self.warnings.push(NetWarning {
            subject: subject.to_owned(),
            message,
            hint,
        });
    }

    /// Things that went as they should and still are not good.
    fn find_problems(&mut self, snapshot: &Snapshot, outcome: &mut Outcome) {
        let links = self.ethernet(snapshot);
        if self.config.manage_links && links.is_empty() {
            let hint = "check that the network card is seated and that its driver is in the image (see the kernel log)";
            self.warn(
                "host",
                "no Ethernet link was found".to_owned(),
                hint.to_owned(),
            );
        }
        for (name, network) in self.networks.clone() {
            let uplink = self
                .uplinks
                .get(&name)
                .and_then(|mac| links.iter().find(|(key, _)| key == mac));
            match (network.spec.uplink, uplink) {
                (Uplink::Mac(mac), None) => {
                    self.warn(
                        &name,
                        format!("its uplink {mac} is not in this machine"),
                        "put the card back, or choose another uplink".to_owned(),
                    );
                }
                (_, Some((mac, link))) if !link.carrier => {
                    self.warn(
                        &name,
                        format!("its uplink {mac} ({}) has no signal", link.name),
                        "check cable and switch".to_owned(),
                    );
                }
                _ => {}
            }
        }
        let duplicates = snapshot
            .addresses
            .iter()
            .filter(|address| address.duplicate);
        for (address, link) in duplicates
            .filter_map(|address| Some((address.address, snapshot.indexed(address.index)?)))
        {
            let hint = "give one of the two another address".to_owned();
            self.warn(
                &link.name,
                format!("another machine has the address {address} too"),
                hint,
            );
        }
        for (mac, since) in self
            .clients
            .iter()
            .filter_map(|(mac, slot)| Some((*mac, slot.searching_since?)))
            .collect::<Vec<_>>()
        {
            let left = SEARCH_LIMIT.saturating_sub(since.elapsed());
            if left.is_zero() {
                let hint =
                    "check that the network has a DHCP server, or set a static address".to_owned();
                self.warn(
                    &mac.to_string(),
                    "no DHCP server gave this link an address".to_owned(),
                    hint,
                );
            } else {
                outcome.next = Some(outcome.next.map_or(left, |next| next.min(left)));
            }
        }
    }
}

/// A random address of our own, for bridges without uplink.
fn local_address() -> MacAddress {
    let [_, a, b, c, d, e, ..] = uuid::Uuid::new_v4().into_bytes();
    MacAddress([0x02, a, b, c, d, e])
}
