//! The wired interrupt of PCI functions: PIRQA, at an input of the I/O APIC of its own, and at one of the PICs' while the
//! guest has routed it there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use lodge_devices::interrupt::InterruptLine;

use crate::interrupt::Interrupts;
use crate::layout::PIRQ_A_GSI;

/// Inputs of the two PICs.
const ISA_INPUTS: u8 = 16;

/// PIRQA.
pub struct Pirq {
    io_apic: Arc<dyn InterruptLine>,
    pic: Vec<Arc<dyn InterruptLine>>,
    /// PIRQA_ROUT of the LPC bridge.
    routing: Arc<AtomicU8>,
}

impl Pirq {
    /// The line, which follows `routing`.
    pub fn line(interrupts: &Interrupts, routing: Arc<AtomicU8>) -> Arc<dyn InterruptLine> {
        Arc::new(Self {
            io_apic: interrupts.line(PIRQ_A_GSI),
            pic: (0..ISA_INPUTS)
                .map(|input| interrupts.line(input))
                .collect(),
            routing,
        })
    }
}

impl InterruptLine for Pirq {
    /// A change of the routing counts from the next change of the level on: drivers route before they enable.
    fn set_level(&self, high: bool) {
        self.io_apic.set_level(high);
        let routing = self.routing.load(Ordering::Relaxed);
        // Bit 7 switches the route off (ICH9 datasheet, 13.1.16).
        if let Some(line) = self.pic.get(usize::from(routing)) {
            line.set_level(high);
        }
    }
}
