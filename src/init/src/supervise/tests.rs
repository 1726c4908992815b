//! The supervisor with real processes.

use super::*;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::wait::waitpid;

fn spec(name: &str, script: &str) -> ChildSpec {
    ChildSpec {
        name: name.to_owned(),
        program: PathBuf::from("/bin/sh"),
        arguments: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
        environment: vec![("EXTRA".to_owned(), "1".to_owned())],
        terminal: None,
        oom_score: 0,
    }
}

fn pid(supervisor: &Supervisor, index: usize) -> Option<i32> {
    match supervisor.children[index].state {
        State::Running { pid, .. } => Some(pid),
        State::Waiting { .. } | State::Retired => None,
    }
}

/// Waits for the child's end, as the loop of PID 1 does when the kernel reports it.
fn reap(pid: i32) -> ExitStatus {
    match waitpid(Pid::from_raw(pid), None).unwrap() {
        nix::sys::wait::WaitStatus::Exited(_, code) => ExitStatus::from_raw(code << 8),
        nix::sys::wait::WaitStatus::Signaled(_, signal, _) => ExitStatus::from_raw(signal as i32),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_child_that_ends_is_started_again_after_its_wait() {
    let start = Instant::now();
    let mut supervisor = Supervisor::new(vec![spec("one", "exit 3")], start);
    assert_eq!(supervisor.next_start(), Some(start));
    supervisor.start_due(start);
    let first = pid(&supervisor, 0).unwrap();
    assert_eq!(supervisor.next_start(), None);
    let status = reap(first);
    assert_eq!(describe(status), "ended with status 3");
    supervisor.exited(first, status, start);
    let next = supervisor.next_start().unwrap();
    assert_eq!(next - start, backoff::FIRST);
    assert!(supervisor.start_due(start).is_empty());
    assert_eq!(pid(&supervisor, 0), None);
    supervisor.start_due(next);
    let second = pid(&supervisor, 0).unwrap();
    assert_ne!(first, second);
    reap(second);
}

#[test]
fn a_child_owns_its_session_and_its_signals_are_open() {
    let now = Instant::now();
    let script = "test \"$EXTRA$TZ\" = 1UTC && test \"$(ps -o sid= -p $$ | tr -d ' ')\" = $$ && grep -q 'SigBlk:.0*$' /proc/self/status";
    let mut supervisor = Supervisor::new(vec![spec("session", script)], now);
    let mut outputs = supervisor.start_due(now);
    let status = reap(pid(&supervisor, 0).unwrap());
    assert_eq!(describe(status), "ended");
    // Its end of the pipe is closed, so the output comes to its end.
    while outputs[0].read() {}
}

#[test]
fn retired_children_are_killed_and_stay_down() {
    let now = Instant::now();
    let mut supervisor = Supervisor::new(
        vec![spec("keep", "sleep 600"), spec("drop", "sleep 600")],
        now,
    );
    supervisor.start_due(now);
    let (keep, drop) = (pid(&supervisor, 0).unwrap(), pid(&supervisor, 1).unwrap());
    supervisor.retire(|spec| spec.name == "drop");
    assert_eq!(describe(reap(drop)), "was killed by signal 15 (SIGTERM)");
    supervisor.exited(drop, ExitStatus::from_raw(15), now);
    assert_eq!(supervisor.next_start(), None);
    assert_eq!(pid(&supervisor, 0), Some(keep));
    supervisor.retire(|_| true);
    reap(keep);
}

#[test]
fn a_program_that_does_not_exist_is_tried_again_later() {
    let now = Instant::now();
    let mut bad = spec("bad", "");
    bad.program = PathBuf::from("/nonexistent");
    let mut supervisor = Supervisor::new(vec![bad], now);
    supervisor.start_due(now);
    assert_eq!(
        supervisor.next_start().unwrap() - now,
        Duration::from_millis(100)
    );
    supervisor.start_due(now + Duration::from_secs(1));
    assert_eq!(
        supervisor.next_start().unwrap() - now,
        Duration::from_millis(1200)
    );
}
