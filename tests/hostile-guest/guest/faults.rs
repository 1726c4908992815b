//! Exceptions: a mistake of this program's, or of the monitor's, is said and not waited for.

use core::arch::global_asm;

use crate::{power, say, serial};

global_asm!(
    ".text",
    ".globl fault_entries",
    "fault_entries:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if vector == 2 || vector > 31",
    "iretq", // messages of devices, which nobody waits for
    ".else",
    "mov edi, vector",
    "mov rsi, [rsp]",
    "mov rdx, [rsp + 8]",
    "mov rcx, cr2",
    "jmp fault",
    ".endif",
    ".set vector, vector + 1",
    ".endr",
);

unsafe extern "C" {
    static fault_entries: u8;
}

static mut TABLE: [[u64; 2]; 256] = [[0; 2]; 256];

/// Fills the interrupt descriptor table and loads it. Interrupts stay off; an NMI is let pass.
pub fn install() {
    let entries = (&raw const fault_entries) as u64;
    for number in 0..256 {
        let at = entries + 16 * number;
        let low = at & 0xffff | 0x08 << 16 | 0x8e00 << 32 | (at >> 16 & 0xffff) << 48;
        // SAFETY: one processor fills the table, before it is loaded.
        unsafe { (&raw mut TABLE[number as usize]).write([low, at >> 32]) };
    }
    load();
}

/// Loads the table on this processor.
pub fn load() {
    let address = (&raw const TABLE) as u64;
    let pointer = [(size_of::<[[u64; 2]; 256]>() as u64 - 1) << 48, address];
    // SAFETY: a limit of 16 bits, then the address: the last ten bytes of the array.
    unsafe { core::arch::asm!("lidt [{}]", in(reg) (&raw const pointer).byte_add(6)) };
}

#[unsafe(no_mangle)]
extern "C" fn fault(vector: u64, first: u64, second: u64, address: u64) -> ! {
    serial::set_up();
    say!("BAD exception {vector} in the guest: stack {first:#x} {second:#x}, CR2 {address:#x}");
    power::off();
}
