//! Registers of the first vCPU at the guest's entry point.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use crate::boot::Entry;
use crate::layout::{BOOT_GDT, BOOT_PAGE_TABLES, BOOT_STACK, PVH_START_INFO, ZERO_PAGE};

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit that always reads as one.
const RFLAGS_FIXED: u64 = 1 << 1;

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

const TYPE_CODE: u8 = 0xb;
const TYPE_DATA: u8 = 0x3;
const TYPE_TASK_BUSY: u8 = 0xb;

/// General registers at entry.
pub fn general(entry: Entry) -> kvm_regs {
    let common = kvm_regs {
        rip: entry.address(),
        rflags: RFLAGS_FIXED,
        ..Default::default()
    };
    match entry {
        Entry::Pvh(_) => kvm_regs {
            rbx: PVH_START_INFO,
            ..common
        },
        Entry::Linux64(_) => kvm_regs {
            rsi: ZERO_PAGE,
            rsp: BOOT_STACK,
            rbp: BOOT_STACK,
            ..common
        },
        Entry::ResetVector => common,
    }
}

/// System registers at entry, made from those at power-on (which hold the APIC base).
pub fn system(power_on: &kvm_sregs, entry: Entry) -> kvm_sregs {
    let mut sregs = *power_on;
    let long = matches!(entry, Entry::Linux64(_));
    let data = segment(DATA_SELECTOR, TYPE_DATA, false);
    sregs.cs = segment(CODE_SELECTOR, TYPE_CODE, long);
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = task_state();
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    if long {
        sregs.gdt.base = BOOT_GDT;
        sregs.gdt.limit = 5 * 8 - 1;
        sregs.cr0 |= CR0_PG;
        sregs.cr3 = BOOT_PAGE_TABLES;
        sregs.cr4 = CR4_PAE;
        sregs.efer = EFER_LME | EFER_LMA;
    }
    sregs
}

fn segment(selector: u16, type_: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

/// Hardware refuses to enter a guest without a valid task register.
fn task_state() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff,
        selector: TASK_SELECTOR,
        type_: TYPE_TASK_BUSY,
        present: 1,
        ..Default::default()
    }
}
