//! Network cards.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use lodge_devices::e1000e::{E1000e, E1000eOptions};
use lodge_devices::interrupt::Platform;
use lodge_devices::pci::Address;
use lodge_devices::virtio::net::{self, Net};
use lodge_vmm_proto::{LaunchError, NicModel};

use super::hardware::Hardware;
use super::plug::{Refusal, flat, free_number};
use super::workshop::Workshop;
use super::{Failure, slots};
use crate::saved::Place;

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

/// A network interface of the machine.
pub struct PluggedNic {
    /// Its address.
    pub mac: [u8; 6],
    /// Which card the guest sees.
    pub model: NicModel,
    /// Where it is.
    pub at: Address,
    /// Its device is called by it.
    number: u8,
}

impl PluggedNic {
    /// The name of its device.
    pub fn name(&self) -> String {
        name(self.number)
    }

    /// Where it is, for a machine that goes on from here.
    pub fn place(&self) -> Place {
        Place {
            number: self.number,
            slot: Some(self.at.device()),
            queues: None,
        }
    }
}

fn name(number: u8) -> String {
    format!("nic{number}")
}

impl Hardware {
    /// Adds a network interface on a tap, if virtio served by the kernel if there is a `vhost`; at `place`, if it is given.
    ///
    /// # Errors
    /// When the descriptors are not what they should be, or the host refuses.
    pub fn add_nic(&mut self, nic: Nic, place: Option<&Place>) -> Result<(), Failure> {
        let number = place.map_or(self.nics.len() as u8, |place| place.number);
        let slot = place.and_then(|place| place.slot);
        let name = name(number);
        let (mac, model) = (nic.options.mac, nic.model);
        let at = match model {
            NicModel::Virtio => self.add_virtio_nic(&name, nic, slot)?,
            NicModel::E1000e => self.add_e1000e(&name, nic, slot)?,
        };
        self.place.nics.push(at);
        self.nics.push(PluggedNic {
            mac,
            model,
            at,
            number,
        });
        Ok(())
    }

    /// Plugs a virtio network interface into the machine, which runs.
    ///
    /// # Errors
    /// When the descriptors are not what they should be, or there is no room.
    pub fn plug_nic(&mut self, workshop: &Workshop, nic: Nic) -> Result<(), Refusal> {
        let taken: Vec<u8> = self.nics.iter().map(|nic| nic.number).collect();
        let number = free_number(&taken);
        let name = name(number);
        let at = self.slots.take_of(slots::NICS);
        let full = || {
            Refusal::full(format!(
                "{name}: all slots for network interfaces are taken"
            ))
        };
        let at = at.ok_or_else(full)?;
        let prologue = Arc::clone(&self.surroundings.queue_prologue);
        let (parts, called, mac) = (self.virtio_parts(), name.clone(), nic.options.mac);
        let built = workshop.run(move || {
            let device = Net::new(nic.tap, nic.vhost, nic.options, prologue)?;
            parts.build(&called, Box::new(device))
        });
        let added = flat(&name, built)
            .and_then(|function| self.add_function(at, function).map_err(Refusal::from));
        added.inspect_err(|_| self.slots.give_back(at))?;
        self.nics.push(PluggedNic {
            mac,
            model: NicModel::Virtio,
            at,
            number,
        });
        self.hotplug.lock().unwrap().added(at.device());
        Ok(())
    }

    fn add_virtio_nic(
        &mut self,
        name: &str,
        nic: Nic,
        slot: Option<u8>,
    ) -> Result<Address, Failure> {
        let kind = LaunchError::Nic;
        let prologue = Arc::clone(&self.surroundings.queue_prologue);
        let function = Net::new(nic.tap, nic.vhost, nic.options, prologue)
            .and_then(|device| self.virtio_parts().build(name, Box::new(device)))
            .map_err(Failure::doing(kind, name))?;
        self.add_in_slot(name, function, slots::NICS, slot, kind)
    }

    fn add_e1000e(&mut self, name: &str, nic: Nic, slot: Option<u8>) -> Result<Address, Failure> {
        let address = self.take_slot(name, slots::NICS, slot, LaunchError::Nic)?;
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
