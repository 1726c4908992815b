//! Network cards.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use lodge_devices::e1000e::{E1000e, E1000eOptions};
use lodge_devices::interrupt::Platform;
use lodge_devices::pci::Address;
use lodge_devices::virtio::net::{self, Net};
use lodge_vmm_proto::{LaunchError, NicModel};

use super::hardware::Hardware;
use super::{Failure, slots};

/// A network interface to attach.
pub struct Nic {
    /// See [`lodge_vmm_proto::NicConfig`].
    pub tap: OwnedFd,
    /// Vhost in the kernel, where there is one; for virtio only.
    pub vhost: Option<OwnedFd>,
    /// Which card the guest sees.
    pub model: NicModel,
    /// MAC address and MTU.
    pub options: net::Options,
}

impl Hardware {
    /// Adds a network interface on a tap, if virtio served by the kernel if there is a `vhost`.
    ///
    /// # Errors
    /// When the descriptors are not what they should be, or the host refuses.
    pub fn add_nic(&mut self, nic: Nic) -> Result<(), Failure> {
        let name = format!("nic{}", self.place.nics.len());
        let at = match nic.model {
            NicModel::Virtio => self.add_virtio_nic(&name, nic)?,
            NicModel::E1000e => self.add_e1000e(&name, nic)?,
        };
        self.place.nics.push(at);
        Ok(())
    }

    fn add_virtio_nic(&mut self, name: &str, nic: Nic) -> Result<Address, Failure> {
        let prologue = Arc::clone(&self.surroundings.queue_prologue);
        let device = Net::new(nic.tap, nic.vhost, nic.options, prologue)
            .map_err(Failure::doing(LaunchError::Nic, name))?;
        self.add_virtio(name, Box::new(device), slots::NICS, LaunchError::Nic)
    }

    fn add_e1000e(&mut self, name: &str, nic: Nic) -> Result<Address, Failure> {
        let address = self.take_slot(name, slots::NICS, LaunchError::Nic)?;
        let surroundings = &self.surroundings;
        let card = E1000e::new(E1000eOptions {
            name: name.to_owned(),
            tap: nic.tap,
            mac: nic.options.mac,
            memory: surroundings.memory.clone(),
            platform: Arc::new(surroundings.interrupts.clone()) as Arc<dyn Platform>,
            line: self.pirqs.pin(address.device()),
            memory_bus: Arc::clone(&self.buses.memory),
            prologue: Arc::clone(&surroundings.queue_prologue),
        })
        .map_err(Failure::doing(LaunchError::Nic, name))?;
        self.add_function(address, card)?;
        Ok(address)
    }
}
