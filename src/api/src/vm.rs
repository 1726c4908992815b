//! Guests.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

pub use crate::backup::BackupSchedule;
pub use crate::balloon::{VmBalloon, VmBalloonTarget, VmGuestMemory};
pub use crate::boot_device::BootDevice;
pub use crate::cloud_init::{CloudInitFiles, VmCloudInit};
pub use crate::cpu::{CpuModel, VmCpu};
pub use crate::disk_error::{DiskProblem, OnDiskError, VmDiskError};
pub use crate::import::{VmFetch, VmImport, VmImported};
pub use crate::limits::{VmDiskLimits, VmNicLimits};
pub use crate::plug::{VmAttach, VmDetach};
pub use crate::snapshot_schedule::SnapshotSchedule;
pub use crate::watchdog::Watchdog;
use crate::{Name, Size};

/// A guest: what is wanted (`spec`) and what is (`status`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vm {
    /// Stable identity, also the guest's SMBIOS UUID.
    pub id: Uuid,
    /// Name and configuration. Changes take effect at the next start, unless the method says otherwise.
    #[serde(flatten)]
    pub spec: VmSpec,
    /// What the host observes.
    pub status: VmStatus,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Revision of name and configuration; also the `ETag`.
    pub revision: u64,
}

/// A guest's name and configuration: the body of `POST /v1/vms` and `PUT /v1/vms/{vm}`
/// (which may rename). `PATCH` takes the same fields, all optional, as a JSON merge patch (RFC 7396).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Unique name.
    pub name: Name,
    /// Free text, at most 1024 characters.
    #[serde(default)]
    pub description: String,
    /// Virtual CPUs, 1 to 64.
    #[serde(default = "default_vcpus")]
    pub vcpus: u8,
    /// What they can do, and where they sit.
    #[serde(default)]
    pub cpu: VmCpu,
    /// Memory: a multiple of 1 MiB, at least 16 MiB.
    #[serde(default = "default_memory")]
    pub memory: Size,
    /// How it starts: by UEFI firmware, unless said otherwise.
    #[serde(default)]
    pub boot: VmBoot,
    /// Disks, in the order in which the guest sees them; at most 16.
    #[serde(default)]
    pub disks: Vec<VmDisk>,
    /// CD-ROM drives; at most 4, and with disks on `sata` at most 6.
    #[serde(default)]
    pub cdroms: Vec<VmCdrom>,
    /// Network interfaces, in the order in which the guest sees them; at most 8.
    #[serde(default)]
    pub nics: Vec<VmNic>,
    /// What its cloud-init is given at its first start, and again when that was changed; absent: there is no such disc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<VmCloudInit>,
    /// Snapshots that the host takes of it by itself; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_schedule: Option<SnapshotSchedule>,
    /// Backups that the host makes of it by itself, whether or not it runs; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_schedule: Option<BackupSchedule>,
    /// Start it when the host starts.
    #[serde(default)]
    pub autostart: bool,
    /// What to do when the guest ends other than by its own power-off or a user's stop.
    #[serde(default)]
    pub on_crash: OnCrash,
    /// A watchdog, and what is done when it expires.
    #[serde(default)]
    pub watchdog: Watchdog,
}

fn default_vcpus() -> u8 {
    1
}

fn default_memory() -> Size {
    Size::mib(512)
}

/// How a guest starts: by firmware, or directly from a kernel without any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmBoot {
    /// Firmware, which starts what is on a disk or the network; `uefi` when there is no kernel either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// What firmware tries, the first first, e.g. `["cdrom0", "disk1"]`: positions in `disks`, `cdroms` and `nics` from 0. Absent:
    /// all disks, then all CD-ROM drives, then all network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, example = json!(["disk0", "nic0"]))]
    pub order: Vec<BootDevice>,
    /// Image of kind `kernel`: bzImage or ELF `vmlinux`. Not together with `firmware`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Name>,
    /// Image of kind `initrd`, for the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<Name>,
    /// Command line of the kernel, at most 2047 bytes; `console=ttyS0`, the console of the API, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
}

impl VmBoot {
    /// The command line of a kernel that was given none.
    pub const DEFAULT_CMDLINE: &str = "console=ttyS0";
}

/// Firmware of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// UEFI with variables that stay (OVMF).
    Uefi,
    /// A PC BIOS (SeaBIOS).
    Bios,
}

impl Firmware {
    /// The word used in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::Bios => "bios",
        }
    }
}

/// A disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmDisk {
    /// Name of the disk.
    pub disk: Name,
    /// Whether the guest may only read it. Several guests may share a disk so.
    #[serde(default)]
    pub read_only: bool,
    /// What the guest reaches it by.
    #[serde(default)]
    pub bus: DiskBus,
    /// Most that the guest does with it.
    #[serde(default, skip_serializing_if = "VmDiskLimits::is_none")]
    pub limits: VmDiskLimits,
    /// What is done when the host cannot carry out what the guest asks of it.
    #[serde(default, skip_serializing_if = "OnDiskError::is_default")]
    pub on_error: OnDiskError,
}

/// What a guest reaches a disk by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskBus {
    /// A virtio device: the fast way.
    #[default]
    Virtio,
    /// A SATA controller, for old systems without virtio drivers.
    Sata,
    /// An NVMe controller: nearly as fast, for systems without virtio drivers.
    Nvme,
}

/// A CD-ROM drive of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCdrom {
    /// Image of kind `iso`, the disc in it; absent: the drive is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Name>,
}

/// Body of `POST /v1/vms/{vm}:disc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmDiscChange {
    /// Which drive: its position in `cdroms`, from 0.
    #[serde(default)]
    pub drive: u8,
    /// Image of kind `iso` to put in; absent: take out what is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Name>,
    /// Take a disc out even if the guest has locked it in.
    #[serde(default)]
    pub force: bool,
}

/// A network interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmNic {
    /// Network it is attached to.
    #[serde(default = "default_network")]
    pub network: Name,
    /// MAC address `xx:xx:xx:xx:xx:xx`, unicast and unique on this host; absent: one is
    /// generated and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
    pub mac: Option<String>,
    /// Which card the guest sees.
    #[serde(default)]
    pub model: NicModel,
    /// Whether its cable is plugged in: it can be pulled and plugged in again while the guest runs.
    #[serde(default)]
    pub link: NicLink,
    /// Pairs of queues, so that several vCPUs send and receive at a time; more than one for virtio only, and at most one for each
    /// vCPU. The guest's system says how many it uses; Linux uses all. A change takes effect at the guest's next start.
    /// Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 8)]
    pub queues: Option<u8>,
    /// Most that it moves.
    #[serde(default, skip_serializing_if = "VmNicLimits::is_none")]
    pub limits: VmNicLimits,
}

/// The link of a network interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NicLink {
    /// Packets pass.
    #[default]
    Up,
    /// No packets pass, and the guest sees an interface without a carrier.
    Down,
}

/// Which network card a guest sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NicModel {
    /// A virtio device: the fast way.
    #[default]
    Virtio,
    /// An Intel 82574L, for systems without virtio drivers.
    E1000e,
}

pub(crate) fn default_network() -> Name {
    "default".parse().expect("a valid name")
}

/// What to do when a guest crashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnCrash {
    /// Leave it stopped, with the reason in its status.
    #[default]
    Stop,
    /// Start it again, with growing pauses between attempts; but not after the event `vm_jail_violation`.
    Restart,
}

/// What a guest is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmStatus {
    /// State in one word.
    pub state: VmState,
    /// Why it is in this state, for a person; present after an end that nobody asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is in this state.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Resets since it was started.
    #[serde(default)]
    pub resets: u64,
    /// When its system said that it has crashed, if it has since its last reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub panicked_at: Option<Timestamp>,
    /// When its watchdog last expired, since it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub watchdog_expired_at: Option<Timestamp>,
    /// The disk for which it was paused, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_error: Option<VmDiskError>,
    /// Process id of its monitor on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// CPU time used since its start, in microseconds, monitor included.
    #[serde(default)]
    pub cpu_time_us: u64,
    /// Time in which it wanted to run and was held back by `cpu.limit`, since its start, in microseconds.
    #[serde(default)]
    pub cpu_throttled_us: u64,
    /// Time for which requests to its disks were held back by the disks' `limits`, since its start, in microseconds: the sum of all their queues.
    #[serde(default)]
    pub disk_throttled_us: u64,
    /// Memory its monitor holds now, guest memory included.
    #[serde(default)]
    pub memory_used: Size,
    /// What a running guest keeps of its memory, see `POST /v1/vms/{vm}:balloon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<VmBalloon>,
    /// A running guest's memory in its own eyes; absent when it has no driver for its balloon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_memory: Option<VmGuestMemory>,
    /// A running guest's address for `AF_VSOCK` sockets, see `GET /v1/vms/{vm}/vsock`; absent when the host has no vhost-vsock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_cid: Option<u32>,
    /// Whether its configuration was changed since it was started.
    #[serde(default)]
    pub restart_pending: bool,
}

/// State of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Not running.
    Stopped,
    /// Its monitor is being set up.
    Starting,
    /// Running.
    Running,
    /// Held; its memory stays.
    Paused,
    /// Asked to power off.
    Stopping,
    /// Ended by a fault: of the guest (triple fault) or of its monitor. `reason` says which.
    Crashed,
}

impl VmState {
    /// Whether a monitor process exists.
    pub fn is_active(self) -> bool {
        !matches!(self, Self::Stopped | Self::Crashed)
    }

    /// The word used in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Crashed => "crashed",
        }
    }
}

/// Verbs: `POST /v1/vms/{vm}:{verb}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmAction {
    /// Start a stopped guest.
    Start,
    /// Press its power button and wait for it to power off.
    Stop,
    /// End it at once.
    Kill,
    /// Hardware reset.
    Reset,
    /// Hold it.
    Pause,
    /// Continue it.
    Resume,
}

impl VmAction {
    /// All verbs.
    pub const ALL: [Self; 6] = [
        Self::Start,
        Self::Stop,
        Self::Kill,
        Self::Reset,
        Self::Pause,
        Self::Resume,
    ];

    /// The word used in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Reset => "reset",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// Optional body of `POST /v1/vms/{vm}:stop`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmStopOptions {
    /// Seconds to wait for the guest, 1 to 3600 (default 60).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Kill the guest when the time is over; otherwise the operation fails and the guest runs on.
    #[serde(default)]
    pub force: bool,
}

/// Query parameters of the console WebSocket `GET /v1/vms/{vm}/console`.
///
/// Binary frames carry bytes both ways. The server closes with code 1000 when
/// the guest ends.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, utoipa::IntoParams,
)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConsoleParams {
    /// Bytes of history to send first (default 65536, at most 262144).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrollback: Option<u32>,
    /// `serial` (default) or `virtio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<ConsolePort>,
}

/// Query parameters of the WebSocket `GET /v1/vms/{vm}/vsock`.
///
/// Binary frames carry bytes both ways; an empty one says that no more comes, which the guest
/// reads as the end. The server closes with code 1000 when the guest has closed its side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VsockParams {
    /// The port on which something in the guest listens, 0 to 4294967294.
    pub port: u32,
}

/// A guest's text consoles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsolePort {
    /// The first serial port (`ttyS0`).
    #[default]
    Serial,
    /// The virtio console (`hvc0`).
    Virtio,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_enough() {
        let spec = spec(r#"{"name": "web"}"#).unwrap();
        assert_eq!(spec.boot, VmBoot::default());
    }

    fn spec(json: &str) -> Result<VmSpec, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn little_is_needed() {
        let spec = spec(r#"{"name": "web", "boot": {"kernel": "debian"}}"#).unwrap();
        assert_eq!(spec.vcpus, 1);
        assert_eq!(spec.cpu, VmCpu::default());
        assert_eq!(spec.boot.firmware, None);
        assert_eq!(spec.memory, Size::mib(512));
        assert_eq!(spec.on_crash, OnCrash::Stop);
        assert_eq!(spec.watchdog, Watchdog::None);
    }

    #[test]
    fn unknown_fields_are_named() {
        for json in [
            r#"{"name": "web", "boot": {"kernel": "debian"}, "cpus": 2}"#,
            r#"{"name": "web", "boot": {"kernel": "debian", "args": ""}}"#,
            r#"{"name": "web", "boot": {"kernel": "k"}, "nics": [{"net": "x"}]}"#,
        ] {
            let error = spec(json).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn a_response_is_flat_and_may_grow() {
        let json = r#"{"id": "a1b2c3d4-0000-4000-8000-000000000000", "name": "web",
            "boot": {"kernel": "debian"}, "created_at": "2026-01-01T00:00:00Z", "revision": 7,
            "status": {"state": "running", "since": "2026-01-01T00:00:00Z"}, "later": true}"#;
        let vm: Vm = serde_json::from_str(json).unwrap();
        assert_eq!(vm.spec.name.as_str(), "web");
        let back = serde_json::to_value(&vm).unwrap();
        assert_eq!(back["name"], "web");
        assert_eq!(back["boot"]["kernel"], "debian");
    }
}
