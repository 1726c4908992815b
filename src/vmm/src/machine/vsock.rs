//! Sockets between a guest and its host.

use std::os::fd::OwnedFd;

use lodge_devices::lifecycle::SavedDevices;
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

const NAME: &str = "vsock";

/// What is attached of what the host has. A machine that goes on has what it had: hosts differ, and come to have
/// vhost-vsock.
pub(super) fn wanted(
    host: Option<Vsock>,
    saved: Option<&SavedDevices>,
) -> Result<Option<Vsock>, Failure> {
    let Some(saved) = saved else {
        return Ok(host);
    };
    let had = saved.devices.iter().any(|(name, _)| name == NAME);
    match host {
        None if had => Err(Failure::new(
            LaunchError::State,
            "the guest had sockets to its host when it was saved, and this host has no vhost-vsock",
        )),
        host => Ok(host.filter(|_| had)),
    }
}

impl Hardware {
    /// Adds the socket device. To be added before what may take its slot.
    ///
    /// # Errors
    /// When the descriptor is not what it should be, or the address is taken.
    pub fn add_vsock(&mut self, Vsock { vhost, cid }: Vsock) -> Result<(), Failure> {
        let (name, kind) = (NAME, LaunchError::Vsock);
        let device = Device::new(vhost, cid, &self.surroundings.events)
            .map_err(Failure::doing(kind, name))?;
        self.add_virtio(name, Box::new(device), slots::VSOCK, kind)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use lodge_devices::state::DeviceState;

    use super::*;

    #[test]
    fn a_saved_machine_keeps_what_it_had() {
        let host = || {
            let vhost = File::open("/dev/null").unwrap().into();
            Some(Vsock { vhost, cid: 3 })
        };
        let saved = |names: &[&str]| SavedDevices {
            devices: names
                .iter()
                .map(|name| ((*name).to_owned(), DeviceState::new("test", 1, &())))
                .collect(),
        };
        let (with, without) = (saved(&["rng", NAME]), saved(&["rng"]));
        let attached = |host, saved| wanted(host, saved).map(|vsock| vsock.is_some());
        assert!(attached(host(), None).unwrap());
        assert!(!attached(None, None).unwrap());
        assert!(attached(host(), Some(&with)).unwrap());
        assert!(!attached(host(), Some(&without)).unwrap());
        assert!(!attached(None, Some(&without)).unwrap());
        assert!(attached(None, Some(&with)).is_err());
    }
}
