//! A guest that attacks its monitor, for tests to run: as a kernel, and as a firmware's ROM.
//!
//! What it does is in `guest/`, and in `docs/hostile-guest.md`. It is a program of its own, which this package's build script
//! compiles.

/// An ELF kernel with a PVH entry point.
pub const KERNEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hostile-guest"));

/// Length of a [`rom`], which ends at 4 GiB.
pub const ROM_LENGTH: u64 = 256 << 10;

/// Where the reset code is in the last 64 KiB, of which a processor in real mode sees the copy below 1 MiB.
const CODE: usize = 0xe000;
/// Where the command line is there.
const COMMAND_LINE: usize = 0xf000;
/// Where PVH start information is there, all zeroes but the command line's address.
const START_INFO: usize = 0xfc00;
const SEGMENT: usize = 64 << 10;
const COPY_OF_SEGMENT: u32 = 0xf_0000;

/// The same guest for machines with firmware: a ROM that copies it to where it belongs, and enters it with this command line.
pub fn rom(command_line: &str) -> Vec<u8> {
    let (address, entry, program) = program();
    let length = usize::try_from(ROM_LENGTH).expect("small");
    let segment = length - SEGMENT;
    assert!(program.len() <= segment, "the guest has outgrown its ROM");
    assert!(
        command_line.len() < START_INFO - COMMAND_LINE,
        "a long command line"
    );
    let mut rom = vec![0; length];
    rom[..program.len()].copy_from_slice(program);
    let mut put =
        |at: usize, bytes: &[u8]| rom[segment + at..][..bytes.len()].copy_from_slice(bytes);
    put(CODE, &reset_code(address, entry, program.len()));
    put(COMMAND_LINE, command_line.as_bytes());
    put(
        START_INFO + 24,
        &(COPY_OF_SEGMENT + COMMAND_LINE as u32).to_le_bytes(),
    );
    // At the reset vector: jmp near to the code, which is below.
    let distance = CODE as i32 - (SEGMENT as i32 - 16 + 3);
    put(SEGMENT - 16, &[0xe9]);
    put(SEGMENT - 15, &(distance as i16).to_le_bytes());
    rom
}

/// The one loaded segment: its address, where it is entered, its content.
fn program() -> (u32, u32, &'static [u8]) {
    let number = |at: usize| u32::from_le_bytes(KERNEL[at..at + 4].try_into().expect("four bytes"));
    // The first program header (ELF-64): offset, physical address, size in the file.
    let [offset, address, size] = [64 + 8, 64 + 24, 64 + 32].map(number);
    (
        address,
        number(24),
        &KERNEL[offset as usize..][..size as usize],
    )
}

/// From real mode at the reset vector to the program's 32-bit entry point.
fn reset_code(address: u32, entry: u32, length: usize) -> Vec<u8> {
    const GDT: usize = 0x80;
    let start = COPY_OF_SEGMENT + CODE as u32;
    let protected = start + 0x20;
    let gdt = start + GDT as u32;
    let mut code = vec![0xfa, 0xfc]; // cli, cld
    code.extend([0x2e, 0x66, 0x0f, 0x01, 0x16]); // lgdt cs:[pointer]
    code.extend((CODE as u16 + GDT as u16 + 24).to_le_bytes());
    code.extend([0x66, 0xb8, 0x11, 0, 0, 0, 0x0f, 0x22, 0xc0]); // mov eax, 0x11; mov cr0, eax
    code.extend([0x66, 0xea]); // jmp 0x08:protected
    code.extend(protected.to_le_bytes());
    code.extend(0x08_u16.to_le_bytes());
    code.resize(0x20, 0x90);
    code.extend([0x66, 0xb8, 0x10, 0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]); // mov ax, 0x10; to ds, es, ss
    for (register, value) in [
        (0xbe, u32::MAX - ROM_LENGTH as u32 + 1), // mov esi, the ROM
        (0xbf, address),                          // mov edi, where it belongs
        (0xb9, length.div_ceil(4) as u32),        // mov ecx
    ] {
        code.push(register);
        code.extend(value.to_le_bytes());
    }
    code.extend([0xf3, 0xa5]); // rep movsd
    code.push(0xbb); // mov ebx, the start information
    code.extend((COPY_OF_SEGMENT + START_INFO as u32).to_le_bytes());
    code.push(0xb8); // mov eax, the entry; jmp eax
    code.extend(entry.to_le_bytes());
    code.extend([0xff, 0xe0]);
    code.resize(GDT, 0x90);
    for descriptor in [0_u64, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff] {
        code.extend(descriptor.to_le_bytes());
    }
    code.extend(23_u16.to_le_bytes());
    code.extend(gdt.to_le_bytes());
    code
}
