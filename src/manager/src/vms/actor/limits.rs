//! What the running guest is held to.

use lodge_api::Problem;
use lodge_api::vm::VmSpec;

use super::Actor;
use crate::core::internal;
use crate::vms::{launch, limits};

impl Actor {
    /// Holds the guest to the limits of `wanted`, or to the recorded ones. One that does not run is held to them when it is started.
    pub(super) async fn limit(&mut self, wanted: Option<Box<VmSpec>>) -> Result<(), Problem> {
        let Some(guest) = &self.guest else {
            return Ok(());
        };
        let wanted = match wanted {
            Some(wanted) => *wanted,
            None => self.record()?.spec,
        };
        let mut spec = guest.note.spec.clone();
        limits::adopt(&mut spec, &wanted);
        match &guest.cgroup {
            Some(group) => group
                .set_limits(&launch::group_limits(&spec))
                .map_err(|error| internal(format!("the guest's cgroup: {error}")))?,
            None if spec.cpu != guest.note.spec.cpu => {
                return Err(internal("the guest runs without a cgroup"));
            }
            None => {}
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

    /// For a guest that was just started or found: its limits may have been changed when nobody could hold it to them.
    pub(super) async fn keep_limits(&mut self) {
        if let Err(problem) = self.limit(None).await {
            tracing::warn!(vm = %self.name(), %problem, "a guest's limits");
        }
    }
}
