//! Configurations of guests that were made on another host, or on this one when it was another.

use std::collections::HashSet;

use lodge_api::Problem;
use lodge_api::system::Controls;
use lodge_api::vm::VmSpec;
use lodge_host::system::Memory;
use lodge_store::{Snapshot, Versioned};

use super::{VmRecord, limits, spec_check};
use crate::core::Core;

/// What such configurations are checked against.
pub(crate) struct ForeignCheck<'a> {
    /// With what the guests name that is not on this host.
    snapshot: &'a Snapshot,
    /// MAC addresses of guests that were looked at, or are not replaced.
    macs: HashSet<String>,
    host_memory: u64,
    controls: Controls,
}

impl<'a> ForeignCheck<'a> {
    pub(crate) fn new(core: &Core, snapshot: &'a Snapshot, macs: HashSet<String>) -> Self {
        Self {
            snapshot,
            macs,
            host_memory: Memory::read().map_or(u64::MAX, |memory| memory.total),
            controls: core.controls(),
        }
    }

    /// Checks one as that of a new guest is checked, and fills in what was left out. What it wants of a host that this one does
    /// not have is no mistake: it is answered, and a start says it again.
    ///
    /// # Errors
    /// `InvalidRequest` with a pointer into the configuration.
    pub(crate) fn check(
        &mut self,
        spec: &mut VmSpec,
        own: Option<&Versioned<VmRecord>>,
    ) -> Result<Vec<String>, Problem> {
        let around = spec_check::Surroundings {
            snapshot: self.snapshot,
            host_memory: u64::MAX,
            own,
        };
        spec_check::check_beside(spec, &around, &mut self.macs)?;
        let of_its_own_host = Controls {
            cpu: true,
            processors: spec.cpu.affinity.clone(),
        };
        limits::check(spec, &of_its_own_host)?;
        let mut wanting = Vec::new();
        if spec.memory.bytes() > self.host_memory {
            let here = lodge_api::Size(self.host_memory);
            wanting.push(format!("it has {}, and this host {here}", spec.memory));
        }
        if let Err(problem) = limits::check(spec, &self.controls) {
            wanting.push(problem.detail);
        }
        Ok(wanting)
    }
}
