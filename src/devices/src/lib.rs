//! Device models of a guest's machine, and the buses they sit on.
//!
//! A device knows registers, queues and its own back end. It does not know who
//! calls it (a vCPU thread, through a [`bus::Bus`]), how an interrupt reaches
//! the guest ([`interrupt`]) or which hypervisor runs below.

pub mod acpi_pm;
pub mod bus;
pub mod cmos;
pub mod console;
pub mod event_loop;
pub mod i8042;
pub mod interrupt;
pub mod lifecycle;
pub mod pci;
pub mod power;
pub mod serial;
pub mod state;
pub mod virtio;

/// The memory of a guest as devices see it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
