//! A guest's system crashes, and says so.

use crate::support::{Guest, Options, kvm_missing};
use lodge_vmm_proto::{Answer, ExitReason, GuestEvent, RequestBody, RunState};

// Prints what may be said at the port as a digit. For every byte that comes it then says 1 ('p'), 2 ('c') or 4 ('s') there, 20 000
// times, and prints a dot; at 'b' it resets itself.
crate::guest!(
    panics,
    "mov edx, 0x505",
    "in al, dx",
    "add al, '0'",
    "mov edx, 0x3f8",
    "out dx, al",
    "1: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 1b",
    "mov edx, 0x3f8",
    "in al, dx",
    "mov bl, 1",
    "cmp al, 'p'",
    "je 2f",
    "mov bl, 2",
    "cmp al, 'c'",
    "je 2f",
    "mov bl, 4",
    "cmp al, 's'",
    "je 2f",
    "mov edx, 0xcf9",
    "mov al, 6",
    "out dx, al",
    "5: jmp 5b",
    "2: mov al, bl",
    "mov edx, 0x505",
    "mov ecx, 20000",
    "3: out dx, al",
    "loop 3b",
    "mov edx, 0x3f8",
    "mov al, '.'",
    "out dx, al",
    "jmp 1b",
);

#[test]
fn a_crash_is_told_once_until_the_guest_is_reset() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(Options {
        jail: nix::unistd::geteuid().is_root(),
        ..Options::code(panics())
    });
    assert_eq!(guest.ask(RequestBody::Subscribe), Answer::Done);
    let mut console = guest.console(u32::MAX);
    console.expect("7");
    console.type_in("p");
    console.expect(".");
    console.type_in("c");
    console.expect("..");
    // It goes on.
    assert_eq!(guest.state(), RunState::Running);
    assert!(guest.status().panicked_at_ms.is_some());
    console.type_in("b");
    guest.wait_for(&GuestEvent::Reset);
    assert_eq!(guest.status().panicked_at_ms, None);
    console.expect("..7");
    console.type_in("c");
    console.expect("..7.");
    let panicked = |crash_kernel| GuestEvent::Panicked { crash_kernel };
    let answer = guest.status();
    assert!(answer.panicked_at_ms.is_some());
    assert_eq!(
        guest.notices,
        [
            panicked(false),
            panicked(true),
            GuestEvent::Reset,
            panicked(true),
        ]
    );
    console.type_in("s");
    assert_eq!(guest.end().reason, ExitReason::GuestPoweroff);
}
