//! Guests at the start and the end of the manager.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use lodge_api::operation::Operation;
use lodge_api::vm::VmState;
use lodge_host::cgroup::CgroupTree;
use uuid::Uuid;

use super::actor::Command;
use super::{VmRecord, adopt, command, run_dir};
use crate::catalogue;
use crate::core::Core;
use crate::disks::DiskRecord;
use crate::install;
use crate::nvme::{ConnectionRecord, ExportRecord};
use crate::{Caller, Manager};

/// Marks that this boot's automatic starts have been done, but for those of the guests whose ids are in it.
const AUTOSTARTED: &str = "autostarted";

impl Core {
    /// Makes a task for every guest, and takes over those that run.
    pub(crate) async fn take_over_guests(self: &Arc<Self>) {
        let records = catalogue::list::<VmRecord>(&self.snapshot());
        let mut found = match run_dir::list(&self.config.run_dir) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "running guests cannot be looked for");
                Vec::new()
            }
        };
        let mut taking_over = Vec::new();
        for record in records {
            let mut actor = self.actor(&record.value);
            let id = record.value.id;
            let run = found
                .iter()
                .position(|(found, _)| *found == id)
                .map(|at| found.swap_remove(at).1);
            let core = self.clone();
            taking_over.push(async move {
                if let Some(run) = run {
                    let fate = adopt::find(&core, id, run).await;
                    actor.take_over(fate).await;
                }
                core.tasks.spawn(actor.live());
            });
        }
        join_all(taking_over).await;
        if self.config.appliance {
            self.remove_empty_cgroups();
        }
        for (id, _) in found {
            // Nobody deletes a running guest; an older store was restored. Let it run.
            tracing::error!(%id, "a guest may run that this host does not know");
        }
    }

    /// Removes what guests left that ended while no manager was there. Only where no other manager may
    /// be: a guest that it is about to start has an empty group, too.
    fn remove_empty_cgroups(&self) {
        let leaves = self.cgroups.as_ref().map(CgroupTree::leaves);
        for (name, leaf) in leaves.into_iter().flatten().flatten() {
            let id = name.parse::<Uuid>();
            if id.is_ok_and(|id| !self.vms.is_active(id)) && leaf.remove().is_ok() {
                tracing::debug!(%name, "removed an empty cgroup");
            }
        }
    }

    /// Whether the state shows that an operation which was interrupted has done its work.
    pub(crate) fn shows_done(&self, operation: &Operation) -> bool {
        let Some(name) = operation.target.rsplit('/').next() else {
            return false;
        };
        let snapshot = self.snapshot();
        if operation.kind == install::KIND {
            return install::data_on_disk(self.boot.as_ref());
        }
        if operation.kind == "nvmeconnection_create" {
            return catalogue::find::<ConnectionRecord>(&snapshot, name).is_ok();
        }
        if operation.kind == "nvmeexport_create" {
            return catalogue::find::<ExportRecord>(&snapshot, name).is_ok();
        }
        if operation.kind == "disk_create" {
            return catalogue::find::<DiskRecord>(&snapshot, name).is_ok();
        }
        let Ok(vm) = catalogue::find::<VmRecord>(&snapshot, name) else {
            return false;
        };
        let state = self.vms.observed(vm.value.id).state;
        match operation.kind.as_str() {
            "vm_start" => state == VmState::Running,
            "vm_stop" | "vm_kill" => !state.is_active(),
            "vm_pause" => state == VmState::Paused,
            "vm_resume" => state == VmState::Running,
            _ => false,
        }
    }
}

impl Manager {
    /// Starts the guests that shall start with the host; once for each boot.
    pub(crate) async fn autostart(&self) {
        let core = &self.core;
        let marker = core.config.run_dir.join(AUTOSTARTED);
        // After an installation the next manager starts them, from the disk.
        let installing = core.installing.load(Ordering::SeqCst);
        if installing || !core.host.kvm.usable() {
            return;
        }
        if !marker.exists() {
            let vms = catalogue::list::<VmRecord>(&core.snapshot()).into_iter();
            let vms = vms.filter(|vm| vm.value.spec.autostart);
            let ids: Vec<Uuid> = vms.map(|vm| vm.value.id).collect();
            note_waiting(&marker, &ids);
        }
        self.start_waiting().await;
    }

    /// Starts those of them whose datastores are there by now. The others wait.
    pub(crate) async fn start_waiting(&self) {
        let core = &self.core;
        let marker = core.config.run_dir.join(AUTOSTARTED);
        let _starting = core.autostart.lock().await;
        let Some(waiting) = waiting(&marker) else {
            return;
        };
        let caller = Caller::manager();
        let mut rest = Vec::new();
        for (at, id) in waiting.iter().enumerate() {
            let vm = catalogue::find::<VmRecord>(&core.snapshot(), &id.to_string());
            let Some(vm) = vm.ok().map(|vm| vm.value).filter(|vm| vm.spec.autostart) else {
                continue;
            };
            if core.vms.is_active(vm.id) {
                continue;
            }
            if !core.has_datastores_of(&vm) {
                tracing::warn!(vm = %vm.spec.name, "it is started when its datastore is there");
                rest.push(*id);
                continue;
            }
            // Noted first: one that is stopped again is not started by the next manager.
            note_waiting(&marker, &[&rest[..], &waiting[at + 1..]].concat());
            let action = lodge_api::vm::VmAction::Start;
            let options = lodge_api::vm::VmStopOptions::default();
            let started = self.vm_action(&caller, vm.spec.name.as_str(), action, options);
            if let Err(problem) = started.await {
                tracing::error!(vm = %vm.spec.name, %problem, "a guest could not be started");
            }
        }
        note_waiting(&marker, &rest);
    }
}

/// The guests that are still to be started; nothing before the automatic starts of this boot.
fn waiting(marker: &Path) -> Option<Vec<Uuid>> {
    let text = fs::read_to_string(marker).ok()?;
    Some(text.lines().filter_map(|line| line.parse().ok()).collect())
}

fn note_waiting(marker: &Path, vms: &[Uuid]) {
    let text: String = vms.iter().map(|id| format!("{id}\n")).collect();
    if let Err(error) = fs::write(marker, text) {
        tracing::warn!(%error, "a restart of the manager would start guests again");
    }
}

impl Core {
    /// Ends all guests by `timeout`: the power button first, then force.
    pub(crate) async fn power_guests_off(&self, timeout: Duration) {
        // Time for those that must be killed.
        let button = timeout.mul_f64(0.8);
        let guests = self.vms.all();
        let ending = guests.iter().map(|handle| {
            command(handle, move |reply| Command::PowerOff {
                timeout: button,
                reply,
            })
        });
        let all = tokio::time::timeout(timeout, join_all(ending)).await;
        match all {
            Ok(_) => tracing::info!("all guests are off"),
            Err(_) => tracing::error!("some guests did not end in time"),
        }
    }
}
