//! What the running guest is held to.

use lodge_api::Problem;
use lodge_api::vm::{NicLink, VmNic, VmSpec};
use lodge_vmm_proto::RequestBody;

use super::Actor;
use crate::core::internal;
use crate::vms::launch::serial;
use crate::vms::{disk_error, launch, limits, spec_check};

impl Actor {
    /// Holds the guest to the limits of `wanted`, or to the recorded ones. One that does not run is held to them when it is started.
    pub(super) async fn limit(
        &mut self,
        wanted: Option<Box<VmSpec>>,
        anew: bool,
    ) -> Result<(), Problem> {
        let wanted = match wanted {
            Some(wanted) => *wanted,
            None => self.record()?.spec,
        };
        self.hold_to(&wanted, anew).await
    }

    /// `anew` also to those that it is noted to be held to.
    async fn hold_to(&mut self, wanted: &VmSpec, anew: bool) -> Result<(), Problem> {
        let Some(guest) = &self.guest else {
            return Ok(());
        };
        let mut spec = guest.note.spec.clone();
        limits::adopt(&mut spec, wanted);
        let other_cpu = spec.cpu != guest.note.spec.cpu;
        match &guest.cgroup {
            Some(group) if anew || other_cpu => group
                .set_limits(&launch::group_limits(&spec))
                .map_err(|error| internal(format!("the guest's cgroup: {error}")))?,
            None if other_cpu => return Err(internal("the guest runs without a cgroup")),
            _ => {}
        }
        let before = &guest.note.spec.disks;
        for ((id, disk), before) in guest.note.disks.iter().zip(&spec.disks).zip(before) {
            if anew || disk.limits != before.limits {
                let body = RequestBody::LimitDisk {
                    serial: serial(*id),
                    limits: limits::of_disk(&disk.limits),
                };
                self.soon(self.ask(body, None)).await?;
            }
            if anew || disk.on_error != before.on_error {
                let body = RequestBody::DiskErrors {
                    serial: serial(*id),
                    on_error: disk_error::configured(disk.on_error),
                };
                self.soon(self.ask(body, None)).await?;
            }
        }
        let before = &guest.note.spec.nics;
        for (number, (nic, before)) in spec.nics.iter().zip(before).enumerate() {
            if anew || nic.link != before.link {
                let plugged = self.plug_cable(nic).await;
                plugged.map_err(|problem| problem.with_pointer(format!("/nics/{number}/link")))?;
            }
            if anew || nic.limits != before.limits {
                let limited = self.core.limit_nic(self.id, nic).await;
                limited
                    .map_err(|problem| problem.with_pointer(format!("/nics/{number}/limits")))?;
            }
        }
        if spec != guest.note.spec {
            self.note(|note| note.spec.clone_from(&spec))?;
            // What runs is what is wanted: no restart is pending for it.
            self.observed.send_modify(|observed| {
                if let Some(launched) = &mut observed.launched {
                    limits::adopt(launched, &spec);
                }
            });
        }
        Ok(())
    }

    /// Plugs the cable of an interface in or pulls it, for the packets and for the guest.
    async fn plug_cable(&self, nic: &VmNic) -> Result<(), Problem> {
        self.core.pass_packets(self.id, nic).await?;
        let body = RequestBody::SetLink {
            mac: spec_check::parse_mac(nic.mac.as_deref().unwrap_or_default()).map_err(internal)?,
            up: nic.link == NicLink::Up,
        };
        self.soon(self.ask(body, None)).await.map(drop)
    }

    /// For a guest that was just started or, `anew`, found: its limits may have been changed when nobody could hold it to them, or the last
    /// manager may have died in the middle of that.
    pub(super) async fn keep_limits(&mut self, anew: bool) {
        let kept = match self.record() {
            Ok(record) => self.hold_to(&record.spec, anew).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = kept {
            tracing::warn!(vm = %self.name(), %problem, "a guest's limits");
        }
    }
}
