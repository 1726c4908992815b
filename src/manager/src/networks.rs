//! Networks: the bridges guests attach to.

use std::path::Path;
use std::time::{Duration, Instant};

use lodge_api::event::Change;
use lodge_api::network::{Network, NetworkCreate};
use lodge_api::page::{ListParams, Page};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_host::boot::BootReport;
use lodge_host::net::{HostNetwork, HostNetworkConfig, LinkConfig, NetError, NetworkSpec, Uplink};
use lodge_host::seed::MacAddress;
use lodge_store::{Batch, Record, Snapshot, Versioned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::core::{Core, internal};
use crate::filter::Field;
use crate::vms::VmRecord;
use crate::{Caller, IfMatch, Manager, ManagerConfig};

/// The network that always exists.
pub(crate) const DEFAULT: &str = "default";

/// How long a tap is waited for whose last user has just ended.
const RELEASE_PATIENCE: Duration = Duration::from_secs(3);

const FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("bridge", "/bridge"),
    ("uplink", "/uplink"),
    ("carrier", "/carrier"),
];

/// A network as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) id: Uuid,
    pub(crate) name: Name,
    /// `None` until the bridge was made for the first time.
    pub(crate) bridge: Option<String>,
    pub(crate) uplink: Uplink,
}

impl Record for NetworkRecord {
    const TABLE: &'static str = "networks";
    const SCHEMA: u32 = 1;
}

impl Object for NetworkRecord {
    const KIND: &'static str = "network";
    const PATH: &'static str = "networks";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.name
    }
}

impl NetworkRecord {
    fn default_of(config: &ManagerConfig) -> Result<Self, Problem> {
        let spec = NetworkSpec::default_network();
        Ok(Self {
            id: Uuid::now_v7(),
            name: DEFAULT
                .parse()
                .map_err(|_| internal("the default network's name"))?,
            bridge: spec.bridge,
            uplink: if config.appliance {
                spec.uplink
            } else {
                Uplink::Isolated
            },
        })
    }

    pub(crate) fn spec(&self) -> NetworkSpec {
        NetworkSpec {
            name: self.name.to_string(),
            bridge: self.bridge.clone(),
            uplink: self.uplink,
            ..NetworkSpec::isolated("")
        }
    }
}

/// The batch that makes the default network, where it is missing.
pub(crate) fn missing_default(
    snapshot: &Snapshot,
    config: &ManagerConfig,
) -> Result<Option<Batch>, Problem> {
    if catalogue::find_optional::<NetworkRecord>(snapshot, DEFAULT)?.is_some() {
        return Ok(None);
    }
    let mut batch = Batch::new();
    catalogue::insert(&mut batch, &NetworkRecord::default_of(config)?)?;
    Ok(Some(batch))
}

/// Takes the host's network over. `Err` holds a warning: everything else works without.
pub(crate) async fn start(
    config: &ManagerConfig,
    boot: Option<&BootReport>,
    hostname: String,
    snapshot: &Snapshot,
) -> Result<Option<HostNetwork>, String> {
    if !config.manage_network {
        return Ok(None);
    }
    let networks = catalogue::list::<NetworkRecord>(snapshot);
    let networks = networks
        .iter()
        .map(|network| network.value.spec())
        .collect();
    let run_dir = config.run_dir.join("net");
    let config = if config.appliance {
        appliance(boot, hostname, &run_dir, networks)
    } else {
        HostNetworkConfig {
            networks,
            ..HostNetworkConfig::hosted(run_dir)
        }
    };
    HostNetwork::start(config).await.map(Some).map_err(|error| {
        format!(
            "The host's network could not be set up: {error}. {}",
            error.hint()
        )
    })
}

fn appliance(
    boot: Option<&BootReport>,
    hostname: String,
    run_dir: &Path,
    networks: Vec<NetworkSpec>,
) -> HostNetworkConfig {
    let seed = boot.and_then(|boot| boot.seed.as_ref());
    let links = seed.map_or_else(Vec::new, |found| {
        found.seed.network.iter().map(LinkConfig::from).collect()
    });
    HostNetworkConfig {
        networks,
        run_dir: run_dir.to_owned(),
        ..HostNetworkConfig::appliance(Some(hostname), links)
    }
}

pub(crate) fn net_problem(error: &NetError) -> Problem {
    let code = match error {
        NetError::NameTaken { .. } => ErrorCode::AlreadyExists,
        NetError::UplinkTaken { .. }
        | NetError::UplinkBusy { .. }
        | NetError::NetworkBusy { .. } => ErrorCode::InUse,
        NetError::InvalidConfig { .. } => ErrorCode::InvalidRequest,
        NetError::UnknownNetwork { .. } => ErrorCode::NotFound,
        _ => ErrorCode::Internal,
    };
    Problem::new(code, error.to_string()).with_hint(error.hint())
}

pub(crate) fn unmanaged() -> Problem {
    Problem::new(
        ErrorCode::WrongState,
        "this server does not manage networks",
    )
    .with_hint("start it with the right to manage networks, or remove the guest's nics")
}

impl Core {
    /// A tap for a guest's interface, with so many queues.
    pub(crate) async fn attach_tap(
        &self,
        network: &Name,
        key: &str,
        queues: u8,
    ) -> Result<lodge_host::net::Tap, Problem> {
        let host = self.network.as_ref().ok_or_else(unmanaged)?;
        let deadline = Instant::now() + RELEASE_PATIENCE;
        loop {
            match host.attach_tap(network.as_str(), key, None, queues).await {
                // The kernel frees a tap a moment after the monitor that held it has ended.
                Err(NetError::NameTaken { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                result => return result.map_err(|error| net_problem(&error)),
            }
        }
    }

    fn network_of(
        &self,
        record: &Versioned<NetworkRecord>,
        vms: &[Versioned<VmRecord>],
    ) -> Network {
        let network = &record.value;
        let state = self.network.as_ref().map(HostNetwork::state);
        let info = state
            .as_ref()
            .and_then(|state| state.network(network.name.as_str()));
        let named = match network.uplink {
            Uplink::Mac(mac) => Some(mac),
            Uplink::Auto | Uplink::Isolated => None,
        };
        let bridge = network.bridge.clone();
        Network {
            id: network.id,
            name: network.name.clone(),
            bridge: info.map_or_else(|| bridge.unwrap_or_default(), |info| info.bridge.clone()),
            uplink: info
                .and_then(|info| info.uplink)
                .or(named)
                .map(|mac| mac.to_string()),
            addresses: info.map_or_else(Vec::new, |info| {
                let addresses = info.ip.addresses.iter();
                addresses
                    .map(|address| address.address.to_string())
                    .collect()
            }),
            carrier: info.is_some_and(|info| info.carrier),
            used_by: users(&network.name, vms),
            revision: record.revision,
        }
    }
}

/// Guests attached to a network by configuration.
fn users(network: &Name, vms: &[Versioned<VmRecord>]) -> Vec<Name> {
    vms.iter()
        .filter(|vm| vm.value.spec.nics.iter().any(|nic| nic.network == *network))
        .map(|vm| vm.value.spec.name.clone())
        .collect()
}

impl Manager {
    /// By name. Filter fields: `id name bridge uplink carrier`.
    pub fn network_list(&self, params: &ListParams) -> Result<Page<Network>, Problem> {
        let snapshot = self.core.snapshot();
        let vms = catalogue::list::<VmRecord>(&snapshot);
        let view = |network: &_| self.core.network_of(network, &vms);
        catalogue::page(&snapshot, params, FIELDS, view, |network| &network.name)
    }

    /// One network, by name or id.
    pub fn network_view(&self, key: &str) -> Result<Network, Problem> {
        let snapshot = self.core.snapshot();
        let vms = catalogue::list::<VmRecord>(&snapshot);
        Ok(self
            .core
            .network_of(&catalogue::find(&snapshot, key)?, &vms))
    }

    /// Makes a network and its bridge.
    pub async fn network_create(
        &self,
        caller: &Caller,
        create: NetworkCreate,
    ) -> Result<Network, Problem> {
        let uplink = match &create.uplink {
            None => Uplink::Isolated,
            Some(text) => Uplink::Mac(text.parse::<MacAddress>().map_err(|error| {
                Problem::invalid("/uplink", error)
                    .with_hint("give the MAC address of one of the host's links")
            })?),
        };
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let host = core.network.as_ref().ok_or_else(unmanaged)?;
            let _changing = core.catalogue.lock().await;
            catalogue::require_free::<NetworkRecord>(&core.snapshot(), &create.name)?;
            let mut record = NetworkRecord {
                id: Uuid::now_v7(),
                name: create.name,
                bridge: None,
                uplink,
            };
            let info = host
                .add_network(record.spec())
                .await
                .map_err(|error| net_problem(&error).with_pointer("/uplink"))?;
            record.bridge = Some(info.bridge);
            let made = core.add(&record).await;
            // Nothing may stay of what is not recorded.
            if made.is_err()
                && let Err(error) = host.remove_network(record.name.as_str(), true).await
            {
                tracing::error!(%error, "a bridge that is not recorded stays");
            }
            let made = made?;
            core.make_known(&caller, "network_create", record.target(), Change::Created);
            Ok(core.network_of(&made, &[]))
        })
        .await
    }

    /// Removes a network no guest is attached to.
    pub async fn network_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<NetworkRecord>(&key, if_match).await?;
            let (snapshot, old) = (&held.snapshot, &held.old);
            if old.value.name.as_str() == DEFAULT {
                return Err(Problem::new(
                    ErrorCode::WrongState,
                    "the network \"default\" always exists",
                ));
            }
            let used_by = users(&old.value.name, &catalogue::list(snapshot));
            if !used_by.is_empty() {
                return Err(in_use("network", &old.value.name, &used_by));
            }
            // A guest that still runs with an earlier configuration counts as well.
            if let Some(host) = &core.network {
                match host.remove_network(old.value.name.as_str(), false).await {
                    Ok(()) | Err(NetError::UnknownNetwork { .. }) => {}
                    Err(error) => return Err(net_problem(&error)),
                }
            }
            let mut batch = Batch::new();
            catalogue::remove(&mut batch, old)?;
            core.commit(batch).await?;
            core.make_known(
                &caller,
                "network_delete",
                old.value.target(),
                Change::Deleted,
            );
            Ok(())
        })
        .await
    }
}

/// The refusal to delete what others use.
pub(crate) fn in_use(kind: &str, name: &Name, users: &[Name]) -> Problem {
    Problem::new(
        ErrorCode::InUse,
        format!(
            "{kind} \"{name}\" is used by the guest{} {}",
            if users.len() == 1 { "" } else { "s" },
            catalogue::listed(users)
        ),
    )
    .with_hint("change or delete these guests first")
}
