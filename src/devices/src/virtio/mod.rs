//! Virtio 1.2 devices and their PCI transport.

mod buffers;
pub mod chain;
mod device;

pub use buffers::{Buffers, Segment};
pub use device::{
    ActivateError, Activation, ActiveQueue, DeviceEvents, QueueInterrupt, VirtioDevice,
};
