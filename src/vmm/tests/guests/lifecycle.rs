//! From entry to end: what a guest can do to its machine as a whole.

use crate::support::{Guest, Options, kvm_missing};
use lodge_vmm_proto::{Answer, ExitReason, GuestEvent, OnReset, RequestBody, RunState};

crate::guest!(
    hello_then_off,
    "mov edx, 0x3f8",
    "mov al, 'h'",
    "out dx, al",
    "mov al, 'i'",
    "out dx, al",
    // PM1a control: SLP_EN with the sleep type of S5.
    "mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "2: hlt",
    "jmp 2b",
);

crate::guest!(
    triple_fault,
    "lidt [0x4000]", // limit 0: zeroes
    "ud2",
);

// Counts its boots in battery-backed memory, and resets until it has come three times, each
// time in another way.
crate::guest!(
    three_resets,
    "mov edx, 0x3f8",
    "mov al, 'b'",
    "out dx, al",
    "mov al, 0x70",
    "out 0x70, al",
    "in al, 0x71",
    "inc al",
    "mov bl, al",
    "mov al, 0x70",
    "out 0x70, al",
    "mov al, bl",
    "out 0x71, al",
    "cmp bl, 1",
    "je 1f",
    "cmp bl, 2",
    "je 2f",
    "mov al, 'd'",
    "out dx, al",
    "3: hlt",
    "jmp 3b",
    "1: mov edx, 0xcf9",
    "mov al, 2",
    "out dx, al",
    "mov al, 6",
    "out dx, al",
    "ud2", // never reached: the guest stands still until it is reset
    "2: mov al, 0xfe",
    "out 0x64, al",
    "ud2",
);

crate::guest!(
    idle,
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "2: hlt",
    "jmp 2b",
);

crate::guest!(
    busy,
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "2: jmp 2b",
);

crate::guest!(
    counting,
    "mov edx, 0x3f8",
    "2: mov al, '.'",
    "out dx, al",
    "mov ecx, 1000",
    "3: loop 3b",
    "jmp 2b",
);

#[test]
fn a_guest_prints_and_powers_off() {
    if kvm_missing() {
        return;
    }
    let (guest, mut console) = Guest::start_with_console(Options::code(hello_then_off()));
    let record = guest.end();
    console.expect("hi");
    assert_eq!(record.reason, ExitReason::GuestPoweroff, "{record:?}");
}

#[test]
fn a_triple_fault_ends_the_guest_with_its_reason() {
    if kvm_missing() {
        return;
    }
    let record = Guest::start(Options::code(triple_fault())).end();
    assert_eq!(record.reason, ExitReason::TripleFault, "{record:?}");
}

#[test]
fn every_way_to_reset_boots_again_in_place() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(three_resets()));
    guest.prints("bbbd");
    let status = guest.status();
    assert_eq!((status.state, status.resets), (RunState::Running, 2));
    guest.ask(RequestBody::Subscribe);
    assert_eq!(guest.ask(RequestBody::Reset), Answer::Done);
    guest.wait_for(&GuestEvent::Reset);
    guest.prints("bbbdbd");
    guest.kill();
}

#[test]
fn a_guest_that_shall_not_boot_again_ends_at_its_reset() {
    if kvm_missing() {
        return;
    }
    let options = Options {
        on_reset: OnReset::Stop,
        ..Options::code(three_resets())
    };
    let record = Guest::start(options).end();
    assert_eq!(record.reason, ExitReason::GuestReset, "{record:?}");
}

#[test]
fn the_manager_can_reset_a_guest_that_shall_not_boot_again() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options {
        on_reset: OnReset::Stop,
        ..Options::code(idle())
    });
    guest.prints("r");
    assert_eq!(guest.ask(RequestBody::Reset), Answer::Done);
    guest.prints("rr");
    guest.kill();
}

#[test]
fn pause_holds_and_resume_lets_go() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(counting()));
    guest.ask(RequestBody::Subscribe);
    let mut console = guest.console(0);
    console.expect("...");
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done, "idempotent");
    let before = guest.status();
    assert_eq!(before.state, RunState::Paused);
    let used = guest.status().vcpu_time_us - before.vcpu_time_us;
    assert!(used < 10_000, "going to sleep may take a little: {used} µs");
    assert_eq!(guest.ask(RequestBody::Resume), Answer::Done);
    assert_eq!(guest.ask(RequestBody::Resume), Answer::Done, "idempotent");
    assert_eq!(guest.state(), RunState::Running);
    let length = console.text().len();
    while console.text().len() < length + 10 {
        let more = format!("{}.", console.text());
        console.expect(&more);
    }
    let states = |state| GuestEvent::State { state };
    assert!(guest.notices.contains(&states(RunState::Paused)));
    assert!(guest.notices.contains(&states(RunState::Running)));
    guest.kill();
}

#[test]
fn a_paused_guest_can_be_reset_and_stays_paused() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(idle()));
    guest.prints("r");
    guest.ask(RequestBody::Pause);
    assert_eq!(guest.ask(RequestBody::Reset), Answer::Done);
    assert_eq!(guest.state(), RunState::Paused);
    guest.ask(RequestBody::Resume);
    guest.prints("rr");
    guest.kill();
}

#[test]
fn a_guest_that_never_leaves_the_processor_can_be_paused_and_killed() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options::code(busy()));
    guest.prints("r");
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    assert_eq!(guest.ask(RequestBody::Resume), Answer::Done);
    guest.kill();
}
