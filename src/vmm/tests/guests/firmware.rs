//! Boot by firmware: the ROM, what it is told, and its variables.

use std::fs::File;

use crate::support::{Guest, Options, ROM, kvm_missing, rom};
use lodge_vmm_proto::{ExitReason, LaunchError, OnReset, SpawnError};

fn options(code: &[u8], variables: Option<File>) -> Options {
    Options {
        on_reset: OnReset::Stop,
        ..Options::firmware(rom(code), variables)
    }
}

// Prints the first bytes of fw_cfg, tries to change the ROM, goes on in the copy below 1 MiB, changes that, and resets.
crate::guest!(
    reads_and_resets,
    ".code16",
    "mov cx, 4",
    "1: mov dx, 0x511",
    "in al, dx",
    "mov dx, 0x3f8",
    "out dx, al",
    "loop 1b",
    "mov byte ptr cs:[0], '!'",
    "mov al, cs:[0xfff0]",
    "cmp al, 0xe9",
    "jne 9f",
    "mov al, cs:[0]",
    "cmp al, 0xff",
    "jne 9f",
    "mov al, 'R'",
    "out dx, al",
    // A far jump: from here on in memory.
    ".byte 0xea",
    ".word 0xe000 + 2f - reads_and_resets_start, 0xf000",
    "2: mov byte ptr cs:[0], '!'",
    "mov al, cs:[0]",
    "out dx, al",
    "9: mov dx, 0xcf9",
    "mov al, 6",
    "out dx, al",
    "3: hlt",
    "jmp 3b",
);

#[test]
fn a_rom_runs_from_the_reset_vector() {
    if kvm_missing() {
        return;
    }
    let (guest, mut console) = Guest::start_with_console(options(reads_and_resets(), None));
    console.expect("QEMUR!");
    let record = guest.end();
    assert_eq!(record.reason, ExitReason::GuestReset, "{}", record.message);
}

#[test]
fn a_reset_runs_it_again() {
    if kvm_missing() {
        return;
    }
    let again = Options {
        on_reset: OnReset::Boot,
        jail: true,
        ..options(reads_and_resets(), Some(variables(2 * 4096)))
    };
    let (guest, mut console) = Guest::start_with_console(again);
    // The copy below 1 MiB is made anew each time.
    console.expect("QEMUR!QEMUR!QEMUR!");
    drop(guest);
}

fn variables(length: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(length).unwrap();
    file
}

fn refused(options: Options) -> String {
    match Guest::try_start(options) {
        Err(SpawnError::Refused {
            error: LaunchError::Firmware,
            message,
        }) => message,
        Err(other) => panic!("unexpected: {other:?}"),
        Ok(_) => panic!("it started"),
    }
}

#[test]
fn files_of_the_wrong_size_are_refused() {
    if kvm_missing() {
        return;
    }
    for length in [0, 4096, ROM + 1, (8 << 20) + 4096] {
        let message = refused(Options::firmware(vec![0; length], None));
        assert!(message.contains("firmware code is"), "{message}");
        assert!(message.contains("64 KiB to 8 MiB"), "{message}");
    }
    for length in [0, 4095, (1 << 20) + 4096] {
        let message = refused(options(reads_and_resets(), Some(variables(length))));
        assert!(message.contains("firmware variables is"), "{message}");
        assert!(message.contains("4 KiB to 1 MiB"), "{message}");
    }
}
