//! Numbers for monitoring.

use lodge_api::Name;
use lodge_api::vm::VmState;
use uuid::Uuid;

use crate::Manager;

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
    /// Guests, by name.
    pub vms: Vec<VmMetrics>,
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
}

impl Manager {
    /// The numbers now.
    pub fn metrics(&self) -> MetricsSnapshot {
        MetricsSnapshot::default()
    }
}
