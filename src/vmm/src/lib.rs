//! The virtual machine monitor: one process, one guest.
//!
//! `birth` receives everything the guest is made of over a socket and enters the
//! `jail`; `machine` builds the guest; `run_control` and `control` hold
//! and move it until its end; `exit` says why it ended.

mod acpi;
pub mod birth;
mod boot;
mod complaints;
mod control;
mod descriptors;
mod exit;
mod firmware;
mod footprint;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod interrupt;
mod jail;
mod kvm;
mod layout;
mod log;
mod machine;
mod memory;
mod power;
mod run_control;
mod saved;
mod slot;
mod smbios;
mod vcpu;
mod viewers;

pub use birth::main_from_birth_socket;
