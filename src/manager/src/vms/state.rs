//! What is observed of a guest, and what its end means.

use std::fs;

use jiff::Timestamp;
use lodge_api::vm::{VmAction, VmDiskError, VmSpec, VmState};
use lodge_api::{ErrorCode, Name, Problem};
use lodge_host::cgroup::Cgroup;
use lodge_store::Record;
use lodge_vmm_proto::{ExitReason, ExitRecord};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::balloon::MemoryReport;

/// What is observed of a guest now.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) state: VmState,
    pub(crate) reason: Option<String>,
    pub(crate) since: Timestamp,
    pub(crate) resets: u64,
    /// When its system crashed, since its last reset.
    pub(crate) panicked_at: Option<Timestamp>,
    /// When its watchdog last expired, since it was started.
    pub(crate) watchdog_expired_at: Option<Timestamp>,
    /// The disk it is paused for.
    pub(crate) disk_error: Option<VmDiskError>,
    /// Process id of its monitor.
    pub(crate) pid: Option<i32>,
    /// The configuration it runs with.
    pub(crate) launched: Option<VmSpec>,
    /// Disks it holds.
    pub(crate) disks: Vec<Uuid>,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) disk_read_bytes: u64,
    pub(crate) disk_written_bytes: u64,
    pub(crate) disk_throttled_us: u64,
    /// What its monitor says about its memory, while it runs.
    pub(crate) memory: Option<MemoryReport>,
    /// Its address for sockets to the host, while it runs.
    pub(crate) vsock_cid: Option<u32>,
}

/// Processor time and memory of a monitor.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_us: u64,
    /// Time for which its cgroup held it back.
    pub(crate) throttled_us: u64,
    pub(crate) memory: u64,
}

impl Observed {
    /// A guest that does not run.
    pub(crate) fn at_rest(outcome: Option<&Outcome>, created_at: Timestamp) -> Self {
        Self {
            state: outcome.map_or(VmState::Stopped, |outcome| outcome.state),
            reason: outcome.and_then(|outcome| outcome.reason.clone()),
            since: outcome.map_or(created_at, |outcome| outcome.since),
            resets: 0,
            panicked_at: None,
            watchdog_expired_at: None,
            disk_error: None,
            pid: None,
            launched: None,
            disks: Vec::new(),
            cgroup: None,
            disk_read_bytes: 0,
            disk_written_bytes: 0,
            disk_throttled_us: 0,
            memory: None,
            vsock_cid: None,
        }
    }

    /// Processor time and memory of its monitor, zero when it does not run.
    pub(crate) fn usage(&self) -> Usage {
        if let Some(usage) = self.cgroup.as_ref().and_then(|group| group.usage().ok())
            && usage.memory > 0
        {
            return Usage {
                cpu_us: usage.cpu_us,
                throttled_us: usage.cpu_throttled_us,
                memory: usage.memory,
            };
        }
        // No cgroup, or one without the memory controller.
        self.pid.and_then(process_usage).unwrap_or_default()
    }
}

/// Processor time and resident memory by proc(5).
fn process_usage(pid: i32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // USER_HZ is 100 on every x86-64 Linux.
    let cpu_us = (ticks(11)? + ticks(12)?) * 10_000;
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(Usage {
        cpu_us,
        throttled_us: 0,
        memory: pages * 4096,
    })
}

/// How a guest ended last, kept over restarts of host and manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) state: VmState,
    pub(crate) reason: Option<String>,
    pub(crate) since: Timestamp,
}

impl Record for Outcome {
    const TABLE: &'static str = "vm_outcomes";
    const SCHEMA: u32 = 1;
}

/// What is known of the end of a monitor.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// Its last words.
    pub(crate) record: Option<ExitRecord>,
    /// Whether somebody asked for the end: by the power button, or by killing it.
    pub(crate) asked: bool,
    /// Whether the kernel killed something in its cgroup for want of memory.
    pub(crate) out_of_memory: bool,
    /// The last line of its log.
    pub(crate) last_line: Option<String>,
}

impl End {
    /// The state the guest is in afterwards, and why.
    pub(crate) fn verdict(&self) -> (VmState, Option<String>) {
        let Some(record) = &self.record else {
            return self.without_a_word();
        };
        let because = |text: &str| {
            if record.message.is_empty() {
                text.to_owned()
            } else {
                let message: String = record.message.chars().take(300).collect();
                format!("{text}: {message}")
            }
        };
        match record.reason {
            ExitReason::GuestPoweroff if self.asked => (VmState::Stopped, None),
            ExitReason::GuestPoweroff => (
                VmState::Stopped,
                Some("the guest powered itself off".to_owned()),
            ),
            // Monitors of this manager boot again instead.
            ExitReason::GuestReset => (VmState::Stopped, Some("the guest reset itself".to_owned())),
            ExitReason::Killed => (VmState::Stopped, None),
            ExitReason::Watchdog => (
                VmState::Crashed,
                Some("the guest's watchdog expired: its system hung".to_owned()),
            ),
            ExitReason::TripleFault => (
                VmState::Crashed,
                Some(because("a processor of the guest triple-faulted")),
            ),
            ExitReason::KvmError => (
                VmState::Crashed,
                Some(because("KVM could not run the guest on")),
            ),
            // It never ran, so nothing of it crashed.
            ExitReason::LaunchFailed => (
                VmState::Stopped,
                Some(because("the guest could not be started")),
            ),
            ExitReason::MonitorError => (
                VmState::Crashed,
                Some(because("the guest's monitor gave up")),
            ),
            ExitReason::JailViolation => (
                VmState::Crashed,
                self.violation().map(|call| {
                    format!("the guest's monitor tried {call}, which its jail forbids")
                }),
            ),
        }
    }

    /// The system call the monitor tried though its jail forbids it.
    pub(crate) fn violation(&self) -> Option<&str> {
        let record = self.record.as_ref()?;
        if record.reason != ExitReason::JailViolation {
            return None;
        }
        // Written by somebody who is not to be trusted any more.
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_ ".contains(&byte);
        let call = record.message.as_str();
        let named = (1..=32).contains(&call.len()) && call.bytes().all(plain);
        Some(if named { call } else { "a system call" })
    }

    fn without_a_word(&self) -> (VmState, Option<String>) {
        if self.asked {
            return (VmState::Stopped, None);
        }
        if self.out_of_memory {
            let reason = "the kernel killed the guest's monitor, which had used up its memory";
            return (VmState::Crashed, Some(reason.to_owned()));
        }
        let mut reason =
            "the guest's monitor crashed or was killed from outside; see the host's log".to_owned();
        if let Some(line) = &self.last_line {
            reason = format!("{reason} (its last line: {line})");
        }
        (VmState::Crashed, Some(reason))
    }
}

/// Refuses an action that makes no sense in a state. Used before the operation starts, and by the
/// guest's own task when its turn has come.
pub(crate) fn check_action(
    action: VmAction,
    state: VmState,
    force: bool,
    name: &Name,
) -> Result<(), Problem> {
    use VmState as S;
    let refuse = |hint: &str| {
        Err(Problem::new(
            ErrorCode::WrongState,
            format!("the guest \"{name}\" is {}", state.as_str()),
        )
        .with_hint(hint))
    };
    match (action, state) {
        (VmAction::Start, S::Stopped | S::Crashed) => Ok(()),
        (VmAction::Start, S::Paused) => refuse("use `resume` to let it go on"),
        (VmAction::Start, _) => refuse("it runs already"),
        (_, S::Stopped | S::Crashed) => refuse("start it first"),
        (VmAction::Kill, _) => Ok(()),
        (_, S::Starting) => refuse("wait until it runs"),
        (VmAction::Stop, S::Paused) if !force => {
            refuse("a paused guest does not see its power button: resume or kill it")
        }
        (VmAction::Pause, S::Paused) => refuse("it is paused already"),
        (VmAction::Resume, S::Running | S::Stopping) => refuse("it is not paused"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(reason: ExitReason, message: &str) -> Option<ExitRecord> {
        Some(ExitRecord {
            reason,
            message: message.to_owned(),
            uptime_ms: 1,
        })
    }

    fn verdict(end: &End) -> (VmState, String) {
        let (state, reason) = end.verdict();
        (state, reason.unwrap_or_default())
    }

    #[test]
    fn every_end_has_a_state_and_unexpected_ones_a_reason() {
        let asked = End {
            record: record(ExitReason::GuestPoweroff, ""),
            asked: true,
            ..End::default()
        };
        assert_eq!(verdict(&asked), (VmState::Stopped, String::new()));
        let by_itself = End {
            record: record(ExitReason::GuestPoweroff, ""),
            ..End::default()
        };
        assert!(verdict(&by_itself).1.contains("powered itself off"));
        let hung = End {
            record: record(ExitReason::Watchdog, ""),
            ..End::default()
        };
        let (state, text) = verdict(&hung);
        assert_eq!(state, VmState::Crashed);
        assert!(text.contains("watchdog"), "{text}");
        for (reason, expected) in [
            (ExitReason::TripleFault, VmState::Crashed),
            (ExitReason::KvmError, VmState::Crashed),
            (ExitReason::MonitorError, VmState::Crashed),
            (ExitReason::LaunchFailed, VmState::Stopped),
        ] {
            // Even when somebody wanted it to end: it did not end so.
            let end = End {
                record: record(reason, "details"),
                asked: true,
                ..End::default()
            };
            let (state, text) = verdict(&end);
            assert_eq!(state, expected);
            assert!(text.ends_with(": details"), "{text}");
        }
    }

    #[test]
    fn a_monitor_that_tries_what_is_forbidden_is_told_on() {
        let end = |message: &str| End {
            record: record(ExitReason::JailViolation, message),
            asked: true,
            ..End::default()
        };
        let (state, reason) = verdict(&end("openat"));
        assert_eq!(state, VmState::Crashed);
        assert_eq!(
            reason,
            "the guest's monitor tried openat, which its jail forbids"
        );
        assert_eq!(end("openat").violation(), Some("openat"));
        // It may write there what it likes.
        for message in ["", "\u{1b}[2J", "a long name for a system call of Linux"] {
            let reason = verdict(&end(message)).1;
            assert!(reason.contains("tried a system call, which"), "{reason}");
        }
        assert_eq!(End::default().violation(), None);
    }

    #[test]
    fn a_monitor_without_last_words_has_crashed() {
        let (state, reason) = verdict(&End {
            last_line: Some("panicked at x".to_owned()),
            ..End::default()
        });
        assert_eq!(state, VmState::Crashed);
        assert!(reason.contains("panicked at x"));
        let (_, reason) = verdict(&End {
            out_of_memory: true,
            ..End::default()
        });
        assert!(reason.contains("memory"));
        let (state, _) = verdict(&End {
            asked: true,
            ..End::default()
        });
        assert_eq!(state, VmState::Stopped);
    }

    #[test]
    fn actions_fit_states() {
        use VmAction as A;
        use VmState as S;
        let states = [
            S::Stopped,
            S::Starting,
            S::Running,
            S::Paused,
            S::Stopping,
            S::Crashed,
        ];
        let allowed = |action| {
            let fits =
                |state: &S| check_action(action, *state, false, &"web".parse().unwrap()).is_ok();
            states.into_iter().filter(fits).collect::<Vec<_>>()
        };
        assert_eq!(allowed(A::Start), [S::Stopped, S::Crashed]);
        assert_eq!(allowed(A::Stop), [S::Running, S::Stopping]);
        assert_eq!(
            allowed(A::Kill),
            [S::Starting, S::Running, S::Paused, S::Stopping]
        );
        assert_eq!(allowed(A::Reset), [S::Running, S::Paused, S::Stopping]);
        assert_eq!(allowed(A::Pause), [S::Running, S::Stopping]);
        assert_eq!(allowed(A::Resume), [S::Paused]);
        assert!(check_action(A::Stop, S::Paused, true, &"web".parse().unwrap()).is_ok());
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(process_usage(pid).unwrap().memory > 100_000);
        assert!(process_usage(i32::MAX).is_none());
    }
}
