//! What is logged when the hypervisor refuses a message-signalled interrupt.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::interrupt::MsiMessage;

/// Logs the first refusal of a vector. The guest chooses messages and may choose bad ones as often as it likes.
#[derive(Debug, Default)]
pub struct Refusal(AtomicBool);

impl Refusal {
    /// The route of this message was refused.
    pub fn log(&self, error: &io::Error, message: MsiMessage) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, ?message, "interrupt route refused; vector stays silent");
        }
    }
}
