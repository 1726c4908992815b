//! The monitor with guests of a few instructions.
#![allow(unsafe_code, reason = "guests are assembled into this program")]

mod balloon;
mod cdrom;
mod control;
mod cpu;
mod display;
mod firmware;
mod generation;
mod hotplug;
mod jail;
mod launch;
mod lifecycle;
mod nvme;
mod panic;
mod processor;
mod queues;
mod recorded;
mod saved;
#[path = "../support/mod.rs"]
mod support;
mod viewers;
mod watchdog;
