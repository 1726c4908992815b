//! One guest's task: it alone changes what is observed of the guest, one thing after another.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lodge_api::event::EventBody;
use lodge_api::vm::{OnCrash, VmAction, VmState};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_store::{Batch, Precondition};
use lodge_vmm_proto::{Answer, ConsolePort, GuestEvent, RequestBody, RunState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::adopt::Fate;
use super::launch::{Guest, Launched, clean_up, launch};
use super::restart::Restarts;
use super::state::{End, Observed, Outcome, check_action};
use super::{VmRecord, control};
use crate::catalogue;
use crate::core::{Core, internal};

/// Time between two looks at a running guest.
const TICK: Duration = Duration::from_secs(5);

/// How long a monitor may take to end when it is told to, before it is killed by a signal.
const KILL_PATIENCE: Duration = Duration::from_secs(3);

/// Pause before a lost control connection is made anew.
const RECONNECT: Duration = Duration::from_millis(500);

/// Where the outcome of a command goes.
pub(crate) type Reply = oneshot::Sender<Result<(), Problem>>;

/// What a guest's task is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Start; answered when it runs.
    Start { reply: Reply },
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
    /// Attach a console.
    Console {
        port: ConsolePort,
        scrollback: u32,
        stream: OwnedFd,
        reply: Reply,
    },
    /// The host goes down: end by the deadline, whatever the state.
    PowerOff { timeout: Duration, reply: Reply },
    /// The guest was deleted: the task ends.
    Retire,
}

/// What happened.
enum Happening {
    Command(Option<Command>),
    Started(Result<Launched, Problem>),
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
    starting: Option<JoinHandle<Result<Launched, Problem>>>,
    start_reply: Option<Reply>,
    waiters: Vec<Waiter>,
    /// Whether somebody wanted the end that is coming.
    asked_to_end: bool,
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
            waiters: Vec::new(),
            asked_to_end: false,
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
                self.run(*launched);
            }
            Fate::Ended(end) => {
                let run = super::run_dir::RunDir::new(&self.core.config.run_dir, self.id);
                clean_up(&self.core, &run, self.id);
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
                command = self.commands.recv() => Happening::Command(command),
                () = tokio::time::sleep_until(deadline) => Happening::Time,
            };
            match happening {
                Happening::ManagerEnds | Happening::Command(None | Some(Command::Retire)) => return,
                Happening::Command(Some(command)) => self.obey(command).await,
                Happening::Started(result) => self.started(result).await,
                Happening::Ended => self.ended().await,
                Happening::Notice(Some(event)) => self.noticed(event),
                Happening::Notice(None) => {
                    self.notices = None;
                    self.reconnect_at = Some(Instant::now() + RECONNECT);
                }
                Happening::Time => self.time().await,
            }
        }
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
            Command::Start { reply } => self.start(Some(reply)),
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
            Command::Console {
                port,
                scrollback,
                stream,
                reply,
            } => {
                let body = RequestBody::AttachConsole { port, scrollback };
                let _ = reply.send(self.ask(body, Some(stream)).await);
            }
            Command::PowerOff { timeout, reply } => self.power_off(timeout, reply).await,
            Command::Retire => {}
        }
    }

    fn check(&self, action: VmAction, force: bool) -> Result<(), Problem> {
        check_action(action, self.state(), force, &self.record()?.spec.name)
    }

    async fn ask(&self, body: RequestBody, descriptor: Option<OwnedFd>) -> Result<(), Problem> {
        let Some(guest) = &self.guest else {
            return Err(Problem::new(
                ErrorCode::WrongState,
                format!("the guest is {}", self.state().as_str()),
            )
            .with_hint("start it first"));
        };
        match guest.control.ask(body, descriptor).await? {
            Answer::Done => Ok(()),
            _ => Err(internal("the guest's monitor gave an unexpected answer")),
        }
    }

    // Starting.

    fn start(&mut self, reply: Option<Reply>) {
        self.restarts.cancel();
        let record = self
            .check(VmAction::Start, false)
            .and_then(|()| self.core.require_up())
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
                self.starting = Some(tokio::spawn(launch(self.core.clone(), record)));
            }
        }
    }

    async fn started(&mut self, result: Result<Launched, Problem>) {
        self.starting = None;
        let reply = self.start_reply.take();
        let automatic = reply.is_none();
        match result {
            Ok(launched) => {
                self.run(launched);
                self.restarts.started(Instant::now());
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(()));
                }
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
        self.observed.send_modify(|observed| {
            observed.resets = status.resets;
            observed.pid = Some(guest.pid);
            observed.launched = Some(note.spec);
            observed.disks = note.disks;
            observed.cgroup.clone_from(&guest.cgroup);
            observed.since = note.started_at;
        });
        self.log_offset = 0;
        self.guest = Some(guest);
        self.notices = Some(notices);
        self.asked_to_end = false;
        self.set_state(state_of(status.state), None);
    }

    // Acting.

    async fn act(&mut self, action: VmAction) -> Result<(), Problem> {
        self.check(action, false)?;
        let (body, state) = match action {
            VmAction::Reset => (RequestBody::Reset, self.state()),
            VmAction::Pause => (RequestBody::Pause, VmState::Paused),
            VmAction::Resume => (RequestBody::Resume, VmState::Running),
            VmAction::Start | VmAction::Stop | VmAction::Kill => {
                return Err(internal("this action has a command of its own"));
            }
        };
        self.ask(body, None).await?;
        if state == VmState::Paused {
            // A paused guest does not power off: those who wait for it wait in vain.
            self.fail_waiters("the guest was paused meanwhile");
        }
        self.set_state(state, None);
        Ok(())
    }

    fn noticed(&mut self, event: GuestEvent) {
        match event {
            GuestEvent::Reset => {
                self.observed.send_modify(|observed| observed.resets += 1);
                self.publish(|vm| EventBody::VmReset { vm });
            }
            GuestEvent::State { state } => {
                let state = state_of(state);
                let stopping = self.state() == VmState::Stopping && state == VmState::Running;
                if !stopping {
                    self.set_state(state, None);
                }
            }
            GuestEvent::DeviceError { device, message } => {
                let (vm, clean) = (self.name(), catalogue::shown(&device));
                let message: String = message.chars().take(300).collect();
                tracing::warn!(log_source = format!("vmm/{vm}"), "{clean}: {message}");
                self.core.events.publish(
                    None,
                    EventBody::System {
                        message: format!("guest {vm}: {clean}: {message}"),
                    },
                );
            }
        }
    }

    // Ending.

    fn wait_for_end(&mut self, timeout: Option<Duration>, force: bool, reply: Reply) {
        self.waiters.push(Waiter {
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            force,
            seconds: timeout.map_or(0, |timeout| timeout.as_secs()),
            reply,
        });
    }

    async fn stop(&mut self, timeout: Duration, force: bool, reply: Reply) {
        let paused = self.state() == VmState::Paused;
        let pressed = match self.check(VmAction::Stop, force) {
            Ok(()) if paused => Ok(()),
            Ok(()) => self.ask(RequestBody::PowerButton, None).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = pressed {
            let _ = reply.send(Err(problem));
            return;
        }
        self.asked_to_end = true;
        if paused {
            self.wait_for_end(None, true, reply);
            self.kill().await;
            return;
        }
        self.wait_for_end(Some(timeout), force, reply);
        self.set_state(VmState::Stopping, None);
    }

    async fn power_off(&mut self, timeout: Duration, reply: Reply) {
        self.restarts.cancel();
        if !self.state().is_active() {
            let _ = reply.send(Ok(()));
            return;
        }
        if self.guest.is_none() {
            // Starting: killed as soon as it runs.
            self.wait_for_end(None, true, reply);
            return;
        }
        if self.state() == VmState::Paused
            && let Err(problem) = self.ask(RequestBody::Resume, None).await
        {
            tracing::warn!(vm = %self.name(), %problem, "a paused guest cannot be resumed to power it off");
        }
        self.asked_to_end = true;
        self.wait_for_end(Some(timeout), true, reply);
        match self.ask(RequestBody::PowerButton, None).await {
            Ok(()) => self.set_state(VmState::Stopping, None),
            Err(problem) => {
                tracing::warn!(vm = %self.name(), %problem, "the power button does not work: killing the guest");
                self.kill().await;
            }
        }
    }

    async fn kill(&mut self) {
        let Some(guest) = &self.guest else { return };
        self.asked_to_end = true;
        let control = guest.control.clone();
        let asked = control.ask(RequestBody::Kill, None);
        let answer = tokio::time::timeout(KILL_PATIENCE, asked).await;
        let now = Instant::now();
        self.signal_at = Some(match answer {
            Ok(Ok(_)) => now + KILL_PATIENCE,
            _ => now,
        });
    }

    /// The guest's monitor has ended.
    async fn ended(&mut self) {
        let Some(guest) = self.guest.take() else {
            return;
        };
        self.notices = None;
        self.relay_log(&guest);
        let end = End {
            record: guest.run.exit_record(),
            asked: self.asked_to_end,
            out_of_memory: guest
                .cgroup
                .as_ref()
                .and_then(|group| group.usage().ok())
                .is_some_and(|usage| usage.oom_kills > 0),
            last_line: guest.run.last_line(),
        };
        clean_up(&self.core, &guest.run, self.id);
        self.rest(&end).await;
    }

    /// The guest is at rest from now on.
    async fn rest(&mut self, end: &End) {
        self.core.vms.claims.release(self.id);
        let (state, reason) = end.verdict();
        match &reason {
            Some(reason) => tracing::warn!(vm = %self.name(), state = state.as_str(), "{reason}"),
            None => tracing::info!(vm = %self.name(), "guest stopped"),
        }
        self.signal_at = None;
        self.reconnect_at = None;
        self.observed.send_modify(|observed| {
            observed.pid = None;
            observed.launched = None;
            observed.disks = Vec::new();
            observed.cgroup = None;
        });
        self.set_state(state, reason);
        self.keep_outcome().await;
        self.release_waiters();
        let restart = self
            .record()
            .is_ok_and(|vm| vm.spec.on_crash == OnCrash::Restart);
        if state == VmState::Crashed && restart && !self.asked_to_end {
            self.restarts.plan(Instant::now());
        }
    }

    async fn keep_outcome(&self) {
        let observed = self.observed.borrow().clone();
        let outcome = Outcome {
            state: observed.state,
            reason: observed.reason,
            since: observed.since,
        };
        let key = self.id.to_string();
        let mut batch = Batch::new();
        let kept = batch
            .require::<VmRecord>(key.clone(), Precondition::Present)
            .and_then(|batch| batch.put(key, &outcome, Precondition::Any))
            .map(drop)
            .map_err(|error| catalogue::record_problem(&error));
        let kept = match kept {
            Ok(()) => self.core.commit(batch).await.map(drop),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = kept {
            tracing::warn!(vm = %self.name(), %problem, "how a guest ended is not recorded");
        }
    }

    fn release_waiters(&mut self) {
        for waiter in self.waiters.drain(..) {
            let _ = waiter.reply.send(Ok(()));
        }
    }

    fn fail_waiters(&mut self, detail: &str) {
        for waiter in self.waiters.drain(..) {
            let problem = Problem::new(ErrorCode::WrongState, detail);
            let _ = waiter.reply.send(Err(problem));
        }
    }

    /// A guest nobody waits for any more was not stopped: it runs.
    fn stop_is_over(&mut self) {
        if self.waiters.is_empty() && self.state() == VmState::Stopping {
            self.asked_to_end = false;
            self.set_state(VmState::Running, None);
        }
    }

    // Time.

    fn next_deadline(&self) -> Instant {
        let waiting = self.waiters.iter().filter_map(|waiter| waiter.deadline);
        waiting
            .chain(self.signal_at)
            .chain(self.reconnect_at)
            .chain(self.restarts.due())
            .chain([self.tick_at])
            .min()
            .unwrap_or(self.tick_at)
    }

    async fn time(&mut self) {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.signal_at) {
            self.signal_at = None;
            if let Some(guest) = &self.guest
                && let Err(error) = guest.process.get().kill()
            {
                tracing::error!(vm = %self.name(), %error, "a guest's monitor cannot be killed");
            }
        }
        if due(self.reconnect_at) {
            self.reconnect_at = None;
            self.reconnect().await;
        }
        if due(self.restarts.due()) {
            tracing::info!(vm = %self.name(), "restarting a crashed guest");
            self.start(None);
        }
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.look().await;
        }
        self.check_waiters(now).await;
    }

    async fn check_waiters(&mut self, now: Instant) {
        let late = |waiter: &Waiter| waiter.deadline.is_some_and(|at| at <= now);
        if self
            .waiters
            .iter()
            .any(|waiter| late(waiter) && waiter.force)
        {
            for waiter in &mut self.waiters {
                if late(waiter) {
                    waiter.deadline = None;
                }
            }
            tracing::warn!(vm = %self.name(), "the guest did not power off in time and is killed");
            self.kill().await;
            return;
        }
        let waiters = std::mem::take(&mut self.waiters);
        let (over, waiting): (Vec<_>, Vec<_>) = waiters.into_iter().partition(late);
        self.waiters = waiting;
        if over.is_empty() {
            return;
        }
        for waiter in over {
            let problem = Problem::new(
                ErrorCode::WrongState,
                format!(
                    "the guest did not power off within {} seconds, and runs on",
                    waiter.seconds
                ),
            )
            .with_hint("look at its console, give it more time, or kill it");
            let _ = waiter.reply.send(Err(problem));
        }
        self.stop_is_over();
    }

    async fn reconnect(&mut self) {
        let Some(guest) = &mut self.guest else { return };
        match control::find(&guest.run.socket()).await {
            Ok(found) => {
                guest.control = found.control;
                self.notices = Some(found.notices);
            }
            Err(error) => {
                tracing::warn!(vm = %self.name(), %error, "a guest's monitor cannot be reached");
                self.reconnect_at = Some(Instant::now() + TICK);
            }
        }
    }

    /// Looks at a running guest: its counters, and what its monitor logs.
    async fn look(&mut self) {
        let Some(guest) = self.guest.take() else {
            return;
        };
        self.relay_log(&guest);
        let asked = guest.control.status();
        if let Ok(Ok(status)) = tokio::time::timeout(KILL_PATIENCE, asked).await {
            self.observed.send_modify(|observed| {
                observed.disk_read_bytes = status.disk_read_bytes;
                observed.disk_written_bytes = status.disk_written_bytes;
            });
        }
        self.guest = Some(guest);
    }

    fn relay_log(&mut self, guest: &Guest) {
        let source = format!("vmm/{}", self.name());
        for line in guest.run.new_lines(&mut self.log_offset) {
            tracing::info!(log_source = source, "{line}");
        }
    }
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
    starting: Option<&mut JoinHandle<Result<Launched, Problem>>>,
) -> Result<Launched, Problem> {
    match starting {
        Some(task) => task
            .await
            .unwrap_or_else(|error| Err(internal(format!("starting the guest failed: {error}")))),
        None => std::future::pending().await,
    }
}
