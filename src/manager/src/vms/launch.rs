//! Starting a guest: opening everything it may touch, and handing it over.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lodge_api::vm::{DiskBus, NicLink, NicModel, VmDisk, VmNic, VmSpec};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_block::datastore::Access;
use lodge_host::cgroup::{Cgroup, CgroupLimits};
use lodge_host::net::open_vhost_net;
use lodge_host::process::AsyncPidFd;
use lodge_host::system::Memory;
use lodge_store::Snapshot;
use lodge_vmm_proto::{
    DiskConfig, FdIndex, GuestConfig, GuestEvent, GuestStatus, Launch, LaunchError, NicConfig,
    OnReset, PROTOCOL_VERSION, QueuePair, Restore, SpawnError,
};
use nix::fcntl::FcntlArg;
use tokio::sync::mpsc;

use super::adopt::{self, Fate};
use super::claims::HostMemory;
use super::control::{self, Control};
use super::run_dir::{LaunchNote, RunDir};
use super::{VmRecord, boot, cpu, disc, disk_error, limits, spawn, spec_check, vsock, watchdog};
use crate::catalogue;
use crate::core::{Core, blocking, internal};
use crate::images::{datastore_problem, file_name};
use crate::snapshots::{self, Part};

/// How long a guest may take until it runs. Machines that emulate KVM are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a disk is waited for whose last user has just ended. It takes the kernel longest while it takes down network
/// namespaces, of which every guest has one: more than six seconds were seen.
const RELEASE_PATIENCE: Duration = Duration::from_secs(20);

/// How long an ended guest's cgroup may take to get empty.
const EMPTY_PATIENCE: Duration = Duration::from_secs(2);

/// The first of the user ids guests run under; nobody else uses them.
const FIRST_UID: u32 = 200_000;

/// Memory a monitor may use beyond its guest's: page tables, queues, its own code.
const HEADROOM: u64 = 128 << 20;

/// Threads a monitor may have beside one per virtual CPU: up to five for each of 16 disks, one for each of the up to eight pairs of
/// queues of eight network interfaces, and the kernel's own for what a disk's file cannot do at once.
const THREADS: u64 = 320;

/// A running guest.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) control: Control,
    pub(crate) process: AsyncPidFd,
    pub(crate) pid: i32,
    pub(crate) run: RunDir,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) note: LaunchNote,
}

/// A guest that has just been started or found.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) guest: Guest,
    pub(crate) notices: mpsc::Receiver<GuestEvent>,
    pub(crate) status: GuestStatus,
}

/// Starts a guest. After an error nothing of it is left, and it holds nothing.
///
/// A guest may have ended before it is found: then it was started all the same.
/// `from` names the snapshot whose memory it goes on from; without, it boots.
pub(crate) async fn launch(
    core: Arc<Core>,
    record: VmRecord,
    from: Option<uuid::Uuid>,
) -> Result<Fate, Problem> {
    let id = record.id;
    let result = try_launch(&core, &record, from).await;
    if result.is_err() {
        core.vms.claims.release(id);
        clean_up(&core, &RunDir::new(&core.config.run_dir, id), id).await;
    }
    result
}

async fn try_launch(
    core: &Arc<Core>,
    record: &VmRecord,
    from: Option<uuid::Uuid>,
) -> Result<Fate, Problem> {
    let kvm = open_kvm(core)?;
    // The host may have fewer processors than when it was configured.
    limits::check(&record.spec, &core.controls())?;
    claim(core, record)?;
    // Before the run directory is made: a manager that ends meanwhile leaves nothing to be found.
    let turn = core.vms.launches.acquire().await;
    let mut fds = Descriptors::default();
    let kvm = fds.add(kvm);
    let boot = boot::open(core, record, &mut fds)?;
    let (disks, disk_ids) = open_disks(core, record, &mut fds).await?;
    let cdroms = disc::open_all(core, record, &mut fds)?;
    let nics = attach_nics(core, record, &mut fds).await?;
    let restore = from.map(|from| open_saved(core, from, &mut fds));
    let restore = restore.transpose()?;
    let vsock = vsock::open(record.id, &mut fds);
    let run = RunDir::new(&core.config.run_dir, record.id);
    let failed = |error: io::Error| internal(format!("the run directory: {error}"));
    run.create().map_err(failed)?;
    let control = fds.add(run.listen().map_err(failed)?);
    let exit_record = fds.add(run.create_exit_file().map_err(failed)?);
    let log = run.create_log().map_err(failed)?;
    let root = nix::unistd::geteuid().is_root();
    let uid_index = (core.config.jail && root).then(|| core.vms.claims.uid_index(record.id));
    let note = LaunchNote {
        spec: record.spec.clone(),
        disks: disk_ids,
        uid_index,
        vsock_cid: vsock.as_ref().map(|vsock| vsock.cid),
        arriving: None,
        started_at: Timestamp::now(),
    };
    run.write_note(&note).map_err(failed)?;
    let launch = Launch {
        version: PROTOCOL_VERSION,
        guest: GuestConfig {
            id: record.id,
            name: record.spec.name.to_string(),
            vcpus: record.spec.vcpus,
            cpu: cpu::configured(&record.spec)?,
            memory: record.spec.memory.bytes(),
            boot,
            disks,
            cdroms,
            nics,
            vsock,
            on_reset: OnReset::Boot,
            watchdog: watchdog::configured(record.spec.watchdog),
        },
        kvm,
        control,
        exit_record,
        restore,
        uid_gid: uid_index.map(|index| (FIRST_UID + index, FIRST_UID + index)),
        jail: core.config.jail,
    };
    let cgroup = make_cgroup(core, record)?;
    let command = spawn::command(&core.config.vmm_exe, log, cgroup.as_ref())
        .map_err(|error| internal(format!("the monitor's log or cgroup: {error}")))?;
    let spawned = tokio::task::spawn_blocking(move || {
        let borrowed: Vec<_> = fds.fds.iter().map(AsFd::as_fd).collect();
        lodge_vmm_proto::spawn(command, &launch, &borrowed, PATIENCE)
    });
    spawned
        .await
        .map_err(|error| internal(format!("starting the monitor failed: {error}")))?
        .map_err(|error| spawn_problem(&error, &run))?;
    drop(turn);
    let found = match control::find(&run.socket()).await {
        Ok(found) => found,
        Err(error) if adopt::is_gone(&error) || run.exit_record().is_some() => {
            return Ok(Fate::Ended(adopt::end(core, record.id, &run)));
        }
        Err(error) => {
            return Err(internal(format!(
                "the new monitor cannot be reached: {error}"
            )));
        }
    };
    Ok(Fate::Runs(Box::new(Launched {
        guest: Guest {
            control: found.control,
            process: found.process.into_async().map_err(failed)?,
            pid: found.pid,
            run,
            cgroup,
            note,
        },
        notices: found.notices,
        status: found.status,
    })))
}

/// Removes what belongs to a guest that does not run, and whatever of it still does.
pub(crate) async fn clean_up(core: &Core, run: &RunDir, id: uuid::Uuid) {
    if let Err(error) = run.remove() {
        tracing::warn!(%error, %id, "a guest's run directory stays");
    }
    let leaf = core
        .cgroups
        .as_ref()
        .and_then(|tree| tree.leaf(&id.to_string()).ok());
    let Some(leaf) = leaf else { return };
    let deadline = Instant::now() + EMPTY_PATIENCE;
    loop {
        // A kernel without cgroup.kill has nothing left in it either, usually.
        let killed = leaf.kill();
        // The kernel takes a moment to empty a group.
        match leaf.remove() {
            Ok(()) => return,
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => {
                tracing::warn!(%id, %error, ?killed, "a guest's cgroup stays");
                return;
            }
        }
    }
}

/// Descriptors on their way to the monitor.
#[derive(Default)]
pub(super) struct Descriptors {
    fds: Vec<OwnedFd>,
}

impl Descriptors {
    pub(super) fn add(&mut self, fd: impl Into<OwnedFd>) -> FdIndex {
        self.fds.push(fd.into());
        // The configuration has fewer than go with one message.
        FdIndex(u16::try_from(self.fds.len() - 1).unwrap_or(u16::MAX))
    }

    pub(super) fn into_all(self) -> Vec<OwnedFd> {
        self.fds
    }
}

/// The refusal to start guests where KVM does not work.
pub(crate) fn require_kvm(core: &Core) -> Result<(), Problem> {
    let kvm = &core.host.kvm;
    if kvm.usable() {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::KvmUnavailable, kvm.message.clone()))
}

fn open_kvm(core: &Core) -> Result<File, Problem> {
    require_kvm(core)?;
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| Problem::new(ErrorCode::KvmUnavailable, format!("/dev/kvm: {error}")))
}

fn claim(core: &Core, record: &VmRecord) -> Result<(), Problem> {
    let spec = &record.spec;
    let snapshot = core.snapshot();
    let mut disks = Vec::new();
    for (number, disk) in spec.disks.iter().enumerate() {
        let found = spec_check::disk(&snapshot, &disk.disk, &format!("/disks/{number}/disk"))?;
        disks.push((found.id, disk.read_only));
    }
    core.vms
        .claims
        .disks(record.id, &disks)
        .map_err(|conflict| {
            let disk = &spec.disks[conflict.number].disk;
            held_by(&snapshot, disk, conflict.holder)
                .with_pointer(format!("/disks/{}/disk", conflict.number))
        })?;
    let memory = Memory::read().unwrap_or_default();
    let host = HostMemory {
        total: memory.total,
        available: memory.available,
    };
    core.vms.claims.memory(record.id, spec.memory.bytes(), host)
}

/// The refusal of a disk that another guest holds.
pub(super) fn held_by(snapshot: &Snapshot, disk: &Name, holder: uuid::Uuid) -> Problem {
    let holder = name_of(snapshot, holder);
    let detail = format!("the disk \"{disk}\" is used by the running guest {holder}");
    Problem::new(ErrorCode::InUse, detail)
        .with_hint("stop that guest, or attach the disk to both for reading only")
}

fn name_of(snapshot: &Snapshot, id: uuid::Uuid) -> String {
    catalogue::find::<VmRecord>(snapshot, &id.to_string()).map_or_else(
        |_| id.to_string(),
        |vm| format!("\"{}\"", vm.value.spec.name),
    )
}

async fn open_disks(
    core: &Core,
    record: &VmRecord,
    fds: &mut Descriptors,
) -> Result<(Vec<DiskConfig>, Vec<uuid::Uuid>), Problem> {
    let snapshot = core.snapshot();
    let (mut configs, mut ids) = (Vec::new(), Vec::new());
    for (number, entry) in record.spec.disks.iter().enumerate() {
        let pointer = format!("/disks/{number}/disk");
        let disk = spec_check::disk(&snapshot, &entry.disk, &pointer)?;
        let file = open_disk(core, entry, disk.id)
            .await
            .map_err(|problem| problem.with_pointer(pointer))?;
        configs.push(DiskConfig {
            file: fds.add(file),
            bus: match entry.bus {
                DiskBus::Virtio => lodge_vmm_proto::DiskBus::Virtio,
                DiskBus::Sata => lodge_vmm_proto::DiskBus::Sata,
                DiskBus::Nvme => lodge_vmm_proto::DiskBus::Nvme,
            },
            read_only: entry.read_only,
            serial: serial(disk.id),
            limits: limits::of_disk(&entry.limits),
            on_error: disk_error::configured(entry.on_error),
        });
        ids.push(disk.id);
    }
    Ok((configs, ids))
}

/// The serial number of a disk, by which its monitor knows it as well.
pub(super) fn serial(disk: uuid::Uuid) -> String {
    // Twenty digits are what virtio has room for (virtio 1.2, 5.2.6).
    disk.simple().to_string()[..20].to_owned()
}

/// Opens and locks the file of a disk.
pub(super) async fn open_disk(
    core: &Core,
    entry: &VmDisk,
    disk: uuid::Uuid,
) -> Result<File, Problem> {
    let access = Access {
        write: !entry.read_only,
        direct: true,
    };
    let (disks, name) = (core.folders_of_disk(disk)?.disks, file_name(disk)?);
    let read_only = entry.read_only;
    // Servers are asked for both.
    let opened = blocking(move || {
        let file = disks.open_file(&name, access);
        let file = file.map_err(|error| datastore_problem(&error))?;
        Ok(lock(&file, read_only).map(|()| file))
    });
    opened.await?.map_err(|error| {
        let name = &entry.disk;
        let detail = format!("the disk \"{name}\" is used by another program: {error}");
        Problem::new(ErrorCode::InUse, detail)
    })
}

/// Locks a disk's file for as long as any copy of the descriptor is open, so that programs outside
/// of Lodge which ask are kept off as well.
///
/// The kernel closes what a monitor's io_uring held a moment after the monitor has ended.
fn lock(file: &File, read_only: bool) -> io::Result<()> {
    let deadline = Instant::now() + RELEASE_PATIENCE;
    loop {
        match try_lock(file, read_only) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn try_lock(file: &File, read_only: bool) -> io::Result<()> {
    let kind = if read_only {
        libc::F_RDLCK
    } else {
        libc::F_WRLCK
    };
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(file, FcntlArg::F_OFD_SETLK(&lock))?;
    Ok(())
}

/// The state and memory of a snapshot.
fn open_saved(core: &Core, id: uuid::Uuid, fds: &mut Descriptors) -> Result<Restore, Problem> {
    Ok(Restore {
        state: fds.add(snapshots::open(&core.saved, id, Part::State)?),
        memory: fds.add(snapshots::open(&core.saved, id, Part::Memory)?),
    })
}

async fn attach_nics(
    core: &Core,
    record: &VmRecord,
    fds: &mut Descriptors,
) -> Result<Vec<NicConfig>, Problem> {
    let mut configs = Vec::new();
    for (number, nic) in record.spec.nics.iter().enumerate() {
        let pointer = format!("/nics/{number}");
        configs.push(attach_nic(core, record.id, nic, &pointer, fds).await?);
    }
    Ok(configs)
}

/// A tap on the network of an interface, held to its limits. Problems point at the fields below `pointer`.
pub(super) async fn attach_nic(
    core: &Core,
    vm: uuid::Uuid,
    nic: &VmNic,
    pointer: &str,
    fds: &mut Descriptors,
) -> Result<NicConfig, Problem> {
    let text = nic.mac.as_deref().unwrap_or_default();
    let mac = spec_check::parse_mac(text).map_err(internal)?;
    let key = limits::tap_key(vm, nic);
    let queues = nic.queues.unwrap_or(1);
    let tap = core.attach_tap(&nic.network, &key, queues).await;
    let tap = tap.map_err(|problem| problem.with_pointer(format!("{pointer}/network")))?;
    if !nic.limits.is_none() {
        let limited = core.limit_nic(vm, nic).await;
        limited.map_err(|problem| problem.with_pointer(format!("{pointer}/limits")))?;
    }
    if nic.link == NicLink::Down {
        let pulled = core.pass_packets(vm, nic).await;
        pulled.map_err(|problem| problem.with_pointer(format!("{pointer}/link")))?;
    }
    let mut pair = |tap: OwnedFd| {
        let vhost = vhost_for(nic.model);
        QueuePair {
            tap: fds.add(tap),
            vhost: vhost.map(|vhost| fds.add(vhost)),
        }
    };
    let first = pair(tap.fd);
    Ok(NicConfig {
        tap: first.tap,
        model: model(nic.model),
        vhost: first.vhost,
        further_pairs: tap.further.into_iter().map(pair).collect(),
        mac,
        mtu: u16::try_from(tap.mtu).unwrap_or(u16::MAX),
        link_up: nic.link == NicLink::Up,
    })
}

/// What moves a pair of queues' packets in the kernel: one for each.
fn vhost_for(model: NicModel) -> Option<OwnedFd> {
    match model {
        NicModel::Virtio => open_vhost_net().unwrap_or_else(|error| {
            tracing::warn!(%error, "vhost-net is not used");
            None
        }),
        NicModel::E1000e => None,
    }
}

/// The model as monitors call it.
pub(super) fn model(model: NicModel) -> lodge_vmm_proto::NicModel {
    match model {
        NicModel::Virtio => lodge_vmm_proto::NicModel::Virtio,
        NicModel::E1000e => lodge_vmm_proto::NicModel::E1000e,
    }
}

/// What a guest's cgroup is limited to.
pub(super) fn group_limits(spec: &VmSpec) -> CgroupLimits {
    let mut group = CgroupLimits {
        memory_max: Some(spec.memory.bytes().saturating_add(HEADROOM)),
        pids_max: Some(THREADS + u64::from(spec.vcpus)),
        ..CgroupLimits::default()
    };
    limits::limit_group(&mut group, &spec.cpu);
    group
}

/// The guest's cgroup. A host without one runs it all the same, unless it is to be held to what only a cgroup can hold it to.
fn make_cgroup(core: &Core, record: &VmRecord) -> Result<Option<Cgroup>, Problem> {
    let make = || -> io::Result<Option<Cgroup>> {
        let Some(tree) = &core.cgroups else {
            return Ok(None);
        };
        let leaf = tree.leaf(&record.id.to_string())?;
        leaf.set_limits(&group_limits(&record.spec))?;
        Ok(Some(leaf))
    };
    make().or_else(|error| {
        if limits::need_group(&record.spec.cpu) {
            return Err(internal(format!("the guest's cgroup: {error}")));
        }
        tracing::warn!(%error, vm = %record.spec.name, "the guest runs without a cgroup");
        Ok(None)
    })
}

/// What a failed start means to the caller: errors point at the field that causes them.
fn spawn_problem(error: &SpawnError, run: &RunDir) -> Problem {
    let SpawnError::Refused { error, message } = error else {
        let mut detail = error.to_string();
        if let Some(line) = run.last_line() {
            detail = format!("{detail} (its last line: {line})");
        }
        return internal(detail);
    };
    let message: String = message.chars().take(500).collect();
    let at = |pointer: &str| Problem::invalid(pointer, message.clone());
    match error {
        LaunchError::Kernel => at("/boot/kernel").with_hint("choose another kernel image"),
        LaunchError::Firmware => at("/boot/firmware"),
        LaunchError::Initrd => {
            at("/boot/initrd").with_hint("choose another image, or give the guest more memory")
        }
        LaunchError::Cmdline => at("/boot/cmdline").with_hint("shorten the command line"),
        LaunchError::Memory => {
            Problem::new(ErrorCode::InsufficientResources, message).with_pointer("/memory")
        }
        LaunchError::Cpu => at("/cpu"),
        LaunchError::Disk => at("/disks"),
        LaunchError::Nic => at("/nics"),
        LaunchError::State => Problem::new(ErrorCode::WrongState, message)
            .with_hint("start the guest from its disks instead"),
        LaunchError::Kvm => Problem::new(ErrorCode::KvmUnavailable, message),
        LaunchError::Vsock | LaunchError::Jail | LaunchError::Internal => internal(message),
    }
}
