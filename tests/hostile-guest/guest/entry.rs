//! From the PVH entry point in 32-bit mode to [`begin`](crate::begin) in 64-bit mode, on each processor.

use core::arch::global_asm;

/// Where the second processor begins, in real mode: the page that its start-up message names.
pub const TRAMPOLINE: u64 = 0x8000;

// Memory is mapped as it is: the first 4 GiB and, for PCI BARs, the first GiB from 32 GiB on.
global_asm!(
    ".section .note.pvh, \"a\", @note",
    ".long 4, 4, 18", // XEN_ELFNOTE_PHYS32_ENTRY
    ".asciz \"Xen\"",
    ".long start",
    ".section .start, \"ax\", @progbits",
    ".code32",
    ".globl start",
    "start:",
    "cli",
    "cld",
    "mov esp, offset boot_stack_end",
    "mov esi, ebx", // the start information
    // Large pages: present, writable, and large.
    "mov edi, offset directories",
    "mov eax, 0x83",
    "mov ecx, 4 * 512",
    "1: mov [edi], eax",
    "add eax, 0x200000",
    "add edi, 8",
    "loop 1b",
    "mov eax, 0x83",
    "mov ecx, 512",
    "2: mov [edi], eax",
    "mov dword ptr [edi + 4], 8", // 32 GiB
    "add eax, 0x200000",
    "add edi, 8",
    "loop 2b",
    "mov edi, offset pointers",
    "mov eax, offset directories + 3",
    "mov [edi], eax",
    "add eax, 0x1000",
    "mov [edi + 8], eax",
    "add eax, 0x1000",
    "mov [edi + 16], eax",
    "add eax, 0x1000",
    "mov [edi + 24], eax",
    "add eax, 0x1000",
    "mov [edi + 32 * 8], eax",
    "mov eax, offset pointers + 3",
    "mov [root_table], eax",
    "lgdt [gdt_pointer]",
    "call to_paging",
    "ljmp 0x08, offset long_mode",
    // Paging and 64-bit mode on, as far as a near return still works.
    "to_paging:",
    "mov eax, offset root_table",
    "mov cr3, eax",
    "mov eax, 0x620", // PAE, OSFXSR, OSXMMEXCPT
    "mov cr4, eax",
    "mov ecx, 0xc0000080", // EFER
    "rdmsr",
    "or eax, 0x100", // LME
    "wrmsr",
    "mov eax, 0x80000033", // PG, NE, ET, MP, PE
    "mov cr0, eax",
    "ret",
    ".code64",
    "long_mode:",
    "mov eax, 0x10",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "mov rsp, offset boot_stack_end",
    "mov edi, esi",
    "call begin",
    "ud2",
    // The second processor: copied to the trampoline, entered in real mode.
    ".code16",
    ".globl trampoline_start",
    "trampoline_start:",
    "cli",
    "mov ax, cs",
    "mov ds, ax",
    ".byte 0x0f, 0x01, 0x16", // lgdt [trampoline_pointer], from the segment's start
    ".word trampoline_pointer - trampoline_start",
    "mov eax, 0x33",
    "mov cr0, eax",
    ".byte 0x66, 0xea", // a far jump with a 32-bit offset
    ".long second_protected",
    ".word 0x18",
    ".balign 4",
    "trampoline_pointer: .word gdt_end - gdt - 1",
    ".long gdt",
    ".globl trampoline_end",
    "trampoline_end:",
    ".code32",
    "second_protected:",
    "mov eax, 0x10",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "mov esp, offset second_stack_end",
    "call to_paging",
    "ljmp 0x08, offset second_long_mode",
    ".code64",
    "second_long_mode:",
    "mov rsp, offset second_stack_end",
    "call assist",
    "ud2",
    ".balign 8",
    "gdt: .quad 0",
    ".quad 0x00af9b000000ffff", // 64-bit code
    ".quad 0x00cf93000000ffff", // data
    ".quad 0x00cf9b000000ffff", // 32-bit code
    "gdt_end:",
    "gdt_pointer: .word gdt_end - gdt - 1",
    ".long gdt",
    ".section .bss, \"aw\", @nobits",
    ".balign 4096",
    "root_table: .skip 4096",
    "pointers: .skip 4096",
    "directories: .skip 5 * 4096",
    ".skip 65536",
    "boot_stack_end:",
    ".skip 16384",
    "second_stack_end:",
    ".text",
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

/// Copies the second processor's first instructions to where it looks for them.
pub fn place_trampoline() {
    let start = &raw const trampoline_start;
    let length = (&raw const trampoline_end) as usize - start as usize;
    // SAFETY: the page is memory nobody else uses.
    unsafe { core::ptr::copy_nonoverlapping(start, TRAMPOLINE as *mut u8, length) };
}
