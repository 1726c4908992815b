//! What guests of a configuration name that is not on this host.

use std::collections::HashSet;

use lodge_api::image::ImageKind;
use lodge_api::vm::VmSpec;
use lodge_api::{Name, Problem};
use lodge_host::net::Uplink;
use lodge_store::{Batch, Snapshot};
use uuid::Uuid;

use crate::catalogue::{self, Object};
use crate::disks::DiskRecord;
use crate::images::ImageRecord;
use crate::networks::NetworkRecord;

/// Stands in for what is absent, so that the rest of a guest's configuration is checked as always.
#[derive(Default)]
pub(super) struct StandIns {
    batch: Batch,
    names: HashSet<(&'static str, Name)>,
}

impl StandIns {
    /// The networks that the configuration brings itself.
    pub(super) fn add_network(&mut self, network: &NetworkRecord) -> Result<(), Problem> {
        self.add(network)
    }

    /// Adds what a guest names that is not there, and answers what that is, for people.
    pub(super) fn add_guest(
        &mut self,
        spec: &VmSpec,
        snapshot: &Snapshot,
    ) -> Result<Vec<String>, Problem> {
        let mut absent = Vec::new();
        for disk in &spec.disks {
            let stand_in = || DiskRecord::new(disk.disk.clone(), 1 << 20);
            if self.is_absent(snapshot, &disk.disk, stand_in)? {
                absent.push(format!(
                    "the disk \"{}\" (lodge vm restore, or lodge disk create)",
                    disk.disk
                ));
            }
        }
        for (name, kind) in images(spec) {
            let stand_in = || ImageRecord::absent(name.clone(), kind);
            if self.is_absent(snapshot, name, stand_in)? {
                absent.push(format!("the image \"{name}\" (lodge image upload)"));
            }
        }
        for nic in &spec.nics {
            let stand_in = || NetworkRecord {
                id: Uuid::now_v7(),
                name: nic.network.clone(),
                bridge: None,
                uplink: Uplink::Isolated,
            };
            if self.is_absent(snapshot, &nic.network, stand_in)? {
                absent.push(format!(
                    "the network \"{}\" (lodge network create)",
                    nic.network
                ));
            }
        }
        Ok(absent)
    }

    /// The host as it would be with all of it.
    pub(super) fn on(&self, snapshot: &Snapshot) -> Snapshot {
        snapshot.after(&self.batch)
    }

    fn is_absent<O: Object>(
        &mut self,
        snapshot: &Snapshot,
        name: &Name,
        stand_in: impl FnOnce() -> O,
    ) -> Result<bool, Problem> {
        if catalogue::find_optional::<O>(snapshot, name.as_str())?.is_some() {
            return Ok(false);
        }
        self.add(&stand_in())?;
        Ok(true)
    }

    fn add<O: Object>(&mut self, object: &O) -> Result<(), Problem> {
        match self.names.insert((O::KIND, object.name().clone())) {
            true => catalogue::insert(&mut self.batch, object),
            false => Ok(()),
        }
    }
}

fn images(spec: &VmSpec) -> impl Iterator<Item = (&Name, ImageKind)> {
    let kernel = spec
        .boot
        .kernel
        .iter()
        .map(|name| (name, ImageKind::Kernel));
    let initrd = spec
        .boot
        .initrd
        .iter()
        .map(|name| (name, ImageKind::Initrd));
    let discs = spec.cdroms.iter().filter_map(|drive| drive.image.as_ref());
    let discs = discs.map(|name| (name, ImageKind::Iso));
    kernel.chain(initrd).chain(discs)
}
