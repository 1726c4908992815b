//! A guest is saved, and goes on in another monitor.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crate::support::saving::{MEMORY, copies, save};
use crate::support::{Guest, Options, kvm_missing, receive};
use lodge_vmm_proto::{
    Answer, DiskBus, ErrorCode, ExitReason, GuestEvent, LaunchError, MAX_PIECE, Request,
    RequestBody, RunState, ServerMessage, SpawnError,
};

// Prints the digits one after the other, each when it has been asked for by a byte on the serial port. What it counts
// is in memory, in a register, and in an SSE register.
crate::guest!(
    counts,
    "mov eax, cr4",
    "or eax, 0x600", // OSFXSR, OSXMMEXCPT
    "mov cr4, eax",
    "mov dword ptr [0x300000], 0x30",
    "mov ebx, 0x30",
    "movups xmm7, [0x300000]",
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "1: mov edx, 0x3fd",
    "2: in al, dx",
    "test al, 1",
    "jz 2b",
    "mov edx, 0x3f8",
    "in al, dx",
    "cmp al, 'q'",
    "je 4f",
    "inc dword ptr [0x300000]",
    "inc ebx",
    "movups [0x300020], xmm7",
    "mov eax, [0x300020]",
    "inc eax",
    "movups xmm7, [0x300000]",
    "cmp eax, ebx",
    "jne 3f",
    "cmp eax, [0x300000]",
    "jne 3f",
    "out dx, al",
    "jmp 1b",
    "3: mov al, '!'",
    "out dx, al",
    "jmp 1b",
    "4: mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "5: hlt",
    "jmp 5b",
);

fn counter(jail: bool, vcpus: u8) -> Options {
    Options {
        jail,
        vcpus,
        ..Options::code(counts())
    }
}

#[test]
fn a_guest_goes_on_where_it_was_saved_as_often_as_one_likes() {
    if kvm_missing() {
        return;
    }
    for (jail, vcpus) in [(false, 2), (true, 1)] {
        let mut guest = Guest::start(counter(jail, vcpus));
        let mut console = guest.console(u32::MAX);
        console.expect("r");
        console.type_in("aaa");
        console.expect("r123");
        assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
        let files = save(&mut guest);
        // It goes on itself.
        assert_eq!(guest.ask(RequestBody::Resume), Answer::Done);
        console.type_in("a");
        console.expect("4");
        guest.kill();
        for _ in 0..3 {
            let mut restored = Guest::start(Options {
                restore: copies(&files),
                ..counter(jail, vcpus)
            });
            assert_eq!(restored.state(), RunState::Running);
            let mut console = restored.console(u32::MAX);
            console.type_in("aa");
            console.expect("45");
            assert!(!console.text().contains('!'), "{}", console.text());
            // Saved once more: what it has written since is in it.
            assert_eq!(restored.ask(RequestBody::Pause), Answer::Done);
            let again = save(&mut restored);
            restored.kill();
            let mut second = Guest::start(Options {
                restore: copies(&again),
                ..counter(jail, vcpus)
            });
            let mut console = second.console(u32::MAX);
            console.type_in("a");
            console.expect("6");
            // A reset is a reset: it begins from power-on.
            assert_eq!(second.ask(RequestBody::Reset), Answer::Done);
            console.expect("r");
            console.type_in("a");
            console.expect("1");
            console.type_in("q");
            assert_eq!(second.end().reason, ExitReason::GuestPoweroff);
        }
    }
}

#[test]
fn only_a_paused_guest_is_saved() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(counter(false, 1));
    guest.prints("r");
    let file = tempfile::tempfile().unwrap();
    let piece = |length| RequestBody::SaveMemory { offset: 0, length };
    for (body, code) in [
        (RequestBody::SaveState, ErrorCode::WrongState),
        (piece(4096), ErrorCode::WrongState),
    ] {
        let answer = guest.ask_with(body, &[file.as_fd()]);
        assert!(matches!(&answer, Answer::Error { code: found, .. } if *found == code));
    }
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    for (body, fds) in [
        (RequestBody::SaveState, vec![]),
        (RequestBody::SaveState, vec![file.as_fd(), file.as_fd()]),
        (piece(4096), vec![]),
        (piece(MAX_PIECE + 1), vec![file.as_fd()]),
    ] {
        let answer = guest.ask_with(body, &fds);
        let bad = |code| code == ErrorCode::BadRequest;
        assert!(matches!(answer, Answer::Error { code, .. } if bad(code)));
    }
    // Where there is no memory, nothing is written.
    let beyond = RequestBody::SaveMemory {
        offset: u64::MAX - 1,
        length: MAX_PIECE,
    };
    assert_eq!(
        guest.ask_with(beyond, &[file.as_fd()]),
        Answer::Saved { written: 0 }
    );
    assert_eq!(file.metadata().unwrap().len(), 0);
    guest.kill();
}

#[test]
fn a_full_disk_is_told_apart_from_other_failures() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(counter(false, 1));
    guest.prints("r");
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let unwritable = File::open("/dev/null").unwrap();
    let (offset, length) = (0, MAX_PIECE.min(MEMORY));
    for body in [
        RequestBody::SaveState,
        RequestBody::SaveMemory { offset, length },
    ] {
        for (file, expected) in [
            (&full, ErrorCode::NoSpace),
            (&unwritable, ErrorCode::Internal),
        ] {
            let answer = guest.ask_with(body.clone(), &[file.as_fd()]);
            assert!(
                matches!(&answer, Answer::Error { code, .. } if *code == expected),
                "{answer:?}"
            );
        }
    }
    // It is none the worse for it.
    assert_eq!(guest.ask(RequestBody::Resume), Answer::Done);
    guest.kill();
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(counter(false, 1));
    guest.prints("r");
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    let files = save(&mut guest);
    guest.kill();
    let refused = |options: Options| match Guest::try_start(options) {
        Err(SpawnError::Refused { error, message }) => (error, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it starts"),
    };
    let expect = |options: Options, expected: LaunchError, words: &str| {
        let (error, message) = refused(options);
        assert_eq!(error, expected, "{message}");
        assert!(message.contains(words), "{message}");
    };
    let restore = || copies(&files);
    let other_vcpus = Options {
        restore: restore(),
        ..counter(false, 2)
    };
    expect(other_vcpus, LaunchError::State, "vcpus 1");
    let other_memory = Options {
        restore: restore(),
        memory: 2 * MEMORY,
        ..counter(false, 1)
    };
    expect(other_memory, LaunchError::Memory, "the guest's has");
    let disk = tempfile::tempfile().unwrap();
    disk.set_len(1 << 20).unwrap();
    let other_devices = Options {
        restore: restore(),
        disks: vec![(DiskBus::Virtio, disk)],
        ..counter(false, 1)
    };
    expect(other_devices, LaunchError::State, "disk0");
    // One bit of the state.
    let damaged = tempfile::tempfile().unwrap();
    let mut bytes = vec![0; usize::try_from(files[0].metadata().unwrap().len()).unwrap()];
    files[0].read_exact_at(&mut bytes, 0).unwrap();
    bytes[1000] ^= 1;
    damaged.write_all_at(&bytes, 0).unwrap();
    let damaged = Options {
        restore: Some([damaged, files[1].try_clone().unwrap()]),
        ..counter(false, 1)
    };
    expect(damaged, LaunchError::State, "checksum");
}

#[test]
fn a_guest_held_for_somebody_who_dies_runs_on() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(counter(true, 1));
    guest.prints("r");
    assert_eq!(guest.ask(RequestBody::Subscribe), Answer::Done);
    let hold = |guest: &Guest| {
        let holder = guest.connect();
        let body = RequestBody::Hold;
        holder.send(&Request { id: 1, body }, &[]).unwrap();
        let ServerMessage::Reply(reply) = receive(&holder) else {
            panic!("no reply");
        };
        assert_eq!(reply.answer, Answer::Done);
        holder
    };
    let state = |state| GuestEvent::State { state };
    let holder = hold(&guest);
    assert_eq!(guest.state(), RunState::Paused);
    guest.notices.clear();
    drop(holder);
    guest.wait_for(&state(RunState::Running));
    // Whoever pauses it meanwhile is obeyed.
    let holder = hold(&guest);
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    drop(holder);
    // The end of the other connection was seen before this is answered, or comes too late for it.
    for _ in 0..10 {
        assert_eq!(guest.state(), RunState::Paused);
    }
    guest.kill();
}
