//! Sockets between a guest and its host.

use std::os::fd::OwnedFd;

use lodge_devices::virtio::vsock::Vsock as Device;
use lodge_vmm_proto::LaunchError;

use super::hardware::Hardware;
use super::{Failure, slots};

/// The socket device to attach.
pub struct Vsock {
    /// `/dev/vhost-vsock`.
    pub vhost: OwnedFd,
    /// The guest's address.
    pub cid: u32,
}

impl Hardware {
    /// Adds the socket device. To be added before what may take its slot.
    ///
    /// # Errors
    /// When the descriptor is not what it should be, or the address is taken.
    pub fn add_vsock(&mut self, Vsock { vhost, cid }: Vsock) -> Result<(), Failure> {
        let (name, kind) = ("vsock", LaunchError::Vsock);
        let device = Device::new(vhost, cid, &self.surroundings.events)
            .map_err(Failure::doing(kind, name))?;
        self.add_virtio(name, Box::new(device), slots::VSOCK, kind)?;
        Ok(())
    }
}
