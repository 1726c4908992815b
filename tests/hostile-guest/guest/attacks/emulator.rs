//! Instructions that KVM emulates because an operand is a device's: read-modify-write, strings, the stack.

use core::arch::asm;

use crate::World;
use crate::io::{Width, load};
use crate::memory::ARENA;
use crate::virtio;

pub fn operands(world: &mut World) {
    for function in world.functions.with_bar() {
        for offset in [
            0,
            0x16,
            0x1000,
            0x2000,
            0x4000,
            0x4ffc,
            function.length - 8,
            function.length - 2,
        ] {
            if offset < function.length {
                read_modify_write(function.bar + offset);
                strings(function.bar + offset);
            }
        }
    }
    for address in [0xc000_0000_u64, 0xb000_0000, 0xfeff_b000, 0xfed0_0000] {
        read_modify_write(address);
        strings(address);
    }
    for device in virtio::devices(&world.functions) {
        world.must_start(&device);
    }
}

fn read_modify_write(address: u64) {
    // SAFETY: `address` is a register, or nothing.
    unsafe {
        asm!(
            "inc byte ptr [{a}]",
            "or word ptr [{a}], 0x8001",
            "xor dword ptr [{a}], eax",
            "add qword ptr [{a}], rax",
            "not dword ptr [{a}]",
            "xchg dword ptr [{a}], eax",
            "test byte ptr [{a}], 1",
            "cmp dword ptr [{a}], eax",
            "movzx eax, byte ptr [{a}]",
            "movsx rax, word ptr [{a}]",
            a = in(reg) address, out("rax") _,
        );
    }
}

/// Strings from a device to memory, from memory to a device, and from a device to itself.
fn strings(address: u64) {
    for (from, to) in [(address, ARENA), (ARENA, address), (address, address)] {
        // SAFETY: the memory is the arena's.
        unsafe {
            asm!(
                "rep movsd",
                inout("rsi") from => _, inout("rdi") to => _, inout("rcx") 4_u64 => _,
            );
        }
    }
    // SAFETY: as above.
    unsafe {
        asm!("rep stosb", in("al") 0xff_u8, inout("rdi") address => _, inout("rcx") 3_u64 => _);
    }
    load(address, Width::Quad);
}
