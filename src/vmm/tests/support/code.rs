//! Guests of a few instructions, written in assembly, and the kernel file around them.

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

/// Defines a guest from assembly in Intel syntax, entered in 32-bit protected mode with flat segments.
#[macro_export]
macro_rules! guest {
    ($visibility:vis $name:ident, $($line:expr),+ $(,)?) => {
        std::arch::global_asm!(
            ".pushsection .rodata.guests, \"a\", @progbits",
            concat!(".globl ", stringify!($name), "_start"),
            concat!(stringify!($name), "_start:"),
            ".code32",
            $($line),+,
            concat!(".globl ", stringify!($name), "_end"),
            concat!(stringify!($name), "_end:"),
            ".code64",
            ".popsection",
        );

        $visibility fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!(stringify!($name), "_start")]
                static START: u8;
                #[link_name = concat!(stringify!($name), "_end")]
                static END: u8;
            }
            let start = &raw const START;
            // SAFETY: both labels lie in the same section, in this order.
            unsafe { std::slice::from_raw_parts(start, (&raw const END).offset_from(start) as usize) }
        }
    };
}

// Waits for a byte on its serial port, then starts its entropy device (slot 29) with a queue outside memory.
crate::guest!(
    pub breaks_its_device,
    "1: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 1b",
    // The device's registers come to where 32 bits reach them: BAR 0 and 1, then memory decoding.
    "mov edx, 0xcf8",
    "mov eax, 0x8000e810",
    "out dx, eax",
    "mov edx, 0xcfc",
    "mov eax, 0xd0000000",
    "out dx, eax",
    "mov edx, 0xcf8",
    "mov eax, 0x8000e814",
    "out dx, eax",
    "mov edx, 0xcfc",
    "xor eax, eax",
    "out dx, eax",
    "mov edx, 0xcf8",
    "mov eax, 0x8000e804",
    "out dx, eax",
    "mov edx, 0xcfc",
    "mov ax, 6",
    "out dx, ax",
    // Status, features, the queue, status.
    "mov ebx, 0xd0000000",
    "mov byte ptr [ebx + 0x14], 3",
    "mov dword ptr [ebx + 0x08], 1",
    "mov dword ptr [ebx + 0x0c], 1",
    "mov byte ptr [ebx + 0x14], 0x0b",
    "mov word ptr [ebx + 0x16], 0",
    "mov dword ptr [ebx + 0x20], 0xf0000000",
    "mov dword ptr [ebx + 0x28], 0xf0000000",
    "mov dword ptr [ebx + 0x30], 0xf0000000",
    "mov word ptr [ebx + 0x1c], 1",
    "mov byte ptr [ebx + 0x14], 0x0f",
    "2: hlt",
    "jmp 2b",
);

// Prints `r`, and `t` as well if its watchdog (slot 26) has expired before the last reset. For every byte that comes on its serial
// port it starts the watchdog, for some 20 ms in both stages, and does not reload it but by the next byte.
crate::guest!(
    pub neglects_its_watchdog,
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    // Its registers come to where nothing else is: BAR 0, then memory decoding.
    "mov edx, 0xcf8",
    "mov eax, 0x8000d010",
    "out dx, eax",
    "mov edx, 0xcfc",
    "mov eax, 0xd0000000",
    "out dx, eax",
    "mov edx, 0xcf8",
    "mov eax, 0x8000d004",
    "out dx, eax",
    "mov edx, 0xcfc",
    "mov ax, 2",
    "out dx, ax",
    "mov ebx, 0xd0000000",
    "mov ax, [ebx + 0x0c]",
    "test ah, 2",
    "jz 1f",
    "mov edx, 0x3f8",
    "mov al, 't'",
    "out dx, al",
    "1: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 1b",
    "mov edx, 0x3f8",
    "in al, dx",
    // Each behind the unlocking writes: both preload values, and the reload.
    "mov word ptr [ebx + 0x0c], 0x80",
    "mov word ptr [ebx + 0x0c], 0x86",
    "mov dword ptr [ebx], 10",
    "mov word ptr [ebx + 0x0c], 0x80",
    "mov word ptr [ebx + 0x0c], 0x86",
    "mov dword ptr [ebx + 0x04], 10",
    "mov word ptr [ebx + 0x0c], 0x80",
    "mov word ptr [ebx + 0x0c], 0x86",
    "mov word ptr [ebx + 0x0c], 0x100",
    // WDT_ENABLE of the lock register.
    "mov edx, 0xcf8",
    "mov eax, 0x8000d068",
    "out dx, eax",
    "mov edx, 0xcfc",
    "mov al, 2",
    "out dx, al",
    "jmp 1b",
);
