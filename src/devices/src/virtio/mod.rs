//! Virtio 1.2 devices and their PCI transport.

pub mod blk;
mod buffers;
pub mod chain;
mod device;
pub mod pci;
mod queue_thread;
#[cfg(test)]
mod test_driver;
mod wait;

pub use buffers::{Buffers, Segment};
pub use device::{
    ActivateError, Activation, ActiveQueue, DeviceEvents, QueueInterrupt, VirtioDevice,
};
pub use queue_thread::Prologue;
