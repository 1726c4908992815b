//! Memory that attacks may fill as they like, and what else the C library would have had.

use core::arch::asm;

use crate::random::Random;

/// Attacks' own memory, well apart from where this program lies.
pub const ARENA: u64 = 0x80_0000;
/// Its length.
pub const ARENA_LENGTH: u64 = 0x80_0000;

/// An address that a device may be given: in the arena, where nothing is, in a device, at the end of everything. Never one below the
/// arena, where this program is, for the device may write there; and what begins in the arena ends above it.
pub fn target(random: &mut Random, memory_end: u64) -> u64 {
    match random.below(8) {
        0..=2 => ARENA + random.below(ARENA_LENGTH),
        3 => memory_end - random.below(0x20),
        4 => memory_end + random.below(1 << 28),
        5 => 0xb000_0000 + random.below(0x5000_0000),
        6 => u64::MAX - random.below(0x2_0000),
        _ => random.next() | 1 << 40,
    }
}

/// Fills a part of the arena with zeroes, in units of 8 bytes.
pub fn clear(address: u64, length: u64) {
    let inside = address >= ARENA && address + length <= ARENA + ARENA_LENGTH;
    assert!(inside, "outside the arena");
    // SAFETY: nothing of this program's is there.
    unsafe {
        asm!("rep stosq", in("rax") 0_u64, inout("rdi") address => _, inout("rcx") length / 8 => _)
    };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    // SAFETY: as the caller promises.
    unsafe {
        asm!("rep stosb", in("al") value as u8, inout("rdi") to => _, inout("rcx") length => _)
    };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: as the caller promises.
    unsafe {
        asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") length => _)
    };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    for at in 0..length {
        // SAFETY: as the caller promises.
        let (left, right) =
            unsafe { (left.add(at).read_volatile(), right.add(at).read_volatile()) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: as the caller promises.
    unsafe { bcmp(left, right, length) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: as the caller promises, a zero comes.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
