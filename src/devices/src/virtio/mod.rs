//! Virtio 1.2 devices and their PCI transport.

pub mod balloon;
pub mod blk;
mod buffers;
pub mod chain;
mod config_change;
pub mod console;
mod device;
pub mod input;
pub mod net;
pub mod pci;
pub(crate) mod queue_thread;
pub mod rng;
mod served;
#[cfg(test)]
mod test_driver;
mod vhost;
pub mod vsock;
pub(crate) mod wait;

pub use buffers::{Buffers, Segment};
pub use device::{
    ActivateError, Activation, ActiveQueue, Complain, DeviceEvents, QueueInterrupt, VirtioDevice,
};
pub use queue_thread::Prologue;
