//! Supervision: children that shall always run, started again when they end.

mod backoff;
mod child;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use backoff::BackOff;
pub use child::{ChildOutput, ChildSpec};

/// The children and what they are doing.
#[derive(Debug, Default)]
pub struct Supervisor {
    children: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    spec: ChildSpec,
    state: State,
    back_off: BackOff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running {
        pid: i32,
        since: Instant,
        came_up: bool,
    },
    Waiting {
        until: Instant,
    },
    /// Not started again.
    Retired,
}

impl Supervisor {
    /// Children that shall be started at once.
    pub fn new(specs: Vec<ChildSpec>, now: Instant) -> Self {
        let child = |spec| Child {
            spec,
            state: State::Waiting { until: now },
            back_off: BackOff::default(),
        };
        Self {
            children: specs.into_iter().map(child).collect(),
        }
    }

    /// Starts every child whose time has come. Returns what they will say.
    pub fn start_due(&mut self, now: Instant) -> Vec<ChildOutput> {
        let mut outputs = Vec::new();
        for child in &mut self.children {
            if matches!(child.state, State::Waiting { until } if until <= now) {
                outputs.extend(child.start(now));
            }
        }
        outputs
    }

    /// When the next child is to be started.
    pub fn next_start(&self) -> Option<Instant> {
        let waiting = self.children.iter().filter_map(|child| match child.state {
            State::Waiting { until } => Some(until),
            State::Running { .. } | State::Retired => None,
        });
        waiting.min()
    }

    /// Takes note of the end of process `pid`, whoever that was.
    pub fn exited(&mut self, pid: i32, status: ExitStatus, now: Instant) {
        for child in &mut self.children {
            if let State::Running {
                pid: own,
                since,
                came_up,
            } = child.state
                && own == pid
            {
                let ran = now.saturating_duration_since(since);
                let wait = child.back_off.after(ran, came_up);
                child.state = State::Waiting { until: now + wait };
                tracing::warn!(
                    "{} {} after {:.1} s; starting it again in {:.1} s",
                    child.spec.name,
                    describe(status),
                    ran.as_secs_f64(),
                    wait.as_secs_f64()
                );
            }
        }
    }

    /// A child has reported to be at work.
    pub fn came_up(&mut self, name: &str) {
        for child in &mut self.children {
            if child.spec.name == name
                && let State::Running { came_up, .. } = &mut child.state
            {
                *came_up = true;
            }
        }
    }

    /// Ends every child that `which` picks, for good.
    pub fn retire(&mut self, mut which: impl FnMut(&ChildSpec) -> bool) {
        for child in &mut self.children {
            if !which(&child.spec) {
                continue;
            }
            if let State::Running { pid, .. } = child.state {
                // The whole session: a console may have programs of its own. One that is gone is fine.
                let _ = kill(Pid::from_raw(-pid), Signal::SIGTERM);
            }
            child.state = State::Retired;
        }
    }
}

impl Child {
    fn start(&mut self, now: Instant) -> Option<ChildOutput> {
        match self.spec.start() {
            Ok(started) => {
                tracing::debug!("{} started as process {}", self.spec.name, started.pid);
                self.state = State::Running {
                    pid: started.pid,
                    since: now,
                    came_up: false,
                };
                started.output
            }
            Err(error) => {
                let wait = self.back_off.after(std::time::Duration::ZERO, false);
                tracing::error!(
                    "{} cannot be started: {error}; next attempt in {:.1} s",
                    self.spec.name,
                    wait.as_secs_f64()
                );
                self.state = State::Waiting { until: now + wait };
                None
            }
        }
    }
}

/// "ended with status 3", "was killed by signal 9 (SIGKILL)".
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended".to_owned(),
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(name) => format!("was killed by signal {signal} ({name})"),
            Err(_) => format!("was killed by signal {signal}"),
        },
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

#[cfg(test)]
mod tests;
