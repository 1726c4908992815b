//! The second processor: it does one thing over and over while the first attacks.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::entry;
use crate::faults;
use crate::io::{Width, beat, raw_store};
use crate::memory::target;
use crate::random::Random;

const APIC: u64 = 0xfee0_0000;
/// Rounds of waiting until it is taken for missing.
const PATIENCE: u64 = 100_000;

const ASLEEP: u64 = 0;
const IDLE: u64 = 1;
const REWRITE: u64 = 2;
const DISTURB: u64 = 3;

static WISH: AtomicU64 = AtomicU64::new(ASLEEP);
static DOES: AtomicU64 = AtomicU64::new(ASLEEP);
static ADDRESS: AtomicU64 = AtomicU64::new(0);
static LENGTH: AtomicU64 = AtomicU64::new(0);
static MEMORY_END: AtomicU64 = AtomicU64::new(0);

/// Starts it in a machine whose memory ends there; tells whether there is one.
pub fn start(memory_end: u64) -> bool {
    MEMORY_END.store(memory_end, Ordering::SeqCst);
    entry::place_trampoline();
    WISH.store(IDLE, Ordering::SeqCst);
    raw_store(APIC + 0xf0, Width::Double, 0x1ff);
    raw_store(APIC + 0x300, Width::Double, 0x000c_4500); // INIT to all others
    for _ in 0..10_000 {
        core::hint::spin_loop();
    }
    let page = entry::TRAMPOLINE >> 12;
    raw_store(APIC + 0x300, Width::Double, 0x000c_4600 | page);
    wait_for(IDLE)
}

/// Has it overwrite descriptors that a device is reading, from `address` on.
pub fn rewrite(address: u64, count: u64) {
    assign(REWRITE, address, count);
}

/// Has it write to registers, at random, in random widths.
pub fn disturb(address: u64, length: u64) {
    assign(DISTURB, address, length);
}

/// Has it do nothing.
pub fn rest() {
    if DOES.load(Ordering::SeqCst) != ASLEEP {
        WISH.store(IDLE, Ordering::SeqCst);
        wait_for(IDLE);
    }
}

fn assign(what: u64, address: u64, length: u64) {
    rest();
    ADDRESS.store(address, Ordering::SeqCst);
    LENGTH.store(length, Ordering::SeqCst);
    WISH.store(what, Ordering::SeqCst);
}

fn wait_for(what: u64) -> bool {
    for _ in 0..PATIENCE {
        for _ in 0..100 {
            if DOES.load(Ordering::SeqCst) == what {
                return true;
            }
            core::hint::spin_loop();
        }
        beat();
    }
    false
}

/// Where the second processor arrives.
#[unsafe(no_mangle)]
extern "C" fn assist() -> ! {
    faults::load();
    let mut random = Random::new(0x5ec0_4d);
    loop {
        let wish = WISH.load(Ordering::SeqCst);
        DOES.store(wish, Ordering::SeqCst);
        let address = ADDRESS.load(Ordering::SeqCst);
        let length = LENGTH.load(Ordering::SeqCst);
        match wish {
            REWRITE => {
                let at = address + 16 * random.below(length);
                // Half of them valid, so that a device gets far with some.
                if random.below(2) == 0 {
                    raw_store(
                        at,
                        Width::Quad,
                        target(&mut random, MEMORY_END.load(Ordering::SeqCst)),
                    );
                } else {
                    let (links, size) = (
                        random.below(8) | random.below(4) << 16,
                        random.value() & 0xffff_ffff,
                    );
                    raw_store(at + 8, Width::Quad, links << 32 | size);
                }
            }
            DISTURB => {
                let width = random.pick(Width::ALL);
                raw_store(address + random.below(length), width, random.value());
            }
            _ => core::hint::spin_loop(),
        }
    }
}
