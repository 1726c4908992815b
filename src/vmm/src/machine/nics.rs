//! Network cards.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use lodge_devices::e1000e::{E1000e, E1000eHandle, E1000eOptions};
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
    /// The guest finds the link up.
    pub link_up: bool,
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
    handle: Handle,
}

/// A way to a network interface.
enum Handle {
    Virtio(net::Handle),
    E1000e(E1000eHandle),
}

impl Handle {
    fn set_link(&self, up: bool) {
        match self {
            Self::Virtio(handle) => handle.set_link(up),
            Self::E1000e(handle) => handle.set_link(up),
        }
    }
}

impl PluggedNic {
    /// Shows the guest its link up, or down.
    pub fn set_link(&self, up: bool) {
        self.handle.set_link(up);
    }

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
        let (mac, model, link_up) = (nic.options.mac, nic.model, nic.link_up);
        let (at, handle) = match model {
            NicModel::Virtio => self.add_virtio_nic(&name, nic, slot)?,
            NicModel::E1000e => self.add_e1000e(&name, nic, slot)?,
        };
        handle.set_link(link_up);
        self.place.nics.push(at);
        self.nics.push(PluggedNic {
            mac,
            model,
            at,
            number,
            handle,
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
            let handle = device.handle();
            handle.set_link(nic.link_up);
            Ok((parts.build(&called, Box::new(device))?, handle))
        });
        let added = flat(&name, built).and_then(|(function, handle)| {
            self.add_function(at, function).map_err(Refusal::from)?;
            Ok(handle)
        });
        let handle = added.inspect_err(|_| self.slots.give_back(at))?;
        self.nics.push(PluggedNic {
            mac,
            model: NicModel::Virtio,
            at,
            number,
            handle: Handle::Virtio(handle),
        });
        self.hotplug.lock().unwrap().added(at.device());
        Ok(())
    }

    fn add_virtio_nic(
        &mut self,
        name: &str,
        nic: Nic,
        slot: Option<u8>,
    ) -> Result<(Address, Handle), Failure> {
        let kind = LaunchError::Nic;
        let prologue = Arc::clone(&self.surroundings.queue_prologue);
        let device = Net::new(nic.tap, nic.vhost, nic.options, prologue)
            .map_err(Failure::doing(kind, name))?;
        let handle = Handle::Virtio(device.handle());
        let function = self
            .virtio_parts()
            .build(name, Box::new(device))
            .map_err(Failure::doing(kind, name))?;
        let at = self.add_in_slot(name, function, slots::NICS, slot, kind)?;
        Ok((at, handle))
    }

    fn add_e1000e(
        &mut self,
        name: &str,
        nic: Nic,
        slot: Option<u8>,
    ) -> Result<(Address, Handle), Failure> {
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
        let handle = card.lock().unwrap().handle();
        self.add_function(address, card)?;
        Ok((address, Handle::E1000e(handle)))
    }
}
