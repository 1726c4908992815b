//! Kernels of a few instructions, entered in 32-bit protected mode with flat segments (PVH).

/// Where the code lies and is entered.
const CODE: u32 = 0x10_0000;

const HEADERS: usize = 64 + 2 * 56;

/// Prints `r`, and powers off when its power button is pressed.
///
/// ```text
///     mov edx, 0x3f8 / mov al, 'r' / out dx, al
/// 1:  mov edx, 0x600 / in ax, dx / test ah, 1 / jz 1b    ; PM1a status, power button
///     mov edx, 0x604 / mov ax, 0x2000 / out dx, ax       ; PM1a control, sleep enable, S5
/// 2:  jmp 2b
/// ```
pub const OBEDIENT: &[u8] = &[
    0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0, b'r', 0xee, // print
    0xba, 0x00, 0x06, 0x00, 0x00, 0x66, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xf4, // wait
    0xba, 0x04, 0x06, 0x00, 0x00, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, // off
    0xeb, 0xfe,
];

/// Prints `r` and stands still: it does not look at its power button.
pub const IDLE: &[u8] = &[
    0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0, b'r', 0xee, // print
    0xf4, 0xeb, 0xfd, // 1: hlt / jmp 1b
];

/// Powers off at once.
pub const OFF: &[u8] = &[
    0xba, 0x04, 0x06, 0x00, 0x00, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xeb, 0xfe,
];

/// Triple-faults: an empty interrupt table, and an undefined instruction.
pub const TRIPLE_FAULT: &[u8] = &[0x0f, 0x01, 0x1d, 0x00, 0x40, 0x00, 0x00, 0x0f, 0x0b];

/// Sends back what it gets on its serial port, plus one.
///
/// ```text
/// 1:  mov edx, 0x3fd / in al, dx / test al, 1 / jz 1b    ; line status, data ready
///     mov edx, 0x3f8 / in al, dx / inc al / out dx, al / jmp 1b
/// ```
pub const ECHO: &[u8] = &[
    0xba, 0xfd, 0x03, 0x00, 0x00, 0xec, 0xa8, 0x01, 0x74, 0xf6, // wait
    0xba, 0xf8, 0x03, 0x00, 0x00, 0xec, 0xfe, 0xc0, 0xee, 0xeb, 0xeb,
];

/// An ELF file that loads `code` and is entered there.
pub fn kernel(code: &[u8]) -> Vec<u8> {
    let note = note();
    let code_at = HEADERS + note.len();
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend(2_u16.to_le_bytes());
    file.extend(62_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend(u64::from(CODE).to_le_bytes());
    file.extend(64_u64.to_le_bytes());
    file.extend([0; 12]);
    for field in [64_u16, 56, 2, 0, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    program_header(&mut file, 1, code_at, u64::from(CODE), code.len());
    program_header(&mut file, 4, HEADERS, 0, note.len());
    file.extend(note);
    file.extend(code);
    file
}

fn program_header(file: &mut Vec<u8>, kind: u32, offset: usize, address: u64, length: usize) {
    file.extend(kind.to_le_bytes());
    file.extend(7_u32.to_le_bytes());
    let length = length as u64;
    for field in [offset as u64, address, address, length, length, 4] {
        file.extend(field.to_le_bytes());
    }
}

/// The note that names the PVH entry (Xen's `XEN_ELFNOTE_PHYS32_ENTRY`).
fn note() -> Vec<u8> {
    let mut note = Vec::new();
    for field in [4_u32, 4, 18] {
        note.extend(field.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(CODE.to_le_bytes());
    note
}
