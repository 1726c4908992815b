//! A minimal kernel around a few instructions.

/// Where the code lies and is entered, in 32-bit protected mode (PVH).
pub const CODE: u32 = 0x10_0000;

const HEADERS: usize = 64 + 2 * 56;

/// An ELF file that loads `code` at [`CODE`] and is entered there.
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
    for field in [
        offset as u64,
        address,
        address,
        length as u64,
        length as u64,
        4,
    ] {
        file.extend(field.to_le_bytes());
    }
}

fn note() -> Vec<u8> {
    let mut note = Vec::new();
    for field in [4_u32, 4, 18] {
        note.extend(field.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(CODE.to_le_bytes());
    note
}
