//! What the guest says, on its first serial port.

use core::fmt;

use crate::io::{Width, raw_input, raw_output};

const PORT: u16 = 0x3f8;

/// The port as everybody expects it, whatever an attack has left behind: no interrupts, 8 bits, not looped back.
pub fn set_up() {
    for (offset, value) in [(3, 0x03), (1, 0), (2, 0x01), (4, 0x03)] {
        raw_output(PORT + offset, Width::Byte, value);
    }
}

/// One that the watcher skips.
pub fn sign_of_life() {
    raw_output(PORT, Width::Byte, u32::from(b'.'));
}

/// Waits until the watcher has sent something.
pub fn wait_for_watcher() {
    while raw_input(PORT + 5, Width::Byte) & 1 == 0 {
        core::hint::spin_loop();
    }
    raw_input(PORT, Width::Byte);
}

/// Where `write!` goes.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // The transmitter's register is free: it always is.
            while raw_input(PORT + 5, Width::Byte) & 0x20 == 0 {}
            raw_output(PORT, Width::Byte, u32::from(byte));
        }
        Ok(())
    }
}

/// Prints a line.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        // Writing there cannot fail.
        let _ = writeln!($crate::serial::Serial, $($argument)*);
    }};
}
