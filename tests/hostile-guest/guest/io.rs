//! Ports and memory-mapped registers, by the plainest instructions there are, and a sign of life every so often.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// Cycles between two signs of life, some hundredths of a second.
const BEAT: u64 = 1 << 26;

static LAST: AtomicU64 = AtomicU64::new(0);

/// An access of the first processor is to be made, those before are over: whoever watches sees that the guest gets on.
pub fn beat() {
    // SAFETY: reading the clock changes nothing.
    let now = unsafe { core::arch::x86_64::_rdtsc() };
    if now.wrapping_sub(LAST.load(Ordering::Relaxed)) > BEAT {
        LAST.store(now, Ordering::Relaxed);
        crate::serial::sign_of_life();
    }
}

/// An operand width.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Byte,
    Word,
    Double,
    Quad,
}

impl Width {
    pub const ALL: &'static [Self] = &[Self::Byte, Self::Word, Self::Double, Self::Quad];
    /// Those that ports have.
    pub const PORTS: &'static [Self] = &[Self::Byte, Self::Word, Self::Double];
}

/// Reads a port.
pub fn input(port: u16, width: Width) -> u32 {
    beat();
    raw_input(port, width)
}

/// Reads a port, without a sign of life.
pub fn raw_input(port: u16, width: Width) -> u32 {
    let mut value: u32 = 0;
    // SAFETY: what devices do to this machine is the very question.
    unsafe {
        match width {
            Width::Byte => asm!("in al, dx", in("dx") port, inout("eax") value),
            Width::Word => asm!("in ax, dx", in("dx") port, inout("eax") value),
            Width::Double | Width::Quad => asm!("in eax, dx", in("dx") port, inout("eax") value),
        }
    }
    value
}

/// Writes a port.
pub fn output(port: u16, width: Width, value: u32) {
    beat();
    raw_output(port, width, value);
}

/// Writes a port, without a sign of life.
pub fn raw_output(port: u16, width: Width, value: u32) {
    // SAFETY: as for `raw_input`.
    unsafe {
        match width {
            Width::Byte => asm!("out dx, al", in("dx") port, in("eax") value),
            Width::Word => asm!("out dx, ax", in("dx") port, in("eax") value),
            Width::Double | Width::Quad => asm!("out dx, eax", in("dx") port, in("eax") value),
        }
    }
}

/// Reads `count` elements of a port into `buffer` by one string instruction.
pub fn input_string(port: u16, width: Width, buffer: &mut [u8; 4096], count: usize) {
    beat();
    let (to, count) = (buffer.as_mut_ptr(), count.min(1024));
    // SAFETY: 1024 elements of 4 bytes at most fit into the buffer.
    unsafe {
        match width {
            Width::Byte => {
                asm!("rep insb", in("dx") port, inout("rdi") to => _, inout("rcx") count => _)
            }
            Width::Word => {
                asm!("rep insw", in("dx") port, inout("rdi") to => _, inout("rcx") count => _)
            }
            _ => asm!("rep insd", in("dx") port, inout("rdi") to => _, inout("rcx") count => _),
        }
    }
}

/// Writes `count` elements of `buffer` to a port by one string instruction.
pub fn output_string(port: u16, width: Width, buffer: &[u8; 4096], count: usize) {
    beat();
    let (from, count) = (buffer.as_ptr(), count.min(1024));
    // SAFETY: as for `input_string`.
    unsafe {
        match width {
            Width::Byte => {
                asm!("rep outsb", in("dx") port, inout("rsi") from => _, inout("rcx") count => _)
            }
            Width::Word => {
                asm!("rep outsw", in("dx") port, inout("rsi") from => _, inout("rcx") count => _)
            }
            _ => asm!("rep outsd", in("dx") port, inout("rsi") from => _, inout("rcx") count => _),
        }
    }
}

/// Reads memory or a register in it.
pub fn load(address: u64, width: Width) -> u64 {
    beat();
    let value: u64;
    // SAFETY: reading changes nothing of this program's.
    unsafe {
        match width {
            Width::Byte => asm!("movzx eax, byte ptr [{a}]", a = in(reg) address, out("rax") value),
            Width::Word => asm!("movzx eax, word ptr [{a}]", a = in(reg) address, out("rax") value),
            Width::Double => {
                asm!("mov eax, dword ptr [{a}]", a = in(reg) address, out("rax") value)
            }
            Width::Quad => asm!("mov rax, qword ptr [{a}]", a = in(reg) address, out("rax") value),
        }
    }
    value
}

/// Writes memory or a register in it: never to where this program lies.
pub fn store(address: u64, width: Width, value: u64) {
    beat();
    raw_store(address, width, value);
}

/// Writes memory or a register in it, without a sign of life: for the second processor.
pub fn raw_store(address: u64, width: Width, value: u64) {
    // SAFETY: callers name registers of devices, or memory set aside for them.
    unsafe {
        match width {
            Width::Byte => asm!("mov byte ptr [{a}], al", a = in(reg) address, in("rax") value),
            Width::Word => asm!("mov word ptr [{a}], ax", a = in(reg) address, in("rax") value),
            Width::Double => asm!("mov dword ptr [{a}], eax", a = in(reg) address, in("rax") value),
            Width::Quad => asm!("mov qword ptr [{a}], rax", a = in(reg) address, in("rax") value),
        }
    }
}
