//! Guests that show something, and that read their keyboard.

use super::{ROM_CODE, rom};
use crate::guest;

// Prints `R`, then the scan codes (set 1) of keys that go down.
guest!(
    pub echoes_keys,
    ".code16",
    "mov dx, 0x3f8",
    "mov al, 'R'",
    "out dx, al",
    // Command byte: translate, second port off, no interrupts.
    "mov al, 0x60",
    "out 0x64, al",
    "mov al, 0x60",
    "out 0x60, al",
    "1: in al, 0x64",
    "test al, 1",
    "jz 1b",
    "in al, 0x60",
    "test al, 0x80",
    "jnz 1b",
    "out dx, al",
    "jmp 1b",
);

// Draws two pixels, has the screen set up by the request that `screen_rom` puts beside it, and prints `S`.
guest!(
    sets_its_screen_up,
    ".code16",
    "mov ax, 0x1000",
    "mov ds, ax",
    "mov dword ptr [0], 0x00112233",
    "mov dword ptr [4], 0xffaabbcc",
    // The address is big endian.
    "mov dx, 0x518",
    "mov eax, 0x00e80f00",
    "out dx, eax",
    "mov dx, 0x3f8",
    "mov al, 'S'",
    "out dx, al",
    "1: hlt",
    "jmp 1b",
);

/// Where the guest draws.
const PICTURE: u64 = 0x1_0000;
pub const WIDTH: u32 = 2;
pub const HEIGHT: u32 = 3;

/// A ROM that sets a small screen up.
pub fn screen_rom() -> Vec<u8> {
    /// The request, in the ROM and in its copy below 1 MiB.
    const REQUEST: usize = ROM_CODE + 0x800;
    const REQUEST_ADDRESS: u64 = 0xf_0000 + REQUEST as u64;
    /// `etc/ramfb` is the fifth file by name.
    const FILE: u32 = 0x24;
    const SELECT_AND_WRITE: u32 = 0x18;
    let mut request = Vec::new();
    request.extend((FILE << 16 | SELECT_AND_WRITE).to_be_bytes());
    request.extend(28_u32.to_be_bytes());
    request.extend((REQUEST_ADDRESS + 16).to_be_bytes());
    request.extend(PICTURE.to_be_bytes());
    let format = u32::from_le_bytes(*b"XR24");
    for word in [format, 0, WIDTH, HEIGHT, 0] {
        request.extend(word.to_be_bytes());
    }
    let mut rom = rom(sets_its_screen_up());
    rom[REQUEST..REQUEST + request.len()].copy_from_slice(&request);
    rom
}
