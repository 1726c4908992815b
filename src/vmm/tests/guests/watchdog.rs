//! A guest that no longer reloads its watchdog.

use std::fs::File;
use std::os::fd::AsFd;

use crate::support::{Guest, Options, code, kvm_missing};
use lodge_vmm_proto::{Answer, ExitReason, GuestEvent, RequestBody, RunState, WatchdogAction};

const MEMORY: u64 = 64 << 20;

fn options(watchdog: Option<WatchdogAction>) -> Options {
    Options {
        watchdog,
        memory: MEMORY,
        jail: nix::unistd::geteuid().is_root(),
        ..Options::code(code::neglects_its_watchdog())
    }
}

fn start(options: Options) -> Guest {
    let mut guest = Guest::start(options);
    assert_eq!(guest.ask(RequestBody::Subscribe), Answer::Done);
    guest
}

fn expiry(action: WatchdogAction) -> GuestEvent {
    GuestEvent::Watchdog { action }
}

#[test]
fn a_reset_guest_boots_and_knows_why() {
    if kvm_missing() {
        return;
    }
    let mut guest = start(options(Some(WatchdogAction::Reset)));
    let mut console = guest.console(u32::MAX);
    console.expect("r");
    assert_eq!(guest.status().watchdog_expired_at_ms, None);
    console.type_in("x");
    guest.wait_for(&GuestEvent::Reset);
    console.expect("rrt");
    let status = guest.status();
    assert_eq!((status.state, status.resets), (RunState::Running, 1));
    assert!(status.watchdog_expired_at_ms.is_some());
    assert_eq!(
        guest.notices,
        [expiry(WatchdogAction::Reset), GuestEvent::Reset]
    );
    guest.kill();
}

#[test]
fn a_guest_whose_power_is_cut_is_at_its_end() {
    if kvm_missing() {
        return;
    }
    let mut guest = start(options(Some(WatchdogAction::PowerOff)));
    let mut console = guest.console(u32::MAX);
    console.type_in("x");
    guest.wait_for(&expiry(WatchdogAction::PowerOff));
    assert_eq!(guest.end().reason, ExitReason::Watchdog);
}

/// The state and memory of a paused guest.
fn save(guest: &mut Guest) -> [File; 2] {
    let [state, memory] = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    memory.set_len(MEMORY).unwrap();
    let answer = guest.ask_with(RequestBody::SaveState, &[state.as_fd()]);
    assert_eq!(answer, Answer::Done);
    let piece = RequestBody::SaveMemory {
        offset: 0,
        length: MEMORY,
    };
    let answer = guest.ask_with(piece, &[memory.as_fd()]);
    assert!(matches!(answer, Answer::Saved { .. }), "{answer:?}");
    [state, memory]
}

#[test]
fn a_paused_guest_goes_on_here_or_elsewhere_and_can_be_caught_again() {
    if kvm_missing() {
        return;
    }
    let paused = GuestEvent::State {
        state: RunState::Paused,
    };
    let mut guest = start(options(Some(WatchdogAction::Pause)));
    let mut console = guest.console(u32::MAX);
    console.type_in("x");
    guest.wait_for(&paused);
    drop(console);
    assert_eq!(
        guest.notices,
        [expiry(WatchdogAction::Pause), paused.clone()]
    );
    let saved = save(&mut guest);
    let elsewhere = start(Options {
        restore: Some(saved),
        ..options(Some(WatchdogAction::Pause))
    });
    assert_eq!(guest.ask(RequestBody::Resume), Answer::Done);
    for mut guest in [guest, elsewhere] {
        assert_eq!(guest.state(), RunState::Running);
        guest.notices.clear();
        let mut console = guest.console(0);
        console.type_in("x");
        guest.wait_for(&paused);
        guest.kill();
    }
}

#[test]
fn without_one_there_is_none_in_a_saved_state_either() {
    if kvm_missing() {
        return;
    }
    let mut guest = start(options(Some(WatchdogAction::Reset)));
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    let saved = save(&mut guest);
    guest.kill();
    let refused = Guest::try_start(Options {
        restore: Some(saved),
        ..options(None)
    });
    let message = refused.err().expect("another machine").to_string();
    assert!(message.contains("watchdog"), "{message}");
    let mut guest = start(options(None));
    let mut console = guest.console(u32::MAX);
    // All ones where its registers would be.
    console.expect("rt");
    guest.kill();
}
