//! Numbers for monitoring.

use std::sync::atomic::Ordering;

use lodge_api::Name;
use lodge_api::vm::{VmBalloon, VmGuestMemory, VmState};
use lodge_host::system::{Load, Memory};
use uuid::Uuid;

use crate::core::Core;
use crate::vms::VmRecord;
use crate::{Manager, catalogue};

/// Everything `/metrics` shows, as plain numbers. Sizes in bytes, times in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsSnapshot {
    /// CPU time of the host in use, 0 to 100 percent of all threads.
    pub cpu_percent: f64,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Memory the kernel manages.
    pub memory_total: u64,
    /// Memory in use.
    pub memory_used: u64,
    /// Capacity of the data filesystem.
    pub storage_total: u64,
    /// Free on the data filesystem.
    pub storage_free: u64,
    /// Seconds since the host started.
    pub uptime_seconds: f64,
    /// Operations under way.
    pub operations_running: u64,
    /// Sequence number of the last event.
    pub event_sequence: u64,
    /// Revision of the store: changes made durable so far.
    pub store_revision: u64,
    /// Logins refused for a wrong password or by the throttle since the manager started.
    pub logins_refused: u64,
    /// Datastores, by name.
    pub datastores: Vec<DatastoreMetrics>,
    /// Guests, by name.
    pub vms: Vec<VmMetrics>,
}

/// Numbers of one datastore.
#[derive(Debug, Clone, PartialEq)]
pub struct DatastoreMetrics {
    /// Name.
    pub name: Name,
    /// Capacity.
    pub size: u64,
    /// Free.
    pub free: u64,
    /// What its disks would take if they were full.
    pub provisioned: u64,
    /// Whether it is sound, or low on space at worst.
    pub usable: bool,
}

/// Numbers of one guest.
#[derive(Debug, Clone, PartialEq)]
pub struct VmMetrics {
    /// Identity.
    pub id: Uuid,
    /// Name.
    pub name: Name,
    /// State.
    pub state: VmState,
    /// CPU seconds used since its start, monitor included.
    pub cpu_seconds: f64,
    /// Seconds in which it was held back by its limit of CPU time.
    pub cpu_throttled_seconds: f64,
    /// Memory its monitor holds, guest memory included.
    pub memory_used: u64,
    /// Memory it is configured with.
    pub memory_configured: u64,
    /// Virtual CPUs it is configured with.
    pub vcpus: u32,
    /// Resets since its start.
    pub resets: u64,
    /// Bytes read from its disks since its start.
    pub disk_read_bytes: u64,
    /// Bytes written to its disks since its start.
    pub disk_written_bytes: u64,
    /// Seconds for which requests to its disks were held back by the disks' limits: the sum of all their queues.
    pub disk_throttled_seconds: f64,
    /// What it keeps of its memory, while it runs.
    pub balloon: Option<VmBalloon>,
    /// Its memory in its own eyes.
    pub guest_memory: Option<VmGuestMemory>,
}

impl Manager {
    /// The numbers now.
    pub fn metrics(&self) -> MetricsSnapshot {
        let core = &self.core;
        let memory = Memory::read().unwrap_or_default();
        let load = Load::read().unwrap_or_default();
        let space = core.images.space().ok();
        let snapshot = core.snapshot();
        let vms = catalogue::list::<VmRecord>(&snapshot)
            .into_iter()
            .map(|vm| core.vm_metrics(&vm.value))
            .collect();
        MetricsSnapshot {
            cpu_percent: core.host.cpu_percent(),
            load: [load.one, load.five, load.fifteen],
            memory_total: memory.total,
            memory_used: memory.total.saturating_sub(memory.available),
            storage_total: space.map_or(0, |space| space.total),
            storage_free: space.map_or(0, |space| space.available),
            uptime_seconds: lodge_host::system::uptime()
                .unwrap_or_default()
                .as_secs_f64(),
            operations_running: core.operations.running(),
            event_sequence: core.events.last(),
            store_revision: snapshot.revision(),
            logins_refused: core.logins_refused.load(Ordering::Relaxed),
            datastores: core.datastore_metrics(&snapshot),
            vms,
        }
    }
}

impl Core {
    fn vm_metrics(&self, vm: &VmRecord) -> VmMetrics {
        let observed = self.vms.observed(vm.id);
        let usage = observed.usage();
        VmMetrics {
            id: vm.id,
            name: vm.spec.name.clone(),
            state: observed.state,
            // Microseconds below 2^53 are 285 years.
            cpu_seconds: usage.cpu_us as f64 / 1e6,
            cpu_throttled_seconds: usage.throttled_us as f64 / 1e6,
            memory_used: usage.memory,
            memory_configured: vm.spec.memory.bytes(),
            vcpus: vm.spec.vcpus.into(),
            resets: observed.resets,
            disk_read_bytes: observed.disk_read_bytes,
            disk_written_bytes: observed.disk_written_bytes,
            disk_throttled_seconds: observed.disk_throttled_us as f64 / 1e6,
            balloon: observed.balloon(),
            guest_memory: observed.guest_memory(),
        }
    }
}
