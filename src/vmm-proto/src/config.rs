//! What a monitor is told at birth: the guest's hardware and the descriptors behind it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{CpuConfig, CpuFeature, DiskLimits, OnDiskError};

/// Most vCPUs one guest may have.
pub const MAX_VCPUS: u8 = 64;

/// Least memory one guest may have, in bytes (16 MiB): below it no Linux kernel unpacks.
pub const MIN_MEMORY: u64 = 16 << 20;

/// Position of a descriptor in the list sent along with [`Launch`], from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FdIndex(pub u16);

/// The first and only message of the manager on the birth socket.
///
/// The descriptors travel with it (`SCM_RIGHTS`); each [`FdIndex`] points into them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// [`crate::PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// The guest to build.
    pub guest: GuestConfig,
    /// `/dev/kvm`, opened read-write.
    pub kvm: FdIndex,
    /// The bound and listening control socket (`SOCK_SEQPACKET`).
    pub control: FdIndex,
    /// An empty regular file that receives the [`crate::ExitRecord`].
    pub exit_record: FdIndex,
    /// Unprivileged user and group id to become; `None` keeps the caller's
    /// (hosted mode without root, and tests).
    #[serde(default)]
    pub uid_gid: Option<(u32, u32)>,
    /// A saved state to begin with, instead of power-on. The guest is otherwise to be the one that was saved: as many vCPUs,
    /// as much memory, the same devices in the same order.
    #[serde(default)]
    pub restore: Option<Restore>,
    /// Enter empty namespaces and install seccomp filters. Off only in tests
    /// on machines that forbid it.
    #[serde(default = "yes")]
    pub jail: bool,
}

/// The files of a saved guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restore {
    /// What [`crate::RequestBody::SaveState`] wrote, opened for reading.
    pub state: FdIndex,
    /// What [`crate::RequestBody::SaveMemory`] wrote, opened for reading. The guest sees it as its memory, and it must stay as it is
    /// for as long as the guest runs; what the guest writes is its own.
    pub memory: FdIndex,
}

/// A guest's virtual hardware.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// Stable identity; also the SMBIOS system UUID.
    pub id: Uuid,
    /// Name, for logs and the process title.
    pub name: String,
    /// 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// What they can do, and where they sit.
    #[serde(default)]
    pub cpu: CpuConfig,
    /// Guest memory in bytes, a multiple of 4 KiB, at least [`MIN_MEMORY`].
    pub memory: u64,
    /// How the guest starts.
    pub boot: Boot,
    /// Disks: those on virtio and NVMe in PCI slot order, those on SATA in the order of its ports.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// CD-ROM drives, on the SATA controller after its disks.
    #[serde(default)]
    pub cdroms: Vec<CdromConfig>,
    /// Network interfaces in PCI slot order.
    #[serde(default)]
    pub nics: Vec<NicConfig>,
    /// Sockets between guest and host, where the host has them.
    #[serde(default)]
    pub vsock: Option<VsockConfig>,
    /// What comes of the guest's wish for a reset.
    #[serde(default)]
    pub on_reset: OnReset,
    /// A watchdog, and what comes of its expiry.
    #[serde(default)]
    pub watchdog: Option<WatchdogAction>,
}

/// What comes of a watchdog that its guest's system no longer reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchdogAction {
    /// As if the guest had reset itself: see [`OnReset`].
    Reset,
    /// It ends, with [`crate::ExitReason::Watchdog`].
    PowerOff,
    /// It is paused, for somebody to look at.
    Pause,
}

/// What a guest gets that resets itself. A reset by the manager always boots.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReset {
    /// It boots again, in the same monitor.
    #[default]
    Boot,
    /// It ends, with [`crate::ExitReason::GuestReset`].
    Stop,
}

/// How a guest starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Boot {
    /// The monitor loads a kernel itself; no firmware runs.
    Direct {
        /// bzImage or ELF `vmlinux`, plain or compressed; detected from the content.
        kernel: FdIndex,
        /// Initial RAM disk, passed on as it is.
        #[serde(default)]
        initrd: Option<FdIndex>,
        /// Kernel command line, without the terminating NUL.
        #[serde(default)]
        cmdline: String,
    },
    /// Firmware runs and finds the rest.
    Firmware {
        /// The ROM, which ends at 4 GiB: 64 KiB to 8 MiB.
        code: FdIndex,
        /// UEFI variables, right below the ROM: 4 KiB to 1 MiB, opened for reading and writing.
        #[serde(default)]
        variables: Option<FdIndex>,
        /// What to boot from, the first first. What is not named comes after, as firmware likes.
        #[serde(default)]
        order: Vec<BootDevice>,
        /// The option ROM that makes a BIOS show its text on the guest's screen: 1 byte to 64 KiB. UEFI brings its own.
        #[serde(default)]
        display_rom: Option<FdIndex>,
        /// The option ROMs by which a BIOS boots from network cards, at most one for a model. UEFI brings its own for virtio.
        #[serde(default)]
        network_roms: Vec<NetworkRom>,
    },
}

/// What a BIOS boots from network cards by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRom {
    /// The cards it drives.
    pub model: NicModel,
    /// The ROM: 1 byte to 128 KiB.
    pub rom: FdIndex,
}

/// Something to boot from, by its position in [`GuestConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootDevice {
    /// One of the disks.
    Disk(u8),
    /// One of the network interfaces, by PXE.
    Nic(u8),
    /// One of the CD-ROM drives.
    Cdrom(u8),
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// The raw file or block device, opened with the access mode of `read_only`.
    pub file: FdIndex,
    /// What the guest reaches it by.
    #[serde(default)]
    pub bus: DiskBus,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
    /// Serial number: at most 20 ASCII bytes (virtio 1.2, 5.2.6; ACS-3, 7.12.7; NVM Express 1.4, 5.15).
    #[serde(default)]
    pub serial: String,
    /// What it is held to, until [`crate::RequestBody::LimitDisk`].
    #[serde(default, skip_serializing_if = "DiskLimits::is_none")]
    pub limits: DiskLimits,
    /// What is done with requests that fail, until [`crate::RequestBody::DiskErrors`].
    #[serde(default)]
    pub on_error: OnDiskError,
}

/// What a guest reaches a disk by.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskBus {
    /// A virtio-blk device of its own.
    #[default]
    Virtio,
    /// A port of the AHCI controller, for guests without virtio drivers.
    Sata,
    /// An NVM Express controller of its own, for guests without virtio drivers.
    Nvme,
}

/// One CD-ROM drive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CdromConfig {
    /// The raw image of the disc in it, opened for reading.
    #[serde(default)]
    pub disc: Option<FdIndex>,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NicConfig {
    /// A tap opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, non-blocking.
    pub tap: FdIndex,
    /// Which card the guest sees.
    #[serde(default)]
    pub model: NicModel,
    /// `/dev/vhost-net`, when the host has it; for [`NicModel::Virtio`] only.
    #[serde(default)]
    pub vhost: Option<FdIndex>,
    /// What its second pair of queues and those after it are served by, at most [`NicConfig::MAX_QUEUE_PAIRS`] less one; for
    /// [`NicModel::Virtio`] only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_pairs: Vec<QueuePair>,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// The largest packet payload the link carries, in bytes (68 to 65535).
    #[serde(default = "ethernet_mtu")]
    pub mtu: u16,
    /// Whether the guest finds the link up, until [`crate::RequestBody::SetLink`].
    #[serde(default = "link_up")]
    pub link_up: bool,
}

/// What a pair of queues of a network interface is served by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePair {
    /// Another queue of the interface's tap, opened with the flags of the first; all of them with `IFF_MULTI_QUEUE`.
    pub tap: FdIndex,
    /// `/dev/vhost-net`, opened once more, when the host has it.
    #[serde(default)]
    pub vhost: Option<FdIndex>,
}

fn link_up() -> bool {
    true
}

/// Which network card a guest sees.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicModel {
    /// A virtio-net device.
    #[default]
    Virtio,
    /// An Intel 82574L, for guests without virtio drivers.
    E1000e,
}

/// The virtio-vsock device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VsockConfig {
    /// The guest's address: 3 to 0xffff_fffe, and no other running guest's of the host.
    pub cid: u32,
    /// `/dev/vhost-vsock`, opened for reading and writing.
    pub vhost: FdIndex,
}

/// The monitor's only answer on the birth socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LaunchReply {
    /// The guest runs; everything else goes over the control socket.
    Launched,
    /// The guest could not be built. The monitor exits.
    Failed {
        /// What kind of failure.
        error: LaunchError,
        /// What is wrong and what to do about it, for a person.
        message: String,
    },
}

/// Kinds of launch failures, so that the manager can point at the right field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchError {
    /// The kernel file is none, damaged, or too large for the guest's memory.
    Kernel,
    /// A firmware file is not what it should be.
    Firmware,
    /// The initial RAM disk does not fit.
    Initrd,
    /// The command line is too long or not printable.
    Cmdline,
    /// The memory could not be had.
    Memory,
    /// This host cannot give the processors that are wanted.
    Cpu,
    /// A disk could not be attached.
    Disk,
    /// A network interface could not be attached.
    Nic,
    /// The saved state cannot be used for this guest.
    State,
    /// The sockets between guest and host could not be had.
    Vsock,
    /// KVM refused.
    Kvm,
    /// The jail could not be built.
    Jail,
    /// Anything else.
    Internal,
}

/// A [`GuestConfig`] that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConfigError {
    /// Field of [`GuestConfig`], in dotted form (`disks.0.serial`).
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl Launch {
    /// Checks every bound the monitor relies on, given how many descriptors came along.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn validate(&self, fds: usize) -> Result<(), ConfigError> {
        for (field, index) in self.descriptors() {
            if usize::from(index.0) >= fds {
                return Err(ConfigError::new(
                    field,
                    format!("descriptor {} of {fds} does not exist", index.0),
                ));
            }
        }
        self.guest.validate()
    }

    fn descriptors(&self) -> Vec<(String, FdIndex)> {
        let mut all = vec![
            ("kvm".to_owned(), self.kvm),
            ("control".to_owned(), self.control),
            ("exit_record".to_owned(), self.exit_record),
        ];
        if let Some(restore) = &self.restore {
            all.push(("restore.state".to_owned(), restore.state));
            all.push(("restore.memory".to_owned(), restore.memory));
        }
        match &self.guest.boot {
            Boot::Direct { kernel, initrd, .. } => {
                all.push(("boot.kernel".to_owned(), *kernel));
                all.extend(initrd.map(|fd| ("boot.initrd".to_owned(), fd)));
            }
            Boot::Firmware {
                code,
                variables,
                display_rom,
                network_roms,
                ..
            } => {
                all.push(("boot.code".to_owned(), *code));
                all.extend(variables.map(|fd| ("boot.variables".to_owned(), fd)));
                all.extend(display_rom.map(|fd| ("boot.display_rom".to_owned(), fd)));
                for (number, network) in network_roms.iter().enumerate() {
                    all.push((format!("boot.network_roms.{number}.rom"), network.rom));
                }
            }
        }
        for (slot, disk) in self.guest.disks.iter().enumerate() {
            all.push((format!("disks.{slot}.file"), disk.file));
        }
        for (slot, cdrom) in self.guest.cdroms.iter().enumerate() {
            all.extend(cdrom.disc.map(|fd| (format!("cdroms.{slot}.disc"), fd)));
        }
        for (slot, nic) in self.guest.nics.iter().enumerate() {
            all.extend(nic.descriptors(&format!("nics.{slot}")));
        }
        let vsock = self.guest.vsock.as_ref();
        all.extend(vsock.map(|vsock| ("vsock.vhost".to_owned(), vsock.vhost)));
        all
    }
}

impl DiskConfig {
    /// `at` is the field that holds it.
    pub(crate) fn validate(&self, at: &str) -> Result<(), ConfigError> {
        if self.serial.len() > 20 || !self.serial.is_ascii() {
            return Err(ConfigError::new(
                format!("{at}.serial"),
                "at most 20 ASCII characters",
            ));
        }
        self.limits.validate(&format!("{at}.limits"))
    }
}

impl NicConfig {
    /// Most pairs of queues of one network interface.
    pub const MAX_QUEUE_PAIRS: usize = 8;

    /// All pairs of queues, the first included.
    pub fn pairs(&self) -> impl Iterator<Item = QueuePair> {
        let first = QueuePair {
            tap: self.tap,
            vhost: self.vhost,
        };
        std::iter::once(first).chain(self.further_pairs.iter().copied())
    }

    /// Its descriptors by their fields; `at` is the field that holds it.
    pub(crate) fn descriptors(&self, at: &str) -> Vec<(String, FdIndex)> {
        let mut all = Vec::new();
        for (number, pair) in self.pairs().enumerate() {
            let at = match number.checked_sub(1) {
                None => at.to_owned(),
                Some(further) => format!("{at}.further_pairs.{further}"),
            };
            all.push((format!("{at}.tap"), pair.tap));
            all.extend(pair.vhost.map(|fd| (format!("{at}.vhost"), fd)));
        }
        all
    }

    /// `at` is the field that holds it.
    pub(crate) fn validate(&self, at: &str) -> Result<(), ConfigError> {
        if self.mac[0] & 1 != 0 {
            return Err(ConfigError::new(
                format!("{at}.mac"),
                "must be a unicast address",
            ));
        }
        if self.model != NicModel::Virtio && self.vhost.is_some() {
            return Err(ConfigError::new(
                format!("{at}.vhost"),
                "serves virtio cards only",
            ));
        }
        let most = match self.model {
            NicModel::Virtio => Self::MAX_QUEUE_PAIRS,
            NicModel::E1000e => 1,
        };
        if self.further_pairs.len() >= most {
            return Err(ConfigError::new(
                format!("{at}.further_pairs"),
                format!("at most {most} pairs of queues, the first included"),
            ));
        }
        if self.mtu < 68 {
            return Err(ConfigError::new(format!("{at}.mtu"), "must be at least 68"));
        }
        Ok(())
    }
}

impl GuestConfig {
    /// Most disks plus network interfaces: what fits on PCI bus 0 beside the fixed devices.
    pub const MAX_DEVICES: usize = 24;

    /// Most disks on SATA plus CD-ROM drives: the ports of the controller.
    pub const MAX_SATA: usize = 6;

    /// Longest kernel command line in bytes: `COMMAND_LINE_SIZE` of x86 Linux less the NUL.
    pub const MAX_CMDLINE: usize = 2047;

    fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(ConfigError::new(
                "vcpus",
                format!("must be 1 to {MAX_VCPUS}"),
            ));
        }
        if self
            .cpu
            .topology
            .is_some_and(|topology| !topology.fits(self.vcpus))
        {
            return Err(ConfigError::new(
                "cpu.topology",
                "sockets, cores and threads must give the number of vCPUs, with 1 or 2 threads",
            ));
        }
        let mut named = self.cpu.add.iter().chain(&self.cpu.remove);
        if let Some(name) = named.find(|name| CpuFeature::named(name).is_none()) {
            let problem = format!("there is no feature {name:?}");
            return Err(ConfigError::new("cpu.features", problem));
        }
        if self.memory < MIN_MEMORY || !self.memory.is_multiple_of(4096) {
            return Err(ConfigError::new(
                "memory",
                "must be a multiple of 4096 bytes and at least 16 MiB",
            ));
        }
        if self.disks.len() + self.nics.len() > Self::MAX_DEVICES {
            return Err(ConfigError::new(
                "disks",
                format!("at most {} disks and nics together", Self::MAX_DEVICES),
            ));
        }
        let sata = self.disks.iter().filter(|disk| disk.bus == DiskBus::Sata);
        if sata.count() + self.cdroms.len() > Self::MAX_SATA {
            return Err(ConfigError::new(
                "cdroms",
                format!(
                    "at most {} disks on SATA and CD-ROM drives together",
                    Self::MAX_SATA
                ),
            ));
        }
        self.validate_boot()?;
        for (slot, disk) in self.disks.iter().enumerate() {
            disk.validate(&format!("disks.{slot}"))?;
        }
        for (slot, nic) in self.nics.iter().enumerate() {
            nic.validate(&format!("nics.{slot}"))?;
        }
        // 0 to 2 are the hypervisor, the local machine and the host; the last stands for any.
        let cid = self.vsock.as_ref().map(|vsock| vsock.cid);
        if cid.is_some_and(|cid| !(3..u32::MAX).contains(&cid)) {
            return Err(ConfigError::new("vsock.cid", "must be 3 to 4294967294"));
        }
        Ok(())
    }

    fn validate_boot(&self) -> Result<(), ConfigError> {
        match &self.boot {
            Boot::Direct { cmdline, .. }
                if cmdline.len() > Self::MAX_CMDLINE || cmdline.bytes().any(|b| b == 0) =>
            {
                Err(ConfigError::new(
                    "boot.cmdline",
                    format!("at most {} bytes, none of them NUL", Self::MAX_CMDLINE),
                ))
            }
            Boot::Firmware { order, .. } if order.len() > Self::MAX_DEVICES => {
                Err(ConfigError::new(
                    "boot.order",
                    format!("at most {} devices", Self::MAX_DEVICES),
                ))
            }
            Boot::Direct { .. } | Boot::Firmware { .. } => Ok(()),
        }
    }
}

fn yes() -> bool {
    true
}

fn ethernet_mtu() -> u16 {
    1500
}
