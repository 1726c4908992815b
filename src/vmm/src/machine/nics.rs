//! Network cards.

use std::sync::Arc;

use lodge_devices::e1000e::{E1000e, E1000eHandle, E1000eOptions};
use lodge_devices::interrupt::Platform;
use lodge_devices::pci::Address;
use lodge_devices::virtio::net::{self, Net, QueuePair};
use lodge_vmm_proto::{LaunchError, NicConfig, NicModel};

use super::hardware::Hardware;
use super::plug::{Refusal, flat, free_number};
use super::workshop::Workshop;
use super::{Failure, slots};
use crate::descriptors::Descriptors;
use crate::saved::Place;

/// A network interface to attach.
pub struct Nic {
    /// What its queues are served by, see [`lodge_vmm_proto::NicConfig`]; for virtio only more than one, and vhost.
    pub pairs: Vec<QueuePair>,
    /// Which card the guest sees.
    pub model: NicModel,
    /// MAC address and MTU.
    pub options: net::Options,
    /// The guest finds the link up.
    pub link_up: bool,
}

impl Nic {
    /// What `config` says, with its descriptors.
    ///
    /// # Errors
    /// When a descriptor is named more than once.
    pub fn new(config: &NicConfig, descriptors: &mut Descriptors) -> Result<Self, Failure> {
        let mut pair = |pair: lodge_vmm_proto::QueuePair| {
            let vhost = pair.vhost.map(|vhost| descriptors.take(vhost));
            Ok(QueuePair {
                tap: descriptors.take(pair.tap)?,
                vhost: vhost.transpose()?,
            })
        };
        Ok(Self {
            pairs: config
                .pairs()
                .map(&mut pair)
                .collect::<Result<_, Failure>>()?,
            model: config.model,
            options: net::Options {
                mac: config.mac,
                mtu: config.mtu,
            },
            link_up: config.link_up,
        })
    }
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
    /// Pairs of queues of a virtio interface with a control queue.
    pairs: Option<u16>,
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
            queues: self.pairs,
        }
    }
}

fn name(number: u8) -> String {
    format!("nic{number}")
}

/// Gives a network interface the `had` pairs of queues that its driver knows of; none are said where there was but one ever.
fn keep_queues(name: &str, nic: &mut Nic, had: Option<u16>) -> Result<(), Failure> {
    let (had, has) = (had.map_or(1, usize::from), nic.pairs.len());
    if had > has {
        let message = format!("{name}: it was saved with {had} pairs of queues, and has {has} now");
        return Err(Failure::new(LaunchError::State, message));
    }
    // What is closed here gets no packets from the kernel.
    nic.pairs.truncate(had);
    Ok(())
}

impl Hardware {
    /// Adds a network interface, if virtio served by the kernel if there is vhost; at `place`, if it is given. One that is
    /// `restored` has the queues that its place says.
    ///
    /// # Errors
    /// When the descriptors are not what they should be or too few for its place, or the host refuses.
    pub fn add_nic(
        &mut self,
        mut nic: Nic,
        place: Option<&Place>,
        restored: bool,
    ) -> Result<(), Failure> {
        let number = place.map_or(self.nics.len() as u8, |place| place.number);
        let slot = place.and_then(|place| place.slot);
        let name = name(number);
        let (mac, model, link_up) = (nic.options.mac, nic.model, nic.link_up);
        let had = place.and_then(|place| place.queues);
        if restored {
            keep_queues(&name, &mut nic, had)?;
        }
        // Guests that were saved before there were control queues know of none.
        let controlled = model == NicModel::Virtio && (!restored || had.is_some());
        let pairs = controlled.then_some(nic.pairs.len() as u16);
        let (at, handle) = match model {
            NicModel::Virtio => self.add_virtio_nic(&name, nic, slot, controlled)?,
            NicModel::E1000e => self.add_e1000e(&name, nic, slot)?,
        };
        handle.set_link(link_up);
        self.place.nics.push(at);
        self.nics.push(PluggedNic {
            mac,
            model,
            at,
            number,
            pairs,
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
        let (events, pairs) = (self.surroundings.events.clone(), nic.pairs.len() as u16);
        let built = workshop.run(move || {
            let device = Net::new(nic.pairs, Some(&events), nic.options, &prologue)?;
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
            pairs: Some(pairs),
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
        controlled: bool,
    ) -> Result<(Address, Handle), Failure> {
        let kind = LaunchError::Nic;
        let prologue = Arc::clone(&self.surroundings.queue_prologue);
        let events = controlled.then_some(&self.surroundings.events);
        let device = Net::new(nic.pairs, events, nic.options, &prologue)
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
        let tap = nic.pairs.into_iter().next().map(|pair| pair.tap);
        let tap = tap.ok_or_else(|| Failure::new(LaunchError::Nic, format!("{name}: no tap")))?;
        let address = self.take_slot(name, slots::NICS, slot, LaunchError::Nic)?;
        let surroundings = &self.surroundings;
        let card = E1000e::new(E1000eOptions {
            name: name.to_owned(),
            tap,
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn nic(pairs: usize) -> Nic {
        let pair = |_| QueuePair {
            tap: File::open("/dev/null").unwrap().into(),
            vhost: None,
        };
        Nic {
            pairs: (0..pairs).map(pair).collect(),
            model: NicModel::Virtio,
            options: net::Options {
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 1500,
            },
            link_up: true,
        }
    }

    #[test]
    fn a_restored_interface_has_the_queues_it_had() {
        for (had, given, left) in [(None, 1, 1), (None, 4, 1), (Some(1), 4, 1), (Some(4), 4, 4)] {
            let mut nic = nic(given);
            keep_queues("nic0", &mut nic, had).unwrap();
            assert_eq!(nic.pairs.len(), left, "{had:?} of {given}");
        }
        let refused = keep_queues("nic0", &mut nic(2), Some(4)).unwrap_err();
        assert!(refused.to_string().contains("4 pairs of queues"));
    }
}
