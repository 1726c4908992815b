//! The host.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Processors, Size};

/// Answer to `GET /v1/system`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct System {
    /// The host's name.
    pub hostname: String,
    /// Versions of what runs.
    pub versions: Versions,
    /// Whether and why not guests can run.
    pub kvm: KvmState,
    /// The machine.
    pub hardware: Hardware,
    /// What guests can be given and held to here.
    #[serde(default)]
    pub controls: Controls,
    /// What is used now.
    pub usage: Usage,
    /// Where Lodge keeps its data.
    pub storage: Storage,
    /// Host's network links.
    pub links: Vec<Link>,
    /// Where the API is reached.
    pub urls: Vec<String>,
    /// SHA-256 fingerprint of the TLS certificate.
    pub certificate_fingerprint: String,
    /// Who may sign updates: public keys of minisign.
    #[serde(default)]
    pub update_keys: Vec<String>,
    /// NVMe qualified name of the host, which targets allow to use their disks.
    #[serde(default)]
    pub nvme_nqn: String,
    /// What an administrator should know, most important first.
    pub warnings: Vec<String>,
    /// When the host started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// The host's clock.
    #[schema(value_type = String, format = DateTime)]
    pub now: Timestamp,
}

/// Versions of what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Versions {
    /// Lodge's own.
    pub lodge: String,
    /// The API's.
    pub api: String,
    /// The host's kernel.
    pub kernel: String,
}

/// Whether guests can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KvmState {
    /// Whether they can.
    pub usable: bool,
    /// Why not, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `vmx`, `svm` or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// Whether this host is itself a guest.
    pub nested: bool,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hardware {
    /// Manufacturer, as the firmware tells.
    pub vendor: String,
    /// Product, as the firmware tells.
    pub product: String,
    /// `bios` or `uefi`.
    pub firmware: String,
    /// Processor model.
    pub cpu_model: String,
    /// Sockets with a processor.
    pub sockets: u32,
    /// Cores of all sockets.
    pub cores: u32,
    /// Threads of all cores.
    pub threads: u32,
    /// Memory the kernel manages.
    pub memory: Size,
    /// Block devices.
    pub block_devices: Vec<BlockDevice>,
}

/// What guests can be given of this host, and held to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Controls {
    /// Whether guests can have `cpu.shares` and `cpu.limit`.
    pub cpu: bool,
    /// The processors for their `cpu.affinity`; absent where they cannot have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "0-7")]
    pub processors: Option<Processors>,
}

/// A disk of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlockDevice {
    /// Kernel name, `nvme0n1`.
    pub name: String,
    /// What the device calls itself.
    pub model: String,
    /// Its size.
    pub size: Size,
    /// Whether it spins.
    pub rotational: bool,
    /// Whether it is a removable medium.
    pub removable: bool,
}

/// What is used now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// CPU time used since the last second or so, in percent of all threads.
    pub cpu_percent: f64,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Memory in use.
    pub memory_used: Size,
    /// Guests running.
    pub vms_running: u32,
    /// Guests in all.
    pub vms_total: u32,
}

/// Where Lodge keeps its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Storage {
    /// `disk` or `ram`. In RAM, everything is lost when the host restarts.
    pub kind: StorageKind,
    /// Device, where it is a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Filesystem type.
    pub filesystem: String,
    /// Capacity.
    pub size: Size,
    /// Free.
    pub free: Size,
    /// Whether it works. `warnings` say what to do about it.
    #[serde(default)]
    pub health: StorageHealth,
}

/// Whether the data storage or a datastore works. A change is an event of type `system`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StorageHealth {
    /// It does.
    #[default]
    Sound,
    /// Less than 5 % are free.
    Low,
    /// Nothing can be written: its filesystem found errors, or was mounted so.
    ReadOnly,
    /// What is written does not reach the disk: it is gone or broken.
    Failed,
    /// Of a datastore: it cannot be used. Its disk is not there, has failed, or cannot be read.
    Missing,
}

/// Kinds of data storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StorageKind {
    /// Survives a restart.
    Disk,
    /// Does not.
    Ram,
}

/// A network link of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// Permanent MAC address: its identity.
    pub mac: String,
    /// Kernel name at present.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Whether a cable carries.
    pub carrier: bool,
    /// Speed in Mbit/s, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u32>,
    /// Network whose uplink it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Addresses, in CIDR notation.
    pub addresses: Vec<String>,
}

/// Body of `PATCH /v1/system`: what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemPatch {
    /// The host's name. Leases of addresses are asked for under it from the next start of the manager on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Who may sign updates: public keys of minisign, 56 characters each. These instead of those before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_keys: Option<Vec<String>>,
}

/// Verbs: `POST /v1/system:{verb}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SystemAction {
    /// Power guests off, then the host.
    Shutdown,
    /// Power guests off, then restart the host.
    Reboot,
}
