//! Networks of a configuration, whose uplinks are links of another machine.

use std::collections::{BTreeMap, HashMap, HashSet};

use lodge_api::configuration::{ConfigurationKind, RestoreOutcome};
use lodge_api::system::Link;
use lodge_api::{ErrorCode, Name, Problem};
use lodge_host::net::Uplink;
use lodge_host::seed::MacAddress;
use lodge_store::Versioned;
use serde_json::{Value, json};

use super::file::Item;
use super::plan::{Here, Planner, Shown};
use crate::catalogue;
use crate::networks::{DEFAULT, NetworkRecord, unmanaged};

impl Shown for NetworkRecord {
    const SHOWN_AS: ConfigurationKind = ConfigurationKind::Network;

    fn shown(&self) -> Value {
        match self.uplink {
            Uplink::Mac(mac) => json!({"uplink": mac.to_string()}),
            Uplink::Auto | Uplink::Isolated => json!({}),
        }
    }
}

/// A network that is made, in the place of another or not.
pub(super) struct NetworkStep {
    /// Where it is in the request.
    pub(super) at: String,
    pub(super) old: Option<Versioned<NetworkRecord>>,
    pub(super) new: NetworkRecord,
}

/// The links of both hosts.
struct Links {
    here: Vec<Link>,
    /// What takes the place of what.
    macs: HashMap<MacAddress, MacAddress>,
    /// Uplinks, and whose they will be.
    taken: HashMap<MacAddress, Name>,
}

impl Links {
    fn is_here(&self, mac: MacAddress) -> bool {
        let mac = mac.to_string();
        self.here.iter().any(|link| link.mac == mac)
    }

    /// What there is to choose from.
    fn listed(&self) -> String {
        let links = self.here.iter().filter(|link| !link.mac.is_empty());
        let links: Vec<String> = links
            .map(|link| format!("{} ({})", link.mac, link.name))
            .collect();
        match links.is_empty() {
            true => "this host has no links".to_owned(),
            false => format!("this host has {}", links.join(", ")),
        }
    }
}

impl Planner<'_> {
    pub(super) fn networks(
        &mut self,
        items: &[Item<NetworkRecord>],
        links: &HashSet<MacAddress>,
        macs: &BTreeMap<String, String>,
    ) -> Result<(), Problem> {
        let here = Here::<NetworkRecord>::of(&self.snapshot);
        let uplinks = items.iter().filter_map(|item| match item.value.uplink {
            Uplink::Mac(mac) => Some(mac),
            Uplink::Auto | Uplink::Isolated => None,
        });
        let known = links.iter().copied().chain(uplinks).collect();
        let mut links = self.links(&known, macs)?;
        // The network by which people reach the host stays as it is: no method changes it.
        for network in here.others(items).chain(here.named(DEFAULT)) {
            if let Some(mac) = uplink_of(&network.value, &links.here) {
                links.taken.insert(mac, network.value.name.clone());
            }
        }
        for item in items {
            self.network(item, &here, &mut links)?;
        }
        self.keep(&here, items);
        Ok(())
    }

    /// Reads which link takes the place of which.
    fn links(
        &self,
        known: &HashSet<MacAddress>,
        macs: &BTreeMap<String, String>,
    ) -> Result<Links, Problem> {
        let mut links = Links {
            here: self.core.links(),
            macs: HashMap::new(),
            taken: HashMap::new(),
        };
        for (old, new) in macs {
            let parse = |text: &str| {
                text.parse::<MacAddress>().map_err(|error| {
                    let detail = format!("{}: {error}", catalogue::shown(text));
                    Problem::invalid("/macs", detail)
                })
            };
            let (from, to) = (parse(old)?, parse(new)?);
            if !known.contains(&from) {
                let detail = format!("{from} is no link of the host that the configuration is of");
                return Err(Problem::invalid("/macs", detail)
                    .with_hint("its links are in /configuration/links"));
            }
            if !links.is_here(to) {
                let detail = format!("{to} is no link of this host");
                return Err(Problem::invalid("/macs", detail).with_hint(links.listed()));
            }
            if links.macs.insert(from, to).is_some() {
                let detail = format!("{from} is there twice");
                return Err(Problem::invalid("/macs", detail));
            }
        }
        Ok(links)
    }

    fn network(
        &mut self,
        item: &Item<NetworkRecord>,
        here: &Here<NetworkRecord>,
        links: &mut Links,
    ) -> Result<(), Problem> {
        let (old, id) = here.place(&item.value);
        if item.value.name.as_str() == DEFAULT {
            let outcome = RestoreOutcome::Unchanged;
            self.note(ConfigurationKind::Network, DEFAULT, outcome, Vec::new());
            return Ok(());
        }
        let new = NetworkRecord {
            id,
            name: item.value.name.clone(),
            bridge: old.and_then(|old| old.value.bridge.clone()),
            uplink: mapped(item, links)?,
        };
        if let Uplink::Mac(mac) = new.uplink
            && let Some(other) = links.taken.insert(mac, new.name.clone())
        {
            let detail = format!("link {mac} is the uplink of the network \"{other}\"");
            return Err(item.invalid("/uplink", detail).with_hint(format!(
                "map it to another link in `macs`: {}",
                links.listed()
            )));
        }
        if !self.weigh(old.map(|old| &old.value), &new) {
            return Ok(());
        }
        if let Uplink::Mac(mac) = new.uplink
            && !links.is_here(mac)
        {
            let detail = format!(
                "the uplink of the network \"{}\" is {mac}, which is no link of this host",
                new.name
            );
            return Err(item.invalid("/uplink", detail).with_hint(format!(
                "say in `macs` which link takes its place (--mac {mac}=ADDRESS): {}",
                links.listed()
            )));
        }
        if self.core.network.is_none() {
            return Err(unmanaged().with_pointer(item.at.clone()));
        }
        self.plan.networks.push(NetworkStep {
            at: item.at.clone(),
            old: old.cloned(),
            new,
        });
        Ok(())
    }
}

/// The uplink of a network of the configuration on this host.
fn mapped(item: &Item<NetworkRecord>, links: &Links) -> Result<Uplink, Problem> {
    match item.value.uplink {
        Uplink::Isolated => Ok(Uplink::Isolated),
        Uplink::Mac(mac) => Ok(Uplink::Mac(*links.macs.get(&mac).unwrap_or(&mac))),
        Uplink::Auto => Err(item
            .invalid(
                "/uplink",
                format!("only the network \"{DEFAULT}\" finds its uplink by itself"),
            )
            .with_hint("give a MAC address, or make it isolated")),
    }
}

/// The uplink that a network of this host has.
fn uplink_of(network: &NetworkRecord, links: &[Link]) -> Option<MacAddress> {
    match network.uplink {
        Uplink::Mac(mac) => Some(mac),
        Uplink::Isolated => None,
        Uplink::Auto => {
            let own = |link: &&Link| link.network.as_deref() == Some(network.name.as_str());
            links.iter().find(own)?.mac.parse().ok()
        }
    }
}

/// That a network cannot be made so: the code stays, the pointer becomes the network's.
pub(super) fn refused(step: &NetworkStep, problem: Problem) -> Problem {
    match problem.code {
        ErrorCode::AlreadyExists | ErrorCode::InUse | ErrorCode::InvalidRequest => {
            problem.with_pointer(format!("{}/value/uplink", step.at))
        }
        _ => problem,
    }
}
