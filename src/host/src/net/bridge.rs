//! Bridges, their uplinks, and the taps on them.

use tracing::info;

use super::addressing::{self, Wanted};
use super::config::{self, MIN_MTU, MIN_MTU_IPV6, NetworkSpec, Uplink};
use super::error::NetError;
use super::kernel::{KernelLink, Snapshot};
use super::state::NetworkInfo;
use super::sysctl::{self, Ipv6Mode};
use super::tap::{self, TAP_PREFIX, Tap};
use super::worker::{Network, Worker, may_administer};
use crate::seed::MacAddress;

const DEFAULT_MTU: u32 = 1500;

/// What a bridge of ours has before the name of its network in its alias, which `ip link` shows too.
const ALIAS_PREFIX: &str = "lodge network ";

/// Names of the guests' taps on a bridge.
pub(super) fn taps_of(snapshot: &Snapshot, bridge: u32) -> Vec<String> {
    let taps = snapshot
        .links
        .iter()
        .filter(|link| link.master == Some(bridge) && link.name.starts_with(TAP_PREFIX));
    taps.map(|link| link.name.clone()).collect()
}

impl Worker {
    /// Adds a network on behalf of a caller. After an error everything is as before.
    pub(super) async fn add_network(&mut self, spec: NetworkSpec) -> Result<NetworkInfo, NetError> {
        spec.validate("network")?;
        for other in self.networks.values() {
            let known = NetworkSpec {
                bridge: Some(other.bridge.clone()),
                ..other.spec.clone()
            };
            spec.validate_beside(&known)?;
        }
        if !may_administer() {
            return Err(NetError::Permission {
                action: "create a network".to_owned(),
            });
        }
        let snapshot = self.kernel.snapshot().await?;
        let network = self.name_bridge(spec, &snapshot)?;
        let name = network.spec.name.clone();
        let existed = snapshot.named(&network.bridge).is_some();
        self.networks.insert(name.clone(), network.clone());
        if let Err(error) = self.try_network(&name, &snapshot).await {
            self.networks.remove(&name);
            self.uplinks.remove(&name);
            if !existed && let Some(bridge) = self.kernel.find(&network.bridge).await? {
                self.kernel.delete_link(bridge.index).await?;
            }
            return Err(error);
        }
        self.look().await;
        self.state
            .borrow()
            .network(&name)
            .cloned()
            .ok_or(NetError::UnknownNetwork { name })
    }

    async fn try_network(&mut self, name: &str, snapshot: &Snapshot) -> Result<(), NetError> {
        if let Some(network) = self.networks.get(name)
            && let Uplink::Mac(mac) = network.spec.uplink
            && let Some((other, _)) = self
                .uplinks
                .iter()
                .find(|(other, taken)| **taken == mac && *other != name)
        {
            return Err(NetError::UplinkTaken {
                mac,
                network: other.clone(),
            });
        }
        self.choose_uplinks(snapshot);
        self.ensure_network(name, snapshot).await
    }

    /// Takes a network away on behalf of a caller.
    pub(super) async fn remove_network(&mut self, name: &str, force: bool) -> Result<(), NetError> {
        let unknown = || NetError::UnknownNetwork {
            name: name.to_owned(),
        };
        let network = self.networks.get(name).ok_or_else(unknown)?.clone();
        let snapshot = self.kernel.snapshot().await?;
        if let Some(bridge) = snapshot
            .named(&network.bridge)
            .filter(|link| link.is_bridge())
        {
            let taps = taps_of(&snapshot, bridge.index).len();
            if taps > 0 && !force {
                return Err(NetError::NetworkBusy {
                    name: name.to_owned(),
                    taps,
                });
            }
            self.remove_bridge(bridge.index, &snapshot).await?;
        }
        self.networks.remove(name);
        self.uplinks.remove(name);
        self.look().await;
        Ok(())
    }

    /// Removes all bridges, and the addresses of the links that are ours.
    pub(super) async fn tear_down(&mut self) -> Result<(), NetError> {
        let snapshot = self.kernel.snapshot().await?;
        for network in std::mem::take(&mut self.networks).into_values() {
            if let Some(bridge) = snapshot
                .named(&network.bridge)
                .filter(|link| link.is_bridge())
            {
                self.remove_bridge(bridge.index, &snapshot).await?;
            }
        }
        for (mac, link) in self.ethernet(&snapshot) {
            if self.addressing_of(mac).is_some() {
                addressing::apply(&mut self.kernel, &snapshot, link.index, &Wanted::nothing())
                    .await?;
            }
        }
        super::guard::remove().await;
        Ok(())
    }

    /// Removes a bridge, and gives its uplink back as a link of its own.
    async fn remove_bridge(&mut self, index: u32, snapshot: &Snapshot) -> Result<(), NetError> {
        self.kernel.delete_link(index).await?;
        let links = self.ethernet(snapshot);
        let ports = links.iter().filter(|(_, link)| link.master == Some(index));
        ports
            .into_iter()
            .try_for_each(|(_, link)| sysctl::set_ipv6(&link.name, Ipv6Mode::Default))
    }

    /// Gives a network its bridge name: the one asked for, else that of the bridge it had before, else the lowest
    /// that nobody uses.
    pub(super) fn name_bridge(
        &self,
        spec: NetworkSpec,
        snapshot: &Snapshot,
    ) -> Result<Network, NetError> {
        let asked = |name: &str| {
            let configured = self
                .config
                .networks
                .iter()
                .any(|other| other.bridge.as_deref() == Some(name));
            configured || self.networks.values().any(|network| network.bridge == name)
        };
        let alias = alias_of(&spec.name);
        let ours = |link: &&KernelLink| {
            link.is_bridge()
                && link.alias.as_ref() == Some(&alias)
                && config::bridge_number(&link.name).is_some()
                && !asked(&link.name)
        };
        let earlier = || {
            snapshot
                .links
                .iter()
                .find(ours)
                .map(|link| link.name.clone())
        };
        let free = |name: &String| !asked(name) && snapshot.named(name).is_none();
        let lowest = || {
            (0..10_000)
                .map(|number| format!("lodge{number}"))
                .find(free)
        };
        let bridge = spec.bridge.clone().or_else(earlier).or_else(lowest);
        let bridge = bridge.ok_or_else(|| NetError::NameTaken {
            what: "bridge",
            name: "lodge0 to lodge9999".to_owned(),
        })?;
        Ok(Network { spec, bridge })
    }

    /// Brings a network's bridge, and its uplink, to what they shall be.
    pub(super) async fn ensure_network(
        &mut self,
        name: &str,
        snapshot: &Snapshot,
    ) -> Result<(), NetError> {
        let Some(network) = self.networks.get(name).cloned() else {
            return Ok(());
        };
        let links = self.ethernet(snapshot);
        let uplink = self
            .uplinks
            .get(name)
            .and_then(|mac| links.iter().find(|(key, _)| key == mac));
        let bridge = self
            .ensure_bridge(&network, uplink.map(|(_, link)| link), snapshot)
            .await?;
        // A link that is a port of the bridge, and not its uplink, is left over from another configuration.
        for (_, link) in links
            .iter()
            .filter(|(mac, _)| uplink.is_none_or(|(uplink, _)| uplink != mac))
        {
            if link.master == Some(bridge.index) && self.config.manage_links {
                self.kernel.set_master(link.index, None).await?;
            }
        }
        if let Some((mac, link)) = uplink {
            self.enslave(*mac, link, &bridge, snapshot).await?;
        }
        if !bridge.up {
            self.kernel.set_up(bridge.index, true).await?;
        }
        // Sizes last: a link that cannot have its size still works.
        let mut mtu = network.spec.mtu;
        if let Some((mac, link)) = uplink {
            let wanted = self.ensure_mtu(*mac, link).await?;
            mtu = mtu.or(Some(wanted));
        }
        let mtu = mtu.unwrap_or(DEFAULT_MTU);
        if bridge.mtu != mtu {
            self.kernel.pin_mtu(bridge.index, bridge.mtu, mtu).await?;
        }
        Ok(())
    }

    async fn ensure_bridge(
        &mut self,
        network: &Network,
        uplink: Option<&KernelLink>,
        snapshot: &Snapshot,
    ) -> Result<KernelLink, NetError> {
        let address = uplink.and_then(|link| link.address);
        let alias = alias_of(&network.spec.name);
        match snapshot.named(&network.bridge) {
            Some(bridge) if bridge.is_bridge() => {
                if let Some(mac) = address.filter(|mac| bridge.address != Some(*mac)) {
                    self.kernel.set_mac(bridge.index, mac).await?;
                }
                if bridge.alias.as_ref() != Some(&alias) {
                    self.kernel.set_alias(bridge.index, &alias).await?;
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
        let made = self.just_made(&network.bridge).await?;
        self.kernel.set_alias(made.index, &alias).await?;
        // Whatever ports come, their MTU does not become the bridge's.
        self.kernel.pin_mtu(made.index, made.mtu, made.mtu).await?;
        Ok(made)
    }

    async fn just_made(&mut self, name: &str) -> Result<KernelLink, NetError> {
        self.kernel
            .find(name)
            .await?
            .ok_or_else(|| NetError::Kernel {
                action: format!("create {name}"),
                problem: "it disappeared again".to_owned(),
                errno: None,
            })
    }

    async fn enslave(
        &mut self,
        mac: MacAddress,
        link: &KernelLink,
        bridge: &KernelLink,
        snapshot: &Snapshot,
    ) -> Result<(), NetError> {
        if link.master != Some(bridge.index) {
            self.check_free(mac, link, snapshot)?;
            sysctl::set_ipv6(&link.name, Ipv6Mode::Off)?;
            addressing::apply(&mut self.kernel, snapshot, link.index, &Wanted::nothing()).await?;
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

    /// A link that is ours: switched on, and a port of no bridge of ours unless it is an uplink.
    pub(super) async fn ensure_link(
        &mut self,
        mac: MacAddress,
        link: &KernelLink,
        snapshot: &Snapshot,
    ) -> Result<(), NetError> {
        let uplink = self.uplinks.values().any(|uplink| *uplink == mac);
        let master = link.master.and_then(|master| snapshot.indexed(master));
        if !uplink && master.is_some_and(|master| config::bridge_number(&master.name).is_some()) {
            self.kernel.set_master(link.index, None).await?;
        }
        if !link.up {
            self.kernel.set_up(link.index, true).await?;
        }
        self.ensure_mtu(mac, link).await.map(|_| ())
    }

    /// Sets a link's MTU if anybody said what it shall be; answers with what it is then.
    async fn ensure_mtu(&mut self, mac: MacAddress, link: &KernelLink) -> Result<u32, NetError> {
        let mtu = self.wanted_mtu(mac, link).unwrap_or(link.mtu);
        if mtu != link.mtu {
            self.kernel.set_mtu(link.index, mtu).await?;
        }
        Ok(mtu)
    }

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
                .max(MIN_MTU_IPV6),
            )
        };
        configured.or_else(leased)
    }

    /// Makes a tap and attaches it. Nothing is left of it after an error.
    pub(super) async fn attach_tap(
        &mut self,
        network: &str,
        name: &str,
        mtu: Option<u32>,
        queues: u8,
    ) -> Result<Tap, NetError> {
        config::check_mtu("mtu", mtu, MIN_MTU)?;
        let unknown = || NetError::UnknownNetwork {
            name: network.to_owned(),
        };
        let bridge = &self.networks.get(network).ok_or_else(unknown)?.bridge;
        let bridge = self
            .kernel
            .find(bridge)
            .await?
            .filter(KernelLink::is_bridge);
        let bridge = bridge.ok_or_else(|| NetError::NetworkDown {
            name: network.to_owned(),
        })?;
        self.ensure_guard().await;
        let mtu = mtu.unwrap_or(bridge.mtu);
        let (fd, further) = tap::create(name, queues)?;
        let link = self.just_made(name).await?;
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
            further,
            name: name.to_owned(),
            mtu,
        })
    }
}

fn alias_of(network: &str) -> String {
    format!("{ALIAS_PREFIX}{network}")
}

/// A random address of our own, for bridges without uplink.
fn local_address() -> MacAddress {
    let [_, a, b, c, d, e, ..] = uuid::Uuid::new_v4().into_bytes();
    MacAddress([0x02, a, b, c, d, e])
}
