//! Port and memory accesses, entry modes, several processors.

use crate::support::{Guest, Options, code, kvm_missing};
use lodge_vmm_proto::ExitReason;

// Writes a string with one instruction, then reads the line status register as
// often into memory and says whether all bytes came.
crate::guest!(
    string_port_access,
    "mov esp, 0x80000",
    "call 1f",
    ".ascii \"works\"",
    "1: pop esi", // a return address: that of the text
    "mov edx, 0x3f8",
    "mov ecx, 5",
    "rep outsb",
    "mov edx, 0x3fd",
    "mov edi, 0x90000",
    "mov ecx, 4",
    "rep insb",
    "mov eax, [0x90000]",
    "cmp eax, 0x60606060", // transmitter empty and idle, four times
    "mov edx, 0x3f8",
    "mov al, 'y'",
    "je 3f",
    "mov al, 'n'",
    "3: out dx, al",
    "mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "4: hlt",
    "jmp 4b",
);

// The host bridge's identity through configuration ports, in each width, and through ECAM; nothing
// at an address nobody has.
crate::guest!(
    bus_widths,
    "mov edx, 0xcf8",
    "mov eax, 0x80000000",
    "out dx, eax",
    "mov edx, 0xcfc",
    "in eax, dx",
    "cmp eax, 0x29c08086",
    "jne 9f",
    "mov edx, 0xcfe",
    "xor eax, eax",
    "in ax, dx",
    "cmp eax, 0x29c0",
    "jne 9f",
    "mov edx, 0xcfd",
    "xor eax, eax",
    "in al, dx",
    "cmp eax, 0x80",
    "jne 9f",
    "cmp dword ptr [0xb0000000], 0x29c08086",
    "jne 9f",
    "cmp word ptr [0xb0000002], 0x29c0",
    "jne 9f",
    "cmp byte ptr [0xb0000001], 0x80",
    "jne 9f",
    "cmp dword ptr [0xd0000000], -1",
    "jne 9f",
    "mov dword ptr [0xd0000000], 5",
    "in eax, 0x90",
    "cmp eax, -1",
    "jne 9f",
    "mov edx, 0x3f8",
    "mov al, 'y'",
    "out dx, al",
    "9: mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "4: hlt",
    "jmp 4b",
);

// Copies a real-mode stub to 0x8000, sends INIT and SIPI to all others, and waits
// until each has counted itself.
crate::guest!(
    start_all_processors,
    "mov esp, 0x80000",
    "call 1f",
    ".code16",
    "xor ax, ax",
    "mov ds, ax",
    "lock inc dword ptr [0x9000]",
    "8: hlt",
    "jmp 8b",
    ".code32",
    "1: pop esi",
    "mov edi, 0x8000",
    "mov ecx, 32",
    "rep movsb",
    "mov dword ptr [0x9000], 0",
    "mov dword ptr [0xfee000f0], 0x1ff",      // APIC on
    "mov dword ptr [0xfee00300], 0x000c4500", // INIT to all others
    "mov ecx, 100000",
    "5: loop 5b",
    "mov dword ptr [0xfee00300], 0x000c4608", // start at 0x8000
    "6: pause",
    "cmp dword ptr [0x9000], 3",
    "jne 6b",
    "mov edx, 0x3f8",
    "mov al, '4'",
    "out dx, al",
    "mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "7: hlt",
    "jmp 7b",
);

// Entered in 64-bit mode with the zero page in RSI: checks its magic, prints the command line.
crate::guest!(
    long_mode_entry,
    ".code64",
    "cmp dword ptr [rsi + 0x202], 0x53726448",
    "jne 9f",
    "mov ebx, dword ptr [rsi + 0x228]",
    "mov edx, 0x3f8",
    "1: mov al, byte ptr [rbx]",
    "test al, al",
    "jz 9f",
    "out dx, al",
    "inc rbx",
    "jmp 1b",
    "9: mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "2: hlt",
    "jmp 2b",
);

// Prints the command line it finds through the PVH start information in EBX.
crate::guest!(
    pvh_entry,
    "cmp dword ptr [ebx], 0x336ec578",
    "jne 9f",
    "mov esi, [ebx + 24]",
    "mov edx, 0x3f8",
    "1: mov al, byte ptr [esi]",
    "test al, al",
    "jz 2f",
    "out dx, al",
    "inc esi",
    "jmp 1b",
    "2: mov esi, [ebx + 16]", // module list: the first word of the initial RAM disk
    "mov esi, [esi]",
    "mov al, [esi]",
    "out dx, al",
    "9: mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "3: hlt",
    "jmp 3b",
);

fn prints_and_ends(options: Options, text: &str) {
    let (guest, mut console) = Guest::start_with_console(options);
    let record = guest.end();
    assert_eq!(record.reason, ExitReason::GuestPoweroff, "{record:?}");
    console.expect(text);
}

#[test]
fn string_instructions_move_every_element() {
    if kvm_missing() {
        return;
    }
    prints_and_ends(Options::code(string_port_access()), "worksy");
}

#[test]
fn every_width_reaches_its_device() {
    if kvm_missing() {
        return;
    }
    prints_and_ends(Options::code(bus_widths()), "y");
}

#[test]
fn all_processors_start() {
    if kvm_missing() {
        return;
    }
    let options = Options {
        vcpus: 4,
        ..Options::code(start_all_processors())
    };
    prints_and_ends(options, "4");
}

#[test]
fn a_kernel_without_pvh_is_entered_in_64_bit_mode() {
    if kvm_missing() {
        return;
    }
    let mut kernel = code::kernel(long_mode_entry());
    // No longer a note.
    kernel[64 + 56] = 0;
    let options = Options {
        cmdline: "console=ttyS0 works".to_owned(),
        ..Options::kernel(kernel)
    };
    prints_and_ends(options, "console=ttyS0 works");
}

#[test]
fn a_bzimage_of_unknown_compression_unpacks_itself() {
    if kvm_missing() {
        return;
    }
    let options = Options {
        cmdline: "a bzImage".to_owned(),
        ..Options::kernel(bzimage(long_mode_entry()))
    };
    prints_and_ends(options, "a bzImage");
}

#[test]
fn a_kernel_with_pvh_finds_command_line_and_initrd() {
    if kvm_missing() {
        return;
    }
    let options = Options {
        cmdline: "by pvh ".to_owned(),
        initrd: Some(b"X and more".to_vec()),
        ..Options::code(pvh_entry())
    };
    prints_and_ends(options, "by pvh X");
}

#[test]
fn memory_above_four_gigabytes_takes_nothing_until_touched() {
    if kvm_missing() {
        return;
    }
    let options = Options {
        memory: 8 << 30,
        ..Options::code(bus_widths())
    };
    prints_and_ends(options, "y");
}

/// A bzImage whose 64-bit entry point is `code`.
fn bzimage(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &1_u16.to_le_bytes());
    put(0x258, &0x0100_0000_u64.to_le_bytes());
    put(0x260, &0x0010_0000_u32.to_le_bytes());
    file.resize(1024 + 512, 0);
    file.extend(code);
    file.resize(file.len().next_multiple_of(16), 0);
    let paragraphs = (file.len() - 1024) as u32 / 16;
    file[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    file
}
