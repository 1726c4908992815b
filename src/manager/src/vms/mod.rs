//! Guests: their configuration (in the store), and what is observed of them (by a task each).

mod actor;
mod adopt;
mod balloon;
mod boot;
mod claims;
mod control;
mod cpu;
mod disc;
mod disk_error;
mod display;
mod foreign;
mod launch;
mod limits;
pub(crate) mod nvram;
mod plug;
mod restart;
mod run_dir;
mod screenshot;
mod spawn;
pub(crate) mod spec_check;
mod start;
mod state;
mod typing;
mod vsock;
mod watchdog;

use std::collections::HashMap;
use std::num::NonZero;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use lodge_api::event::Change;
use lodge_api::operation::Operation;
use lodge_api::page::{ListParams, Page};
use lodge_api::vm::{ConsoleParams, ConsolePort, Vm, VmAction, VmSpec, VmStatus, VmStopOptions};
use lodge_api::{ErrorCode, Name, Problem, Size};
use lodge_host::system::Memory;
use lodge_store::{Batch, Precondition, Record, Versioned};
use lodge_vmm_proto::ConsolePort as VmmPort;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

pub(crate) use self::actor::Held;
use self::actor::{Actor, Command, ConsoleRequest};
use self::claims::Claims;
pub(crate) use self::claims::DiskClaim;
pub(crate) use self::control::Control;
pub(crate) use self::disk_error::go_on_with_datastore;
pub(crate) use self::foreign::ForeignCheck;
use self::state::{Observed, Outcome, check_action};
use crate::catalogue::{self, Object};
use crate::core::{Core, internal};
use crate::filter::Field;
use crate::{Caller, IfMatch, Manager};

/// Commands that wait for a guest's task.
const QUEUE: usize = 32;

/// Seconds a guest has to power off unless told otherwise.
const STOP_TIMEOUT: u32 = 60;

/// History sent to a console unless told otherwise, in bytes.
const SCROLLBACK: u32 = 64 << 10;

/// Most history a console may ask for, in bytes.
const MAX_SCROLLBACK: u32 = 256 << 10;

/// Pictures of screens that are encoded at a time.
const ENCODERS: usize = 2;

const FIELDS: &[Field] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("state", "/status/state"),
    ("vcpus", "/vcpus"),
    ("memory", "/memory"),
    ("autostart", "/autostart"),
    ("kernel", "/boot/kernel"),
];

/// A guest as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VmRecord {
    pub(crate) id: Uuid,
    pub(crate) spec: VmSpec,
    pub(crate) created_at: Timestamp,
}

impl VmRecord {
    pub(crate) fn new(spec: VmSpec) -> Self {
        Self {
            id: Uuid::now_v7(),
            spec,
            created_at: Timestamp::now(),
        }
    }
}

impl Record for VmRecord {
    const TABLE: &'static str = "vms";
    const SCHEMA: u32 = 1;
}

impl Object for VmRecord {
    const KIND: &'static str = "guest";
    const PATH: &'static str = "vms";

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &Name {
        &self.spec.name
    }
}

/// The tasks of all guests.
#[derive(Debug)]
pub(crate) struct Registry {
    handles: RwLock<HashMap<Uuid, Handle>>,
    pub(crate) claims: Arc<Claims>,
    /// Held while a monitor is started. All guests at once would only make each the slower, until
    /// none is ready within the time for it.
    pub(crate) launches: Semaphore,
    /// Held while a picture of a screen is encoded: each takes up to some dozens of megabytes.
    encoders: Arc<Semaphore>,
}

impl Default for Registry {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            handles: RwLock::default(),
            claims: Arc::default(),
            launches: Semaphore::new(2 * processors),
            encoders: Arc::new(Semaphore::new(ENCODERS)),
        }
    }
}

#[derive(Debug, Clone)]
struct Handle {
    commands: mpsc::Sender<Command>,
    observed: watch::Receiver<Observed>,
    turns: display::Turns,
}

impl Registry {
    fn handle(&self, id: Uuid) -> Option<Handle> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.get(&id).cloned()
    }

    fn insert(&self, id: Uuid, handle: Handle) {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.insert(id, handle);
    }

    fn remove(&self, id: Uuid) -> Option<Handle> {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.remove(&id)
    }

    fn all(&self) -> Vec<Handle> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.values().cloned().collect()
    }

    /// What is observed of a guest.
    pub(crate) fn observed(&self, id: Uuid) -> Observed {
        self.handle(id).map_or_else(
            || Observed::at_rest(None, Timestamp::now()),
            |handle| handle.observed.borrow().clone(),
        )
    }

    /// Whether a guest has a monitor, or is about to.
    pub(crate) fn is_active(&self, id: Uuid) -> bool {
        self.handle(id)
            .is_some_and(|handle| handle.observed.borrow().state.is_active())
    }

    /// Number of guests that run.
    pub(crate) fn active(&self) -> u32 {
        let all = self.all();
        let active = all
            .iter()
            .filter(|handle| handle.observed.borrow().state.is_active());
        u32::try_from(active.count()).unwrap_or(u32::MAX)
    }

    /// Running guests that hold a disk.
    pub(crate) fn users_of_disk(&self, disk: Uuid) -> std::collections::HashSet<Uuid> {
        self.claims.users_of_disk(disk)
    }
}

/// Whether a running guest's hardware differs from its configuration.
fn restart_pending(launched: Option<&VmSpec>, wanted: &VmSpec) -> bool {
    let Some(launched) = launched else {
        return false;
    };
    let hardware = |spec: &VmSpec| {
        let VmSpec {
            vcpus,
            cpu,
            memory,
            boot,
            disks,
            nics,
            watchdog,
            cloud_init,
            ..
        } = spec.clone();
        (vcpus, cpu, memory, boot, disks, nics, watchdog, cloud_init)
    };
    hardware(launched) != hardware(wanted)
}

impl Core {
    pub(crate) fn vm_of(&self, record: &Versioned<VmRecord>) -> Vm {
        let vm = &record.value;
        let observed = self.vms.observed(vm.id);
        let usage = observed.usage();
        Vm {
            id: vm.id,
            status: VmStatus {
                state: observed.state,
                since: observed.since,
                resets: observed.resets,
                panicked_at: observed.panicked_at,
                watchdog_expired_at: observed.watchdog_expired_at,
                pid: observed.pid.and_then(|pid| u32::try_from(pid).ok()),
                cpu_time_us: usage.cpu_us,
                cpu_throttled_us: usage.throttled_us,
                disk_throttled_us: observed.disk_throttled_us,
                memory_used: Size(usage.memory),
                balloon: observed.balloon(),
                guest_memory: observed.guest_memory(),
                vsock_cid: observed.vsock_cid,
                restart_pending: restart_pending(observed.launched.as_ref(), &vm.spec),
                reason: observed.reason,
                disk_error: observed.disk_error,
            },
            spec: vm.spec.clone(),
            created_at: vm.created_at,
            revision: record.revision,
        }
    }

    /// Makes the task of a guest. It begins with [`Actor::live`].
    fn actor(self: &Arc<Self>, record: &VmRecord) -> Actor {
        let outcome = catalogue::get::<Outcome>(&self.snapshot(), &record.id.to_string());
        let outcome = outcome.ok().flatten().map(|outcome| outcome.value);
        let (commands, queue) = mpsc::channel(QUEUE);
        let (sender, observed) =
            watch::channel(Observed::at_rest(outcome.as_ref(), record.created_at));
        let turns = display::Turns::default();
        let handle = Handle {
            commands,
            observed,
            turns,
        };
        self.vms.insert(record.id, handle);
        Actor::new(self.clone(), record.id, queue, sender)
    }

    /// Makes a new guest known, stopped. The catalogue is held.
    pub(crate) async fn add_vm(
        self: &Arc<Self>,
        record: &VmRecord,
    ) -> Result<Versioned<VmRecord>, Problem> {
        let made = self.add(record).await?;
        self.begin(record);
        Ok(made)
    }

    /// Begins the task of a guest that was just recorded, stopped. The catalogue is held.
    pub(crate) fn begin(self: &Arc<Self>, record: &VmRecord) {
        self.tasks.spawn(self.actor(record).live());
    }

    pub(crate) fn check_spec(
        &self,
        spec: &mut VmSpec,
        snapshot: &lodge_store::Snapshot,
        own: Option<&Versioned<VmRecord>>,
    ) -> Result<(), Problem> {
        let around = spec_check::Surroundings {
            snapshot,
            host_memory: Memory::read().map_or(u64::MAX, |memory| memory.total),
            own,
        };
        spec_check::check(spec, &around)?;
        limits::check(spec, &self.controls())
    }
}

/// Sends a command to a guest's task and waits for its outcome.
async fn command(
    handle: &Handle,
    make: impl FnOnce(actor::Reply) -> Command,
) -> Result<(), Problem> {
    let gone = || {
        Problem::new(
            ErrorCode::ShuttingDown,
            "the guest was deleted, or the manager ends",
        )
    };
    let (reply, outcome) = oneshot::channel();
    handle
        .commands
        .send(make(reply))
        .await
        .map_err(|_| gone())?;
    outcome.await.map_err(|_| gone())?
}

/// Starts a stopped guest from the memory of a snapshot.
pub(crate) async fn start_from(core: &Core, vm: Uuid, snapshot: Uuid) -> Result<(), Problem> {
    let handle = core.vms.handle(vm).ok_or_else(just_deleted)?;
    let from = Some(snapshot);
    command(&handle, |reply| Command::Start { from, reply }).await
}

/// Boots a stopped guest.
pub(crate) async fn start(core: &Core, vm: Uuid) -> Result<(), Problem> {
    let handle = core.vms.handle(vm).ok_or_else(just_deleted)?;
    command(&handle, |reply| Command::Start { from: None, reply }).await
}

/// Ends a guest at once; returns when it has ended.
pub(crate) async fn kill(core: &Core, vm: Uuid) -> Result<(), Problem> {
    let handle = core.vms.handle(vm).ok_or_else(just_deleted)?;
    command(&handle, |reply| Command::Kill { reply }).await
}

/// Tells a guest that runs with a disk that the disk has grown.
pub(crate) async fn disk_grew(core: &Core, vm: Uuid, disk: Uuid) -> Result<(), Problem> {
    let handle = core.vms.handle(vm).ok_or_else(just_deleted)?;
    command(&handle, |reply| Command::DiskGrew { disk, reply }).await
}

/// Holds a guest that runs or is paused, for as long as it is copied.
pub(crate) async fn hold(core: &Core, vm: Uuid) -> Result<Held, Problem> {
    let handle = core.vms.handle(vm).ok_or_else(just_deleted)?;
    let (reply, held) = oneshot::channel();
    let command = Command::Hold { reply };
    let sent = handle.commands.send(command).await;
    sent.map_err(|_| just_deleted())?;
    held.await.map_err(|_| just_deleted())?
}

fn just_deleted() -> Problem {
    Problem::new(ErrorCode::WrongState, "the guest has just been deleted")
}

impl Manager {
    /// By name. Filter fields: `id name state vcpus memory autostart kernel`.
    pub fn vm_list(&self, params: &ListParams) -> Result<Page<Vm>, Problem> {
        let view = |vm: &_| self.core.vm_of(vm);
        let snapshot = self.core.snapshot();
        catalogue::page(&snapshot, params, FIELDS, view, |vm| &vm.spec.name)
    }

    /// One guest, by name or id.
    pub fn vm_view(&self, key: &str) -> Result<Vm, Problem> {
        let record = catalogue::find(&self.core.snapshot(), key)?;
        Ok(self.core.vm_of(&record))
    }

    /// Makes a guest, stopped.
    pub async fn vm_create(&self, caller: &Caller, spec: VmSpec) -> Result<Vm, Problem> {
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let _changing = core.catalogue.lock().await;
            let snapshot = core.snapshot();
            catalogue::require_free::<VmRecord>(&snapshot, &spec.name)?;
            let mut spec = spec;
            core.check_spec(&mut spec, &snapshot, None)?;
            let record = VmRecord::new(spec);
            let made = core.add_vm(&record).await?;
            core.make_known(&caller, "vm_create", record.target(), Change::Created);
            Ok(core.vm_of(&made))
        })
        .await
    }

    /// Replaces a guest's configuration.
    pub async fn vm_replace(
        &self,
        caller: &Caller,
        key: &str,
        spec: VmSpec,
        if_match: IfMatch,
    ) -> Result<Vm, Problem> {
        self.vm_change(caller, key, if_match, move |_| Ok(spec))
            .await
    }

    /// Changes a guest's configuration by a JSON merge patch (RFC 7396).
    pub async fn vm_merge(
        &self,
        caller: &Caller,
        key: &str,
        patch: serde_json::Value,
        if_match: IfMatch,
    ) -> Result<Vm, Problem> {
        self.vm_change(caller, key, if_match, move |spec| {
            crate::merge::merged(spec, patch)
        })
        .await
    }

    async fn vm_change(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
        change: impl FnOnce(&VmSpec) -> Result<VmSpec, Problem> + Send + 'static,
    ) -> Result<Vm, Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<VmRecord>(&key, if_match).await?;
            let (snapshot, old) = (&held.snapshot, &held.old);
            let mut spec = change(&old.value.spec)?;
            if spec.name != old.value.spec.name {
                catalogue::require_free::<VmRecord>(snapshot, &spec.name)?;
            }
            core.check_spec(&mut spec, snapshot, Some(old))?;
            let new = VmRecord {
                spec,
                ..old.value.clone()
            };
            let new = core.exchange_limited(old, new).await?;
            core.make_known(&caller, "vm_change", new.value.target(), Change::Changed);
            Ok(core.vm_of(&new))
        })
        .await
    }

    /// Deletes a guest that does not run. Its disks stay.
    pub async fn vm_delete(
        &self,
        caller: &Caller,
        key: &str,
        if_match: IfMatch,
    ) -> Result<(), Problem> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.to_the_end(move |manager| async move {
            let core = &manager.core;
            let held = core.hold::<VmRecord>(&key, if_match).await?;
            let old = &held.old;
            // From here on nobody can start it: its commands find no task.
            let handle = core.vms.remove(old.value.id);
            if let Some(handle) = &handle
                && handle.observed.borrow().state.is_active()
            {
                let state = handle.observed.borrow().state;
                core.vms.insert(old.value.id, handle.clone());
                return Err(Problem::new(
                    ErrorCode::WrongState,
                    format!(
                        "the guest \"{}\" is {}",
                        old.value.spec.name,
                        state.as_str()
                    ),
                )
                .with_hint("stop or kill it first"));
            }
            let mut batch = Batch::new();
            let deleted = catalogue::remove(&mut batch, old).and_then(|()| {
                batch
                    .delete::<Outcome>(old.value.id.to_string(), Precondition::Any)
                    .map(drop)
                    .map_err(|error| catalogue::record_problem(&error))
            });
            let deleted = match deleted {
                Ok(()) => core.commit(batch).await.map(drop),
                Err(problem) => Err(problem),
            };
            if let Err(problem) = deleted {
                if let Some(handle) = handle {
                    core.vms.insert(old.value.id, handle);
                }
                return Err(problem);
            }
            if let Some(handle) = handle {
                // A task that is gone already is what is wanted.
                let _ = handle.commands.send(Command::Retire).await;
            }
            boot::remove_variables(core, old.value.id);
            core.make_known(&caller, "vm_delete", old.value.target(), Change::Deleted);
            Ok(())
        })
        .await
    }

    /// Starts an operation on a guest and returns at once. `options` matter for `Stop` only.
    pub async fn vm_action(
        &self,
        caller: &Caller,
        key: &str,
        action: VmAction,
        options: VmStopOptions,
    ) -> Result<Operation, Problem> {
        let core = &self.core;
        let record = catalogue::find::<VmRecord>(&core.snapshot(), key)?.value;
        let handle = core.vms.handle(record.id);
        let handle = handle.ok_or_else(|| Problem::not_found("guest", &record.spec.name))?;
        let seconds = options.timeout_s.unwrap_or(STOP_TIMEOUT);
        if !(1..=3600).contains(&seconds) {
            return Err(
                Problem::invalid("/timeout_s", format!("{seconds} is out of range"))
                    .with_hint("give 1 to 3600 seconds"),
            );
        }
        let state = handle.observed.borrow().state;
        check_action(action, state, options.force, &record.spec.name)?;
        if action == VmAction::Start {
            launch::require_kvm(core)?;
        }
        let caller = caller.clone();
        self.to_the_end(move |manager| async move {
            let kind = format!("vm_{}", action.as_str());
            caller.audit(&kind, &record.target());
            let may_cancel = action == VmAction::Stop;
            manager
                .core
                .start_operation(
                    &caller,
                    &kind,
                    record.target(),
                    may_cancel,
                    move |operation| carry_out(handle, action, seconds, options.force, operation),
                )
                .await
        })
        .await
    }

    /// Attaches to a guest's console: history first, then raw bytes both ways, until
    /// the guest ends (end of file). Waits for a guest that is starting.
    ///
    /// # Errors
    /// `WrongState` when it does not run.
    pub async fn vm_console(
        &self,
        caller: &Caller,
        key: &str,
        params: ConsoleParams,
    ) -> Result<tokio::net::UnixStream, Problem> {
        let scrollback = params.scrollback.unwrap_or(SCROLLBACK);
        if scrollback > MAX_SCROLLBACK {
            return Err(
                Problem::invalid("?scrollback", format!("{scrollback} is out of range"))
                    .with_hint(format!("give at most {MAX_SCROLLBACK} bytes")),
            );
        }
        let record = catalogue::find::<VmRecord>(&self.core.snapshot(), key)?.value;
        let handle = self.core.vms.handle(record.id);
        let handle = handle.ok_or_else(|| Problem::not_found("guest", &record.spec.name))?;
        let failed = |error: std::io::Error| internal(format!("a socket pair: {error}"));
        let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let port = match params.port.unwrap_or_default() {
            ConsolePort::Serial => VmmPort::Com1,
            ConsolePort::Virtio => VmmPort::Virtio,
        };
        command(&handle, |reply| {
            Command::Console(ConsoleRequest {
                port,
                scrollback,
                stream: theirs.into(),
                reply,
            })
        })
        .await?;
        caller.audit("vm_console", &record.target());
        tokio::net::UnixStream::from_std(ours).map_err(failed)
    }
}

async fn carry_out(
    handle: Handle,
    action: VmAction,
    seconds: u32,
    force: bool,
    operation: crate::operations::OperationHandle,
) -> Result<(), Problem> {
    match action {
        VmAction::Start => command(&handle, |reply| Command::Start { from: None, reply }).await,
        VmAction::Kill => command(&handle, |reply| Command::Kill { reply }).await,
        VmAction::Reset | VmAction::Pause | VmAction::Resume => {
            command(&handle, |reply| Command::Do { action, reply }).await
        }
        VmAction::Stop => {
            let timeout = Duration::from_secs(seconds.into());
            let stop = command(&handle, |reply| Command::Stop {
                timeout,
                force,
                reply,
            });
            let cancelled = tokio::select! {
                outcome = stop => return outcome,
                () = operation.cancelled() => crate::operations::cancelled(),
            };
            // The guest's task looks who still waits.
            let _ = handle.commands.send(Command::StopAbandoned).await;
            Err(cancelled)
        }
    }
}

#[cfg(test)]
mod tests {
    use lodge_api::vm::Watchdog;

    use super::*;

    #[test]
    fn only_hardware_needs_a_restart() {
        let spec: VmSpec =
            serde_json::from_str(r#"{"name": "web", "boot": {"kernel": "k"}}"#).unwrap();
        let mut other = spec.clone();
        other.name = "other".parse().unwrap();
        other.autostart = true;
        assert!(!restart_pending(Some(&spec), &other));
        other.vcpus = 2;
        assert!(restart_pending(Some(&spec), &other));
        other.vcpus = spec.vcpus;
        other.watchdog = Watchdog::Reset;
        assert!(restart_pending(Some(&spec), &other));
        assert!(!restart_pending(None, &other));
    }
}
