//! The memory balloon of a running guest, in the jail where possible.

use crate::support::{Guest, Options, kvm_missing};
use lodge_vmm_proto::{Answer, ErrorCode, RequestBody};

const MIB: u64 = 1 << 20;

// Puts a page that it has written to into its balloon (slot 28) and prints Z if it then reads as zero, waits until
// a balloon is wished for, says that it is so large, and prints A.
crate::guest!(
    inflates,
    // The device's registers come to where 32 bits reach them: BAR 0 and 1, then memory decoding.
    "mov edx, 0xcf8",
    "mov eax, 0x8000e010",
    "out dx, eax",
    "mov edx, 0xcfc",
    "mov eax, 0xd0000000",
    "out dx, eax",
    "mov edx, 0xcf8",
    "mov eax, 0x8000e014",
    "out dx, eax",
    "mov edx, 0xcfc",
    "xor eax, eax",
    "out dx, eax",
    "mov edx, 0xcf8",
    "mov eax, 0x8000e004",
    "out dx, eax",
    "mov edx, 0xcfc",
    "mov ax, 6",
    "out dx, ax",
    // Page 0x300, a descriptor of its number, and one chain in the available ring.
    "mov dword ptr [0x300000], 0x55",
    "mov dword ptr [0x210000], 0x300",
    "mov dword ptr [0x200000], 0x210000",
    "mov dword ptr [0x200004], 0",
    "mov dword ptr [0x200008], 4",
    "mov dword ptr [0x20000c], 0",
    "mov dword ptr [0x201000], 0x10000",
    "mov dword ptr [0x201004], 0",
    // Status, features, the queue, status.
    "mov ebx, 0xd0000000",
    "mov byte ptr [ebx + 0x14], 3",
    "mov dword ptr [ebx + 0x08], 1",
    "mov dword ptr [ebx + 0x0c], 1",
    "mov byte ptr [ebx + 0x14], 0x0b",
    "mov word ptr [ebx + 0x16], 0",
    "mov dword ptr [ebx + 0x20], 0x200000",
    "mov dword ptr [ebx + 0x28], 0x201000",
    "mov dword ptr [ebx + 0x30], 0x202000",
    "mov word ptr [ebx + 0x1c], 1",
    "mov byte ptr [ebx + 0x14], 0x0f",
    "mov word ptr [ebx + 0x3000], 0",
    "2: pause",
    "cmp word ptr [0x202002], 1",
    "jne 2b",
    "mov edx, 0x3f8",
    "mov al, 'Z'",
    "cmp dword ptr [0x300000], 0",
    "je 3f",
    "mov al, 'X'",
    "3: out dx, al",
    "4: pause",
    "mov eax, [ebx + 0x2000]",
    "test eax, eax",
    "jz 4b",
    "mov [ebx + 0x2004], eax",
    "mov al, 'A'",
    "out dx, al",
    "5: hlt",
    "jmp 5b",
);

fn guest() -> Guest {
    Guest::start(Options {
        memory: 128 * MIB,
        jail: nix::unistd::geteuid().is_root(),
        ..Options::code(inflates())
    })
}

fn sizes(guest: &mut Guest) -> (u64, u64) {
    let status = guest.status();
    (status.balloon_target_bytes, status.balloon_actual_bytes)
}

#[test]
fn a_guest_lends_memory() {
    if kvm_missing() {
        return;
    }
    let mut guest = guest();
    guest.prints("Z");
    assert_eq!(sizes(&mut guest), (0, 0));
    assert_eq!(guest.status().memory, None, "it gives no statistics");
    let wish = RequestBody::SetBalloon { bytes: 16 * MIB };
    assert_eq!(guest.ask(wish), Answer::Done);
    guest.prints("ZA");
    assert_eq!(sizes(&mut guest), (16 * MIB, 16 * MIB));
    // The wish outlives a reset; what the guest had done about it does not.
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    assert_eq!(guest.ask(RequestBody::Reset), Answer::Done);
    assert_eq!(sizes(&mut guest), (16 * MIB, 0));
    assert_eq!(guest.ask(RequestBody::Resume), Answer::Done);
    guest.prints("ZAZA");
    assert_eq!(sizes(&mut guest), (16 * MIB, 16 * MIB));
    guest.kill();
}

#[test]
fn a_guest_keeps_what_it_needs() {
    if kvm_missing() {
        return;
    }
    let mut guest = guest();
    for bytes in [64 * MIB + 4096, 128 * MIB, u64::MAX, 4095] {
        let answer = guest.ask(RequestBody::SetBalloon { bytes });
        let refused = matches!(
            answer,
            Answer::Error {
                code: ErrorCode::BadRequest,
                ..
            }
        );
        assert!(refused, "{answer:?}");
    }
    assert_eq!(sizes(&mut guest).0, 0);
    let most = RequestBody::SetBalloon { bytes: 64 * MIB };
    assert_eq!(guest.ask(most), Answer::Done);
    assert_eq!(sizes(&mut guest).0, 64 * MIB);
    guest.kill();
}
