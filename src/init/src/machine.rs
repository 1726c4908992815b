//! The machine when it is up: one loop over signals, children, the manager, buttons and devices.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use lodge_host::install::on_trial;
use lodge_host::power::{INIT_SOCKET, InitNotice, InitRequest, PowerAction};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::boot::Booted;
use crate::buttons::Buttons;
use crate::link::Link;
use crate::shutdown::{Effect, Input, Shutdown};
use crate::supervise::{ChildOutput, ChildSpec, Supervisor};
use crate::watchdog::Watchdog;
use crate::{console, finish, settle};

/// The child that reports by connecting to the socket.
pub const MANAGER: &str = "serve";

/// Signals that mean something to PID 1: a child ended, Ctrl-Alt-Del, power failing.
const SIGNALS: [Signal; 3] = [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGPWR];

/// How long an image that is on trial may take until the manager says that it works.
const TRIAL: Duration = Duration::from_secs(5 * 60);

/// How often to look whether every process has ended: not each of them is a child.
const LOOK: Duration = Duration::from_millis(50);

/// What PID 1 watches.
pub(crate) struct Machine {
    signals: SignalFd,
    link: Option<Link>,
    booted: Booted,
    supervisor: Supervisor,
    outputs: Vec<ChildOutput>,
    buttons: Buttons,
    button_paths: Vec<PathBuf>,
    shutdown: Shutdown,
    watchdog: Option<Watchdog>,
    /// When an image that is on trial is given up.
    trial: Option<Instant>,
    /// Keeps the terminal with the kernel's messages.
    _log_terminal: Option<File>,
}

/// What a descriptor belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Uevents,
    Listener,
    Manager(usize),
    Button(usize),
    Output(usize),
}

/// Blocks the signals that the loop reads. Before any child is started, and before signals can come.
pub(crate) fn block_signals() {
    if let Err(error) = SigSet::from_iter(SIGNALS).thread_block() {
        tracing::error!("signals: {error}");
    }
    // Ctrl-Alt-Del is a signal to PID 1 and not an immediate restart.
    if let Err(error) = nix::sys::reboot::set_cad_enabled(false) {
        tracing::debug!("Ctrl-Alt-Del: {error}");
    }
}

impl Machine {
    /// Takes over a booted machine.
    pub(crate) fn new(booted: Booted, children: Vec<ChildSpec>) -> io::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&SigSet::from_iter(SIGNALS), flags)?;
        let link = Link::listen(Path::new(INIT_SOCKET))
            .inspect_err(|error| {
                tracing::error!(
                    "{INIT_SOCKET}: {error}; the manager cannot switch the machine off"
                );
            })
            .ok();
        let mut machine = Self {
            signals,
            link,
            booted,
            supervisor: Supervisor::new(children, Instant::now()),
            outputs: Vec::new(),
            buttons: Buttons::default(),
            button_paths: Vec::new(),
            shutdown: Shutdown::default(),
            watchdog: Watchdog::arm(Instant::now()),
            trial: on_trial().then(|| Instant::now() + TRIAL),
            _log_terminal: console::hand_over(),
        };
        machine.rescan_buttons();
        Ok(machine)
    }

    /// Watches for ever.
    pub(crate) fn run(&mut self) -> ! {
        loop {
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.feed(Instant::now());
            }
            let outputs = self.supervisor.start_due(Instant::now());
            self.outputs.extend(outputs);
            for source in self.wait() {
                self.handle(source);
            }
            self.sweep();
            self.accept();
            self.reap();
            self.look_whether_alone();
            self.give_up_trial();
            if self
                .shutdown
                .next_tick()
                .is_some_and(|tick| tick <= Instant::now())
            {
                self.step(Input::Tick);
            }
        }
    }

    /// Waits until something happens or is due.
    fn wait(&self) -> Vec<Source> {
        let watched = self.watched();
        let mut polled: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(_, fd)| PollFd::new(*fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut polled, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                // Must not happen; must not become a busy loop either.
                tracing::error!("poll: {error}");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let pairs = watched.iter().zip(&polled);
        pairs
            .filter(|(_, fd)| ready(fd))
            .map(|((source, _), _)| *source)
            .collect()
    }

    fn watched(&self) -> Vec<(Source, BorrowedFd<'_>)> {
        let mut watched = vec![(Source::Signals, self.signals.as_fd())];
        let uevents = self.booted.uevents.as_ref().map(AsFd::as_fd);
        let listener = self.link.as_ref().map(Link::listener);
        let connections = self.link.iter().flat_map(Link::connections).enumerate();
        watched.extend(uevents.map(|fd| (Source::Uevents, fd)));
        watched.extend(listener.map(|fd| (Source::Listener, fd)));
        watched.extend(connections.map(|(index, fd)| (Source::Manager(index), fd)));
        for (index, path) in self.button_paths.iter().enumerate() {
            watched.extend(
                self.buttons
                    .device(path)
                    .map(|fd| (Source::Button(index), fd)),
            );
        }
        for (index, output) in self.outputs.iter().enumerate() {
            watched.push((Source::Output(index), output.as_fd()));
        }
        watched
    }

    fn timeout(&self) -> PollTimeout {
        let look = self
            .shutdown
            .ending_processes()
            .then(|| Instant::now() + LOOK);
        let feed = self.watchdog.as_ref().map(Watchdog::next);
        let due = [
            self.supervisor.next_start(),
            self.shutdown.next_tick(),
            look,
            feed,
            self.trial,
        ];
        match due.into_iter().flatten().min() {
            // Rounded up, or the loop would spin through the last millisecond.
            Some(due) => {
                let wait = due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        }
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Signals => self.read_signals(),
            Source::Uevents => self.read_uevents(),
            // After the round, so that connections keep their places.
            Source::Listener => {}
            Source::Manager(index) => self.read_manager(index),
            Source::Button(index) => self.read_button(index),
            Source::Output(index) => self.read_output(index),
        }
    }

    fn read_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match i32::try_from(info.ssi_signo)
                .ok()
                .and_then(|signal| Signal::try_from(signal).ok())
            {
                Some(Signal::SIGINT) => {
                    tracing::info!("Ctrl-Alt-Del was pressed");
                    self.step(Input::Request(PowerAction::Reboot));
                }
                Some(Signal::SIGPWR) => {
                    tracing::info!("power is failing");
                    self.step(Input::Request(PowerAction::Off));
                }
                // Children are looked after in every round.
                _ => {}
            }
        }
    }

    fn read_uevents(&mut self) {
        if let Some(uevents) = &self.booted.uevents {
            settle::take_events(&mut self.booted.loader, uevents);
        }
        self.rescan_buttons();
    }

    fn rescan_buttons(&mut self) {
        let added = self.buttons.rescan();
        for path in &added {
            tracing::debug!("power button at {}", path.display());
        }
        self.button_paths.retain(|path| !added.contains(path));
        self.button_paths.extend(added);
    }

    fn read_button(&mut self, index: usize) {
        let Some(path) = self.button_paths.get(index).cloned() else {
            return;
        };
        if self.buttons.pressed(&path, Instant::now()) {
            tracing::info!("the power button was pressed");
            self.step(Input::Request(PowerAction::Off));
        }
    }

    fn read_output(&mut self, index: usize) {
        // One that is at its end is dropped only after the round, so that the others keep their places.
        if let Some(output) = self.outputs.get_mut(index)
            && !output.read()
        {
            output.close();
        }
    }

    fn accept(&mut self) {
        while self.link.as_mut().is_some_and(Link::accept) {
            self.supervisor.came_up(MANAGER);
            self.step(Input::ManagerConnected);
        }
    }

    fn read_manager(&mut self, index: usize) {
        let requests = self.link.as_mut().map(|link| link.read(index));
        for request in requests.unwrap_or_default() {
            match request {
                InitRequest::Power { action } => {
                    tracing::info!("the manager asks to {}", action.verb());
                    self.step(Input::Request(action));
                }
                InitRequest::Drained => self.step(Input::Drained),
                InitRequest::Works => self.trial = None,
            }
        }
    }

    /// Takes leave of connections that ended.
    fn sweep(&mut self) {
        if let Some(link) = &mut self.link
            && link.sweep()
            && !link.connected()
        {
            self.step(Input::ManagerGone);
        }
    }

    /// Collects every process that has ended, child or orphan.
    fn reap(&mut self) {
        self.outputs.retain(|output| !output.closed());
        let now = Instant::now();
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => {
                    self.supervisor.exited(
                        pid.as_raw(),
                        ExitStatus::from_raw((code & 0xff) << 8),
                        now,
                    );
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.supervisor
                        .exited(pid.as_raw(), ExitStatus::from_raw(signal as i32), now);
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// GRUB starts the other image the next time, as nobody has said that this one works.
    fn give_up_trial(&mut self) {
        if self.trial.take_if(|end| *end <= Instant::now()).is_some() {
            tracing::error!("this version of Lodge has not come up: going back to the other one");
            self.step(Input::Request(PowerAction::Reboot));
        }
    }

    fn look_whether_alone(&mut self) {
        if self.shutdown.ending_processes() && !finish::processes_left() {
            self.step(Input::Alone);
        }
    }

    fn step(&mut self, input: Input) {
        for effect in self.shutdown.step(input, Instant::now()) {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::StopConsoles => {
                self.supervisor.retire(|spec| spec.terminal.is_some());
                console::take_back();
            }
            Effect::Notify { action, deadline } => {
                if let Some(link) = &mut self.link {
                    link.notify(&notice(action, deadline));
                }
            }
            Effect::NotifyNewest { action, deadline } => {
                if let Some(link) = &mut self.link {
                    link.notify_newest(&notice(action, deadline));
                }
            }
            Effect::Say(text) => tracing::info!("{text}"),
            Effect::Terminate => {
                self.supervisor.retire(|_| true);
                finish::signal_all(Signal::SIGTERM);
            }
            Effect::Kill => finish::signal_all(Signal::SIGKILL),
            Effect::Finish(action) => {
                if let Some(watchdog) = self.watchdog.take() {
                    watchdog.disarm();
                }
                let Err(error) = finish::finish(action);
                tracing::error!(
                    "the kernel does not {}: {error}; switch the machine off by hand",
                    action.verb()
                );
            }
        }
    }
}

fn notice(action: PowerAction, deadline: Duration) -> InitNotice {
    InitNotice::Shutdown {
        action,
        deadline_s: deadline.as_secs(),
    }
}
