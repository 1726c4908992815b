//! A guest that attacks its monitor.
//!
//! It does, one attack after another, what no driver would: each [attack](attacks::ATTACKS) takes one way into the
//! monitor and tries all it can there. After each it resets the machine and boots again, so that every attack begins with fresh
//! devices, and each is followed by the proof that the machine still works. On its serial port it says what it does, and `BAD` with
//! what a monitor must not do. At the end it powers off.
//!
//! Its command line: `seed=N` for random numbers, `rounds=N` for how many of them, `memory=BYTES` for where its
//! memory ends, `flash=ADDRESS` for where a flash chip is, `first=NAME` for the attack to begin with, `only=NAME` for a single one,
//! `watched` to wait for a byte on the serial port before the first attack and after the last.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "there is no operating system below")]
#![allow(missing_docs, reason = "a program, not a library")]

mod attacks;
mod command_line;
mod entry;
mod faults;
mod io;
mod memory;
mod pci;
mod power;
mod progress;
mod random;
mod ring;
mod second;
mod serial;
mod virtio;

use command_line::CommandLine;
use random::Random;

/// What attacks work with.
pub struct World {
    pub functions: pci::Functions,
    pub random: Random,
    /// How often random attacks are repeated.
    pub rounds: u64,
    /// First address after the guest's memory.
    pub memory_end: u64,
    /// Where a flash chip begins, or 0.
    pub flash: u64,
    /// Whether there is a second processor to help.
    pub helper: bool,
    failures: u32,
}

/// From so many rounds on, every register is accessed, in every width and not in one of them.
const THOROUGH: u64 = 8;

impl World {
    /// Whether there is time to try everything.
    pub fn thorough(&self) -> bool {
        self.rounds >= THOROUGH
    }

    /// The widths in which to access a register this time.
    pub fn widths(&mut self, all: &'static [io::Width]) -> &'static [io::Width] {
        if self.thorough() {
            return all;
        }
        let at = self.random.below(all.len() as u64) as usize;
        &all[at..=at]
    }

    /// Starts a device, as it must be possible after all that was done to it; tells whether it is.
    pub fn must_start(&mut self, device: &virtio::Device) -> bool {
        let started = device.start();
        if !started {
            self.bad(format_args!("{} does not start", device.name()));
        }
        started
    }

    /// Says what the monitor must not have done.
    pub fn bad(&mut self, what: core::fmt::Arguments<'_>) {
        self.failures += 1;
        // A monitor that does it once does it often.
        if self.failures <= 20 {
            say!("BAD {what}");
        }
    }
}

/// Where the first processor arrives, with the PVH start information.
#[unsafe(no_mangle)]
extern "C" fn begin(start_info: u64) -> ! {
    serial::set_up();
    faults::install();
    let line = CommandLine::find(start_info);
    let stage = progress::resume();
    if stage.fresh {
        say!(
            "hostile guest: seed={:#x} rounds={}",
            line.seed,
            line.rounds
        );
        if line.watched {
            serial::wait_for_watcher();
        }
    }
    if let Some(name) = stage
        .interrupted
        .and_then(|number| attacks::ATTACKS.get(number))
    {
        say!("{} ended by a reset", name.0);
    }
    let mut next = stage.next;
    let wanted = if line.only.is_empty() {
        line.first
    } else {
        line.only
    };
    if !wanted.is_empty() && stage.fresh {
        let mut attacks = attacks::ATTACKS.iter();
        let named = attacks.position(|(name, _)| name.as_bytes() == wanted);
        next = named.unwrap_or(usize::MAX);
    }
    let Some((name, attack)) = attacks::ATTACKS.get(next) else {
        finish(stage.failures, line.watched);
    };
    progress::begin(next, stage.failures);
    // Each attack has its own random numbers, whatever ran before it.
    let random = Random::new(line.seed ^ (next as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut world = World {
        functions: pci::set_up(),
        random,
        rounds: line.rounds,
        memory_end: line.memory,
        flash: line.flash,
        helper: second::start(line.memory),
        failures: 0,
    };
    say!("{name} begins");
    attack(&mut world);
    second::rest();
    serial::set_up();
    say!("{name} over");
    let failures = stage.failures.saturating_add(world.failures.min(255) as u8);
    let after = if line.only.is_empty() {
        next + 1
    } else {
        usize::from(u8::MAX)
    };
    progress::end(after, failures);
    power::reset(next);
}

/// The last words, for whoever watches.
fn finish(failures: u8, watched: bool) -> ! {
    say!("hostile guest: all attacks over, {failures} bad");
    if watched {
        serial::wait_for_watcher();
    }
    power::off();
}

#[panic_handler]
fn panic(panic: &core::panic::PanicInfo<'_>) -> ! {
    serial::set_up();
    say!("BAD the guest itself: {panic}");
    power::off();
}
