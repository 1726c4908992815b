//! The wired interrupts of PCI functions: eight wires, each at an input of the I/O APIC of its own, and at one of the PICs'
//! while the guest has routed it there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use lodge_devices::interrupt::InterruptLine;
use lodge_devices::pci::PirqRouting;

use crate::interrupt::Interrupts;
use crate::layout::{PIRQ_A_GSI, PIRQS, pirq_of};

/// Inputs of the two PICs.
const ISA_INPUTS: u8 = 16;

/// The wires.
pub struct Pirqs {
    wires: Vec<Arc<Wire>>,
}

struct Wire {
    number: usize,
    io_apic: Arc<dyn InterruptLine>,
    pic: Arc<[Arc<dyn InterruptLine>]>,
    routing: PirqRouting,
    /// How many pins drive it high.
    high: Mutex<usize>,
}

/// A function's pin A.
struct Pin {
    wire: Arc<Wire>,
    high: Mutex<bool>,
}

impl Pirqs {
    /// The wires, which follow `routing`.
    pub fn new(interrupts: &Interrupts, routing: &PirqRouting) -> Self {
        let pic: Arc<[_]> = (0..ISA_INPUTS)
            .map(|input| interrupts.line(input))
            .collect();
        let wire = |number| {
            Arc::new(Wire {
                number,
                // One of the I/O APIC's 24 inputs.
                io_apic: interrupts.line(PIRQ_A_GSI + number as u8),
                pic: Arc::clone(&pic),
                routing: Arc::clone(routing),
                high: Mutex::new(0),
            })
        };
        Self {
            wires: (0..PIRQS).map(wire).collect(),
        }
    }

    /// Pin A of a function of `device`. A wire is high while any of its pins is.
    pub fn pin(&self, device: u8) -> Arc<dyn InterruptLine> {
        Arc::new(Pin {
            wire: Arc::clone(&self.wires[usize::from(pirq_of(device))]),
            high: Mutex::new(false),
        })
    }
}

impl InterruptLine for Pin {
    fn set_level(&self, high: bool) {
        let mut before = self.high.lock().unwrap();
        self.wire.change(*before, high);
        *before = high;
    }
}

impl Wire {
    /// One of the pins goes from one level to another.
    fn change(&self, from: bool, to: bool) {
        let mut pins = self.high.lock().unwrap();
        *pins = *pins - usize::from(from) + usize::from(to);
        self.drive(*pins > 0);
    }

    /// A change of the routing counts from the next change of the level on: drivers route before they enable.
    fn drive(&self, high: bool) {
        self.io_apic.set_level(high);
        let routing = self.routing[self.number].load(Ordering::Relaxed);
        // Bit 7 switches the route off (ICH9 datasheet, 13.1.16).
        if let Some(line) = self.pic.get(usize::from(routing)) {
            line.set_level(high);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU8};

    use super::*;

    #[derive(Default)]
    struct Level(AtomicBool);

    impl InterruptLine for Level {
        fn set_level(&self, high: bool) {
            self.0.store(high, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_wire_is_high_while_any_pin_is() {
        let (io_apic, pic) = (Arc::new(Level::default()), Arc::new(Level::default()));
        // Routed to the second input of the PICs, where there is nothing, and then to the first.
        let routing: PirqRouting = Arc::new([const { AtomicU8::new(1) }; 8]);
        let wire = Arc::new(Wire {
            number: 5,
            io_apic: Arc::clone(&io_apic) as _,
            pic: Arc::new([Arc::clone(&pic) as _]),
            routing: Arc::clone(&routing),
            high: Mutex::new(0),
        });
        let pin = || Pin {
            wire: Arc::clone(&wire),
            high: Mutex::new(false),
        };
        let levels = || [&io_apic, &pic].map(|line| line.0.load(Ordering::Relaxed));
        let (one, other) = (pin(), pin());
        one.set_level(true);
        assert_eq!(levels(), [true, false]);
        routing[5].store(0, Ordering::Relaxed);
        other.set_level(true);
        one.set_level(false);
        one.set_level(false);
        assert_eq!(levels(), [true, true]);
        other.set_level(false);
        assert_eq!(levels(), [false, false]);
    }

    #[test]
    fn pins_are_at_the_wires_stock_firmware_expects() {
        assert_eq!([31, 1, 2, 3, 4, 30].map(pirq_of), [0, 5, 6, 7, 4, 6]);
    }
}
