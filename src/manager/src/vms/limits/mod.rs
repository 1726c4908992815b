//! Limits of a guest that hold at once, also while it runs: what it gets of its host's processors, and what it does with its disks
//! and network interfaces. What is done when the host fails a disk, and whether a cable is plugged in, are kept up like limits.
//!
//! A running guest is held to new limits before they are recorded, so that what the host refuses is not recorded; and to what
//! is recorded afterwards, whichever that is. So is each guest that was just started or found, whose configuration may have been changed when
//! nobody could hold it to that.

mod cpu;
mod disk;
mod nic;

use lodge_api::Problem;
use lodge_api::system::Controls;
use lodge_api::vm::VmSpec;
use lodge_store::{Batch, Versioned};
use uuid::Uuid;

pub(super) use self::cpu::{limit_group, need_group};
pub(super) use self::disk::of_disk;
pub(super) use self::nic::tap_key;
use super::actor::Command;
use super::{VmRecord, command, just_deleted};
use crate::core::Core;

impl Core {
    /// What guests can be given of this host, and held to.
    pub(crate) fn controls(&self) -> Controls {
        cpu::controls(self.cgroups.as_ref())
    }

    /// Records a changed configuration, and holds the guest to its limits if it runs.
    pub(super) async fn exchange_limited(
        &self,
        old: &Versioned<VmRecord>,
        new: VmRecord,
    ) -> Result<Versioned<VmRecord>, Problem> {
        if !differ(&old.value.spec, &new.spec) {
            return self.exchange(Batch::new(), old, new).await;
        }
        let id = new.id;
        let recorded = match self.limit(id, Some(new.spec.clone()), false).await {
            Ok(()) => self.exchange(Batch::new(), old, new).await,
            Err(problem) => Err(problem),
        };
        // It may have been started meanwhile, or be held to what is not recorded after all.
        if let Err(problem) = self.limit(id, None, recorded.is_err()).await {
            tracing::warn!(%id, %problem, "a guest's limits");
        }
        recorded
    }

    /// Holds guests that run to the limits of changed configurations, before these are recorded: [`Core::settle_limits`] is
    /// due afterwards, and after an error.
    pub(crate) async fn limit_all(&self, changed: &[(VmRecord, VmRecord)]) -> Result<(), Problem> {
        for (old, new) in changed {
            if differ(&old.spec, &new.spec) {
                self.limit(new.id, Some(new.spec.clone()), false).await?;
            }
        }
        Ok(())
    }

    /// Holds guests to the limits that are recorded; `anew` where others may hold.
    pub(crate) async fn settle_limits(&self, changed: &[(VmRecord, VmRecord)], anew: bool) {
        for (old, new) in changed {
            if !differ(&old.spec, &new.spec) {
                continue;
            }
            if let Err(problem) = self.limit(new.id, None, anew).await {
                tracing::warn!(id = %new.id, %problem, "a guest's limits");
            }
        }
    }

    /// Holds a guest, if it runs, to the limits of a configuration, or to those of the recorded one; `anew` also where nothing seems to
    /// be changed, after only some of what was to be changed was.
    async fn limit(&self, vm: Uuid, wanted: Option<VmSpec>, anew: bool) -> Result<(), Problem> {
        let handle = self.vms.handle(vm).ok_or_else(just_deleted)?;
        let wanted = wanted.map(Box::new);
        command(&handle, |reply| Command::Limit {
            wanted,
            anew,
            reply,
        })
        .await
    }
}

/// Refuses limits that make no sense, or that this host cannot hold a guest to.
pub(super) fn check(spec: &VmSpec, controls: &Controls) -> Result<(), Problem> {
    cpu::check(&spec.cpu, controls)?;
    disk::check(&spec.disks)?;
    nic::check(&spec.nics)
}

/// Whether two configurations differ in limits.
pub(super) fn differ(one: &VmSpec, other: &VmSpec) -> bool {
    let mut same = one.clone();
    adopt(&mut same, other);
    same != *one
}

/// Takes the limits over from another configuration.
pub(super) fn adopt(spec: &mut VmSpec, from: &VmSpec) {
    cpu::adopt(&mut spec.cpu, &from.cpu);
    disk::adopt(&mut spec.disks, &from.disks);
    nic::adopt(&mut spec.nics, &from.nics);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_from_the_rest() {
        let spec = |json: &str| serde_json::from_str::<VmSpec>(json).unwrap();
        let one = spec(
            r#"{"name": "web", "vcpus": 2, "cpu": {"model": "x86-64-v2", "shares": 7},
                "disks": [{"disk": "a", "limits": {"iops": 10}}]}"#,
        );
        let mut other = spec(
            r#"{"name": "b", "cpu": {"limit": 50, "affinity": "1"},
                "disks": [{"disk": "b", "limits": {"iops": 20}}, {"disk": "a", "read_only": true}]}"#,
        );
        assert!(differ(&one, &other));
        adopt(&mut other, &one);
        assert!(!differ(&one, &other));
        let iops: Vec<_> = other.disks.iter().map(|disk| disk.limits.iops).collect();
        assert_eq!(iops, [Some(20), Some(10)]);
        assert!(other.disks[1].read_only);
        assert_eq!(other.cpu.shares, Some(7));
        assert_eq!((other.cpu.limit, &other.cpu.affinity), (None, &None));
        assert_eq!((other.vcpus, other.name.as_str()), (1, "b"));
        assert_ne!(other.cpu.model, one.cpu.model);
    }
}
