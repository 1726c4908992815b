//! Guests of a configuration.

use std::collections::HashSet;

use lodge_api::Problem;
use lodge_api::configuration::ConfigurationKind;
use lodge_api::vm::VmSpec;
use lodge_store::Snapshot;
use serde_json::Value;

use super::absent::StandIns;
use super::file::Item;
use super::plan::{Here, Planner, Shown};
use crate::vms::{ForeignCheck, VmRecord};

impl Shown for VmRecord {
    const SHOWN_AS: ConfigurationKind = ConfigurationKind::Vm;

    const SECRETS: &'static [&'static str] = &[
        "/cloud_init/network_config",
        "/cloud_init/user_data",
        "/cloud_init/vendor_data",
    ];

    fn shown(&self) -> Value {
        // Names are texts, so this does not fail.
        serde_json::to_value(&self.spec).unwrap_or_default()
    }
}

impl Planner<'_> {
    pub(super) fn vms(&mut self, items: &[Item<VmRecord>]) -> Result<(), Problem> {
        let here = Here::<VmRecord>::of(&self.snapshot);
        let host = self.with_absent(items)?;
        let others = here.others(items).flat_map(|vm| &vm.value.spec.nics);
        let macs: HashSet<String> = others.filter_map(|nic| nic.mac.clone()).collect();
        let mut check = ForeignCheck::new(self.core, &host, macs);
        for item in items {
            let (old, id) = here.place(&item.value);
            let mut spec = item.value.spec.clone();
            let wanting = check
                .check(&mut spec, old)
                .map_err(|problem| item.blame("/spec", problem))?;
            let name = &item.value.spec.name;
            for wanting in wanting {
                let warning = format!("guest {name} will not start as it is: {wanting}");
                self.plan.warnings.push(warning);
            }
            let new = VmRecord {
                id,
                spec,
                created_at: old.map_or(item.value.created_at, |old| old.value.created_at),
            };
            if self.put(item, old, &new)? {
                match old {
                    None => self.plan.made.push(new),
                    Some(old) => self.plan.changed.push((old.value.clone(), new)),
                }
            }
        }
        self.keep(&here, items);
        Ok(())
    }

    /// This host with the networks of the configuration, and stand-ins for what its guests name that is not here, of which it is warned.
    fn with_absent(&mut self, items: &[Item<VmRecord>]) -> Result<Snapshot, Problem> {
        let mut stand_ins = StandIns::default();
        let mut networks = StandIns::default();
        for step in &self.plan.networks {
            if step.old.is_none() {
                networks.add_network(&step.new)?;
            }
        }
        let host = networks.on(&self.snapshot);
        for item in items {
            let spec: &VmSpec = &item.value.spec;
            let absent = stand_ins.add_guest(spec, &host)?;
            if !absent.is_empty() {
                self.plan.warnings.push(format!(
                    "guest {} needs what is not on this host, before it is started: {}",
                    spec.name,
                    absent.join(", ")
                ));
            }
        }
        Ok(stand_ins.on(&host))
    }
}
