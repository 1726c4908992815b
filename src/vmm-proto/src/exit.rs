//! A monitor's last words.

use serde::{Deserialize, Serialize};

/// Written by a monitor into the file it was given for it, just before it exits.
///
/// An empty file beside a dead monitor means that the monitor itself crashed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Why the guest ended.
    pub reason: ExitReason,
    /// Details for a person, e.g. the KVM error.
    #[serde(default)]
    pub message: String,
    /// How long the guest ran, in milliseconds.
    #[serde(default)]
    pub uptime_ms: u64,
}

/// Why a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The guest powered itself off (ACPI S5).
    GuestPoweroff,
    /// The guest reset itself and [`crate::OnReset::Stop`] was asked for.
    GuestReset,
    /// The manager killed it.
    Killed,
    /// Its watchdog expired, and [`crate::WatchdogAction::PowerOff`] was asked for.
    Watchdog,
    /// A vCPU triple-faulted.
    TripleFault,
    /// KVM could not go on (`KVM_EXIT_FAIL_ENTRY`, `KVM_EXIT_INTERNAL_ERROR`).
    KvmError,
    /// The guest never got to run; the birth socket carried the reason.
    LaunchFailed,
    /// The monitor gave up because of an error of its own.
    MonitorError,
    /// The monitor tried a system call that its jail forbids, which was not made; the message is the call's name. Either the guest has taken
    /// the monitor over, or the jail's list lacks a call.
    JailViolation,
}
