//! One guest's task: it alone changes what is observed of the guest, one thing after another.

mod balloon;
mod disk_error;
mod ending;
mod hold;
mod limits;
mod notices;
mod plug;
mod time;
mod variables;
mod watchdog;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lodge_api::event::EventBody;
use lodge_api::vm::{VmAction, VmDiscChange, VmSpec, VmState};
use lodge_api::{ErrorCode, Name, Problem, Size};
use lodge_vmm_proto::{Answer, ConsolePort, DeviceKey, GuestEvent, RequestBody, RunState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::Caller;
use crate::catalogue;
use crate::core::{Core, internal};
use crate::vms::VmRecord;
use crate::vms::adopt::Fate;
use crate::vms::balloon::MemoryReport;
use crate::vms::control::Control;
use crate::vms::launch::{Guest, Launched, clean_up, launch};
use crate::vms::nvram;
use crate::vms::plug::Device;
use crate::vms::restart::Restarts;
use crate::vms::run_dir::RunDir;
use crate::vms::state::{Observed, check_action};

pub(crate) use hold::Held;

/// Time between two looks at a running guest.
const TICK: Duration = Duration::from_secs(5);

/// How long a monitor may take to end when it is told to, before it is killed by a signal.
const KILL_PATIENCE: Duration = Duration::from_secs(3);

/// Pause before a lost control connection is made anew.
const RECONNECT: Duration = Duration::from_millis(500);

/// Most consoles that wait for a guest which is starting.
const WAITING_CONSOLES: usize = 8;

/// Where the outcome of a command goes.
pub(crate) type Reply = oneshot::Sender<Result<(), Problem>>;

/// What a guest's task is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Start, by booting or from the memory of a snapshot; answered when it runs.
    Start { from: Option<Uuid>, reply: Reply },
    /// Press the power button; answered when the guest has ended, or at the deadline.
    Stop {
        timeout: Duration,
        force: bool,
        reply: Reply,
    },
    /// Somebody who waited for a stop does so no longer.
    StopAbandoned,
    /// End it; answered when it has ended.
    Kill { reply: Reply },
    /// Reset, pause or resume.
    Do { action: VmAction, reply: Reply },
    /// Put a disc into a CD-ROM drive of the running guest, or take one out.
    ChangeDisc {
        change: VmDiscChange,
        disc: Option<OwnedFd>,
        reply: Reply,
    },
    /// Plug a device into the running guest. [`Command::Settle`] follows.
    Attach { device: Device, reply: Reply },
    /// What was attached is recorded in the configuration, or is not to stay.
    Settle { recorded: bool, reply: Reply },
    /// Ask the guest for a device, or take it out; answered when it is out of the configuration as well.
    Detach {
        device: Device,
        force: bool,
        caller: Caller,
        reply: Reply,
    },
    /// Ask for a device no longer. Fails when it is out.
    Keep { key: DeviceKey, reply: Reply },
    /// A device that is out is no longer in the configuration.
    Forgotten { device: Device },
    /// A disk of the guest has grown: tell it.
    DiskGrew { disk: Uuid, reply: Reply },
    /// Ask the guest to keep so much of its memory.
    SetBalloon { target: Size, reply: Reply },
    /// Hold the guest to the limits of a configuration, or of the recorded one.
    Limit {
        wanted: Option<Box<VmSpec>>,
        anew: bool,
        reply: Reply,
    },
    /// Change the UEFI variables of the guest, which must not run; answered when the change is durable.
    EditVariables { edit: nvram::Edit, reply: Reply },
    /// Attach a console; to a guest that is starting, as soon as it runs.
    Console(ConsoleRequest),
    /// Tell how to reach the monitor, for what does not change the guest's state.
    Reach {
        reply: oneshot::Sender<Result<Control, Problem>>,
    },
    /// Hold it while it is copied.
    Hold {
        reply: oneshot::Sender<Result<Held, Problem>>,
    },
    /// The host goes down: end by the deadline, whatever the state.
    PowerOff { timeout: Duration, reply: Reply },
    /// The guest was deleted: the task ends.
    Retire,
}

/// Somebody who wants a console.
#[derive(Debug)]
pub(crate) struct ConsoleRequest {
    pub(crate) port: ConsolePort,
    pub(crate) scrollback: u32,
    pub(crate) stream: OwnedFd,
    pub(crate) reply: Reply,
}

/// What happened.
enum Happening {
    Command(Option<Command>),
    Started(Result<Fate, Problem>),
    Released(Option<Reply>),
    Ended,
    Notice(Option<GuestEvent>),
    Time,
    ManagerEnds,
}

/// Somebody who waits for the guest's end.
#[derive(Debug)]
struct Waiter {
    deadline: Option<Instant>,
    force: bool,
    seconds: u64,
    reply: Reply,
}

/// A guest's task.
pub(crate) struct Actor {
    core: Arc<Core>,
    id: Uuid,
    commands: mpsc::Receiver<Command>,
    observed: watch::Sender<Observed>,
    guest: Option<Guest>,
    notices: Option<mpsc::Receiver<GuestEvent>>,
    starting: Option<JoinHandle<Result<Fate, Problem>>>,
    start_reply: Option<Reply>,
    /// Consoles to be attached as soon as the guest runs.
    consoles: Vec<ConsoleRequest>,
    waiters: Vec<Waiter>,
    /// Those who wait until a device is out.
    leaving: Vec<plug::Leaving>,
    /// Devices that are out, and on their way out of the configuration.
    gone: Vec<Device>,
    /// It is not known whether what is noted as arriving has arrived.
    in_doubt: bool,
    /// While it is held: when that ends.
    held: Option<hold::Hold>,
    /// Whether somebody wanted the end that is coming.
    asked_to_end: bool,
    /// When to press the power button again: a system that is only starting does not feel it.
    press_at: Option<Instant>,
    signal_at: Option<Instant>,
    reconnect_at: Option<Instant>,
    tick_at: Instant,
    restarts: Restarts,
    log_offset: u64,
}

impl Actor {
    pub(crate) fn new(
        core: Arc<Core>,
        id: Uuid,
        commands: mpsc::Receiver<Command>,
        observed: watch::Sender<Observed>,
    ) -> Self {
        Self {
            core,
            id,
            commands,
            observed,
            guest: None,
            notices: None,
            starting: None,
            start_reply: None,
            consoles: Vec::new(),
            waiters: Vec::new(),
            leaving: Vec::new(),
            gone: Vec::new(),
            in_doubt: false,
            held: None,
            asked_to_end: false,
            press_at: None,
            signal_at: None,
            reconnect_at: None,
            tick_at: Instant::now() + TICK,
            restarts: Restarts::default(),
            log_offset: 0,
        }
    }

    /// Takes over what became of the guest while no manager was there.
    pub(crate) async fn take_over(&mut self, fate: Fate) {
        match fate {
            Fate::Runs(launched) => {
                tracing::info!(vm = %self.name(), pid = launched.guest.pid, "found a running guest");
                self.core.vms.claims.adopt(self.id, &launched.guest.note);
                let plugged = launched.status.devices.clone();
                self.run(*launched);
                self.agree(plugged).await;
                self.tell_sizes().await;
                self.keep_limits(true).await;
            }
            Fate::Ended(end) => {
                self.forget_run().await;
                self.rest(&end).await;
            }
        }
    }

    /// Lives until the guest is deleted or the manager ends. Running guests stay as they are.
    pub(crate) async fn live(mut self) {
        let ended = self.core.ended.clone();
        loop {
            let deadline = self.next_deadline();
            let happening = tokio::select! {
                biased;
                () = ended.cancelled() => Happening::ManagerEnds,
                notice = next_notice(self.notices.as_mut()) => Happening::Notice(notice),
                () = end_of(self.guest.as_ref()) => Happening::Ended,
                result = end_of_start(self.starting.as_mut()) => Happening::Started(result),
                reply = hold::end_of_hold(self.held.as_mut()) => Happening::Released(reply),
                command = self.commands.recv() => Happening::Command(command),
                () = tokio::time::sleep_until(deadline) => Happening::Time,
            };
            match happening {
                Happening::ManagerEnds | Happening::Command(None | Some(Command::Retire)) => return,
                Happening::Command(Some(command)) => self.obey(command).await,
                Happening::Started(result) => self.started(result).await,
                Happening::Released(reply) => self.released(reply).await,
                Happening::Ended => self.ended().await,
                Happening::Notice(Some(event)) => self.noticed(event),
                Happening::Notice(None) => {
                    self.notices = None;
                    // Its monitor has let it go, so it is no longer what was being copied.
                    self.held = None;
                    self.fail_leaving("the connection to the guest's monitor was lost; the guest keeps the device");
                    self.reconnect_at = Some(Instant::now() + RECONNECT);
                }
                Happening::Time => self.time().await,
            }
        }
    }

    async fn forget_run(&self) {
        let run = RunDir::new(&self.core.config.run_dir, self.id);
        clean_up(&self.core, &run, self.id).await;
    }

    fn state(&self) -> VmState {
        self.observed.borrow().state
    }

    fn record(&self) -> Result<VmRecord, Problem> {
        let snapshot = self.core.snapshot();
        Ok(catalogue::find::<VmRecord>(&snapshot, &self.id.to_string())?.value)
    }

    fn name(&self) -> String {
        self.record()
            .map_or_else(|_| self.id.to_string(), |vm| vm.spec.name.to_string())
    }

    fn publish(&self, body: impl FnOnce(Name) -> EventBody) {
        if let Ok(record) = self.record() {
            self.core.events.publish(None, body(record.spec.name));
        }
    }

    fn set_state(&self, state: VmState, reason: Option<String>) {
        let changed = self.observed.borrow().state != state;
        self.observed.send_modify(|observed| {
            if changed {
                observed.since = Timestamp::now();
            }
            observed.state = state;
            observed.reason.clone_from(&reason);
        });
        if changed {
            self.publish(|vm| EventBody::VmState { vm, state, reason });
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Start { from, reply } => self.start(from, Some(reply)),
            Command::Stop {
                timeout,
                force,
                reply,
            } => self.stop(timeout, force, reply).await,
            Command::StopAbandoned => {
                self.waiters.retain(|waiter| !waiter.reply.is_closed());
                self.stop_is_over();
            }
            Command::Kill { reply } => {
                if let Err(problem) = self.check(VmAction::Kill, true) {
                    let _ = reply.send(Err(problem));
                    return;
                }
                self.wait_for_end(None, true, reply);
                self.kill().await;
            }
            Command::Do { action, reply } => {
                // Whoever asked may have gone; the state shows the outcome.
                let _ = reply.send(self.act(action).await);
            }
            Command::ChangeDisc {
                change,
                disc,
                reply,
            } => {
                let _ = reply.send(self.change_disc(change, disc).await);
            }
            Command::Attach { device, reply } => {
                let _ = reply.send(self.attach(device).await);
            }
            Command::Settle { recorded, reply } => {
                let _ = reply.send(self.settle(recorded).await);
            }
            Command::Detach {
                device,
                force,
                caller,
                reply,
            } => self.detach(&device, force, caller, reply).await,
            Command::Keep { key, reply } => {
                let _ = reply.send(self.keep(key).await);
            }
            Command::Forgotten { device } => self.forgotten(&device),
            Command::DiskGrew { disk, reply } => {
                let _ = reply.send(self.disk_grew(disk).await);
            }
            Command::SetBalloon { target, reply } => {
                let _ = reply.send(self.set_balloon(target).await);
            }
            Command::Limit {
                wanted,
                anew,
                reply,
            } => {
                let _ = reply.send(self.limit(wanted, anew).await);
            }
            Command::EditVariables { edit, reply } => {
                let _ = reply.send(self.edit_variables(edit).await);
            }
            Command::Console(request) => self.console(request).await,
            Command::Reach { reply } => {
                let _ = reply.send(self.control().cloned());
            }
            Command::Hold { reply } => {
                // Whoever asked and went lets it go by that.
                let _ = reply.send(self.hold().await);
            }
            Command::PowerOff { timeout, reply } => self.power_off(timeout, reply).await,
            Command::Retire => {}
        }
    }

    fn check(&self, action: VmAction, force: bool) -> Result<(), Problem> {
        check_action(action, self.state(), force, &self.record()?.spec.name)
    }

    fn control(&self) -> Result<&Control, Problem> {
        let guest = self.guest.as_ref().ok_or_else(|| {
            let detail = format!("the guest is {}", self.state().as_str());
            Problem::new(ErrorCode::WrongState, detail).with_hint("start it first")
        })?;
        Ok(&guest.control)
    }

    async fn ask(&self, body: RequestBody, descriptor: Option<OwnedFd>) -> Result<(), Problem> {
        match self.control()?.ask(body, descriptor).await? {
            Answer::Done => Ok(()),
            _ => Err(internal("the guest's monitor gave an unexpected answer")),
        }
    }

    async fn change_disc(
        &self,
        change: VmDiscChange,
        disc: Option<OwnedFd>,
    ) -> Result<(), Problem> {
        self.require_not_held()?;
        let body = RequestBody::ChangeDisc {
            drive: change.drive,
            force: change.force,
        };
        self.ask(body, disc).await.map_err(|problem| {
            if problem.code == ErrorCode::WrongState {
                problem.with_hint("let the guest eject it, or use force")
            } else {
                problem
            }
        })?;
        // What runs is what is wanted: no restart is pending for it.
        self.observed.send_modify(|observed| {
            let drives = observed.launched.as_mut().map(|spec| &mut spec.cdroms);
            if let Some(drive) = drives.and_then(|drives| drives.get_mut(usize::from(change.drive)))
            {
                drive.image = change.image;
            }
        });
        Ok(())
    }

    async fn console(&mut self, request: ConsoleRequest) {
        if self.starting.is_some() && self.consoles.len() < WAITING_CONSOLES {
            self.consoles.push(request);
            return;
        }
        let body = RequestBody::AttachConsole {
            port: request.port,
            scrollback: request.scrollback,
        };
        let answer = self.ask(body, Some(request.stream)).await;
        let _ = request.reply.send(answer);
    }

    /// Attaches the consoles which were asked for while the guest was starting. When that failed,
    /// each is told.
    async fn attach_waiting_consoles(&mut self) {
        for request in std::mem::take(&mut self.consoles) {
            if !request.reply.is_closed() {
                self.console(request).await;
            }
        }
    }

    fn start(&mut self, from: Option<Uuid>, reply: Option<Reply>) {
        self.restarts.cancel();
        let record = self
            .check(VmAction::Start, false)
            .and_then(|()| match from {
                // What goes on from a saved state at the end of a trial, too.
                Some(_) => self.core.require_settled(),
                None => self.core.require_changeable(),
            })
            .and_then(|()| self.record());
        match record {
            Err(problem) => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(problem));
                }
            }
            Ok(record) => {
                self.start_reply = reply;
                self.asked_to_end = false;
                self.set_state(VmState::Starting, None);
                self.starting = Some(tokio::spawn(launch(self.core.clone(), record, from)));
            }
        }
    }

    async fn started(&mut self, result: Result<Fate, Problem>) {
        self.starting = None;
        let reply = self.start_reply.take();
        let automatic = reply.is_none();
        match result {
            Ok(fate) => {
                self.restarts.started(Instant::now());
                match fate {
                    Fate::Runs(launched) => {
                        self.run(*launched);
                        self.tell_sizes().await;
                        self.keep_limits(false).await;
                    }
                    Fate::Ended(end) => {
                        self.set_state(VmState::Running, None);
                        self.forget_run().await;
                        self.rest(&end).await;
                    }
                }
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(()));
                }
                self.attach_waiting_consoles().await;
                if !self.waiters.is_empty() {
                    // Killed while it was starting.
                    self.kill().await;
                }
            }
            Err(problem) => {
                let reason = format!("it could not be started: {problem}");
                if automatic {
                    tracing::warn!(vm = %self.name(), %problem, "a guest could not be restarted");
                    self.set_state(VmState::Crashed, Some(reason));
                    self.restarts.plan(Instant::now());
                } else {
                    self.set_state(VmState::Stopped, Some(reason));
                }
                self.keep_outcome().await;
                self.release_waiters();
                self.attach_waiting_consoles().await;
                if let Some(reply) = reply {
                    let _ = reply.send(Err(problem));
                }
            }
        }
    }

    /// The guest runs from now on.
    fn run(&mut self, launched: Launched) {
        let Launched {
            guest,
            notices,
            status,
        } = launched;
        let note = guest.note.clone();
        let disk_error = disk_error::of(&status, &note);
        self.observed.send_modify(|observed| {
            observed.resets = status.resets;
            observed.panicked_at = at(status.panicked_at_ms);
            observed.watchdog_expired_at = at(status.watchdog_expired_at_ms);
            observed.disk_error = disk_error;
            observed.pid = Some(guest.pid);
            observed.launched = Some(note.spec);
            observed.disks = note.disks;
            observed.cgroup.clone_from(&guest.cgroup);
            observed.memory = Some(MemoryReport::new(&status));
            observed.vsock_cid = note.vsock_cid;
        });
        self.log_offset = 0;
        self.guest = Some(guest);
        self.notices = Some(notices);
        self.asked_to_end = false;
        let state = state_of(status.state);
        self.set_state(state, self.pause_reason(state));
        // The same for every manager that finds it.
        self.observed
            .send_modify(|observed| observed.since = note.started_at);
    }

    async fn act(&mut self, action: VmAction) -> Result<(), Problem> {
        self.check(action, false)?;
        if self.held.is_some() {
            let state = self.act_held(action)?;
            if action == VmAction::Resume {
                self.forget_disk_error();
            }
            self.set_state(state, None);
            return Ok(());
        }
        let (body, state) = match action {
            VmAction::Reset => (RequestBody::Reset, self.state()),
            VmAction::Pause => (RequestBody::Pause, VmState::Paused),
            VmAction::Resume => (RequestBody::Resume, VmState::Running),
            VmAction::Start | VmAction::Stop | VmAction::Kill => {
                return Err(internal("this action has a command of its own"));
            }
        };
        self.ask(body, None).await?;
        if action != VmAction::Pause {
            self.forget_disk_error();
        }
        if state == VmState::Paused {
            // A paused guest does not power off: those who wait for it wait in vain.
            self.fail_waiters("the guest was paused meanwhile");
        }
        self.set_state(state, None);
        Ok(())
    }

    /// The guest's monitor says that it is in that state. One that was asked to power off runs until it does.
    fn follow(&self, state: RunState) {
        let state = state_of(state);
        let stopping = self.state() == VmState::Stopping && state == VmState::Running;
        if !stopping {
            self.set_state(state, self.pause_reason(state));
        }
    }
}

/// When something happened, as the guest's monitor says.
fn at(unix_ms: Option<u64>) -> Option<Timestamp> {
    let at = i64::try_from(unix_ms?).ok()?;
    Timestamp::from_millisecond(at).ok()
}

fn state_of(state: RunState) -> VmState {
    match state {
        RunState::Running => VmState::Running,
        RunState::Paused => VmState::Paused,
        RunState::Stopping => VmState::Stopping,
    }
}

async fn next_notice(notices: Option<&mut mpsc::Receiver<GuestEvent>>) -> Option<GuestEvent> {
    match notices {
        Some(notices) => notices.recv().await,
        None => std::future::pending().await,
    }
}

async fn end_of(guest: Option<&Guest>) {
    match guest {
        Some(guest) => {
            if let Err(error) = guest.process.ended().await {
                tracing::error!(%error, "a guest's monitor cannot be watched");
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

async fn end_of_start(
    starting: Option<&mut JoinHandle<Result<Fate, Problem>>>,
) -> Result<Fate, Problem> {
    match starting {
        Some(task) => task
            .await
            .unwrap_or_else(|error| Err(internal(format!("starting the guest failed: {error}")))),
        None => std::future::pending().await,
    }
}
