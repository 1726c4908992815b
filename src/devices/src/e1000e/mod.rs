//! An Intel 82574L network card (e1000e), for guests that have no virtio drivers, or not yet:
//! Windows, BSDs, firmware and Linux know it. Section numbers are those of Intel's "82574 GbE
//! Controller Family Datasheet", revision 3.4.
//!
//! vCPUs only touch registers. One thread, started with the card, moves packets between a tap and
//! guest memory: `card.rs` is where both meet.
//!
//! What a driver may notice: interrupts are not throttled; every packet is received on the first
//! of two rings; there are no wake-ups, no time stamps, no pause frames and no loopback; the NVM is
//! read-only. Packets of more than 64 KiB are not segmented.

mod card;
mod clock;
mod counters;
mod filter;
mod frame;
mod function;
mod handle;
mod interrupts;
mod nvm;
mod phy;
mod receive;
mod registers;
mod ring;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod transmit;

pub use self::function::{E1000e, E1000eOptions};
pub use self::handle::E1000eHandle;

const VENDOR_ID: u16 = 0x8086;
const DEVICE_ID: u16 = 0x10d3;
