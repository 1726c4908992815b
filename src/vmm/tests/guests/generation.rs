//! The generation id as a guest sees it.

use std::fs::File;
use std::os::fd::AsFd;

use crate::support::{Guest, Options, kvm_missing};
use lodge_vmm_proto::{Answer, RequestBody};

const MEMORY: u64 = 64 << 20;

// Prints for every byte that comes: for 'i' the 16 bytes of the page at 0xfeffb000 in letters from 'a', for 'e' whether event
// 5 has come, as '0' or '1', which it acknowledges. At 'w' it writes to the page, in many ways, and prints a dot. Each answer is a line.
crate::guest!(
    looks,
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "1: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 1b",
    "mov edx, 0x3f8",
    "in al, dx",
    "cmp al, 'i'",
    "je 2f",
    "cmp al, 'e'",
    "je 4f",
    "cmp al, 'w'",
    "je 5f",
    "jmp 1b",
    "2: mov esi, 0xfeffb000",
    "3: mov al, [esi]",
    "shr al, 4",
    "add al, 'a'",
    "out dx, al",
    "mov al, [esi]",
    "and al, 15",
    "add al, 'a'",
    "out dx, al",
    "inc esi",
    "cmp esi, 0xfeffb010",
    "jne 3b",
    "mov al, 10",
    "out dx, al",
    "jmp 1b",
    "4: mov edx, 0x620",
    "in al, dx",
    "mov bl, al",
    "mov al, 0x20",
    "out dx, al",
    "shr bl, 5",
    "and bl, 1",
    "add bl, '0'",
    "mov al, bl",
    "mov edx, 0x3f8",
    "6: out dx, al",
    "mov al, 10",
    "out dx, al",
    "jmp 1b",
    "5: mov byte ptr [0xfeffb000], 1",
    "mov word ptr [0xfeffb002], 1",
    "mov dword ptr [0xfeffb004], 1",
    "mov dword ptr [0xfeffb00d], -1",
    "inc dword ptr [0xfeffb008]",
    "mov dword ptr [0xfeffaffe], -1",
    "mov dword ptr [0xfeffbffe], -1",
    "mov edi, 0xfeffb000",
    "mov ecx, 1024",
    "rep stosd",
    "mov al, '.'",
    "jmp 6b",
);

fn looker(restore: Option<[File; 2]>) -> Options {
    Options {
        jail: true,
        restore,
        ..Options::code(looks())
    }
}

/// What it prints when that is typed, up to the end of the line.
fn asked(guest: &mut Guest, key: &str) -> String {
    let mut console = guest.console(0);
    console.type_in(key);
    console.expect("\n");
    console.text().trim().to_owned()
}

/// State and memory of the guest, which is paused.
fn save(guest: &mut Guest) -> [File; 2] {
    let files = [(); 2].map(|()| tempfile::tempfile().unwrap());
    files[1].set_len(MEMORY).unwrap();
    let state = guest.ask_with(RequestBody::SaveState, &[files[0].as_fd()]);
    assert_eq!(state, Answer::Done);
    let (offset, length) = (0, MEMORY);
    let piece = RequestBody::SaveMemory { offset, length };
    let saved = guest.ask_with(piece, &[files[1].as_fd()]);
    assert!(matches!(saved, Answer::Saved { .. }), "{saved:?}");
    files
}

#[test]
fn every_guest_that_goes_on_from_a_saved_one_has_an_id_of_its_own() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(looker(None));
    guest.prints("r");
    let first = asked(&mut guest, "i");
    assert_eq!(first.len(), 32);
    assert_ne!(first, "a".repeat(32), "there is one");
    assert_eq!(asked(&mut guest, "e"), "0");
    // Neither a pause nor a reset makes it another guest.
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    let files = save(&mut guest);
    assert_eq!(guest.ask(RequestBody::Resume), Answer::Done);
    assert_eq!(asked(&mut guest, "i"), first);
    let mut console = guest.console(0);
    assert_eq!(guest.ask(RequestBody::Reset), Answer::Done);
    console.expect("r");
    assert_eq!(asked(&mut guest, "i"), first);
    assert_eq!(asked(&mut guest, "e"), "0");
    guest.kill();

    let mut seen = vec![first];
    for _ in 0..3 {
        let files = files.each_ref().map(|file| file.try_clone().unwrap());
        let mut restored = Guest::start(looker(Some(files)));
        assert_eq!(asked(&mut restored, "e"), "1");
        assert_eq!(asked(&mut restored, "e"), "0", "told once");
        let id = asked(&mut restored, "i");
        assert_eq!(id.len(), 32);
        assert!(!seen.contains(&id), "{id} again");
        seen.push(id);
        restored.kill();
    }
}

#[test]
fn a_guest_cannot_change_its_id() {
    if kvm_missing() {
        return;
    }
    let mut guest = Guest::start(looker(None));
    guest.prints("r");
    let id = asked(&mut guest, "i");
    for _ in 0..3 {
        assert_eq!(asked(&mut guest, "w"), ".");
        assert_eq!(asked(&mut guest, "i"), id);
    }
    guest.kill();
}
