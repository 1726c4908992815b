//! The DHCPv4 client (RFC 2131).
//!
//! Our own, since the clients there are do not fit a host that must never be lost: a refusal (NAK) has to be
//! obeyed in every state, a lease has to be taken over by a restarted manager without a flap, an address in
//! use has to be declined, and no packet may stop or slow down anything.

mod client;
mod frame;
mod lease;
mod machine;
#[cfg(test)]
mod machine_tests;
mod message;
mod socket;

pub(super) use client::{Client, ClientEvent, ClientSettings, boot_time};
pub use lease::{Lease, LeaseRoute};
