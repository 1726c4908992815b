//! The monitor's last words.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use lodge_vmm_proto::{ExitReason, ExitRecord};

/// Where they go. Process-wide, because a panic on any thread must find it.
static RECORD: OnceLock<File> = OnceLock::new();

/// Sets where last words go, and makes a panic on any thread the end of the process:
/// a guest that silently lost a vCPU or device would hang.
pub fn prepare(record: File) {
    if RECORD.set(record).is_err() {
        return;
    }
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The record first: the report may do what the jail kills for.
        write(&ExitRecord {
            reason: ExitReason::MonitorError,
            message: format!("the monitor crashed: {panic}"),
            uptime_ms: 0,
        });
        report(panic);
        std::process::abort();
    }));
}

/// Writes that the monitor made a system call its jail forbids, from a signal handler: without memory of its own.
pub fn write_violation(call: &str) {
    let Some(file) = RECORD.get() else {
        return;
    };
    // Names of system calls need no escapes.
    let parts = [r#"{"reason":"jail_violation","message":""#, call, r#""}"#];
    let mut at = 0;
    let mut written = file.set_len(0);
    for part in parts {
        written = written.and_then(|()| file.write_all_at(part.as_bytes(), at));
        at += part.len() as u64;
    }
    // Who could be told?
    let _ = written;
}

/// Writes the record.
pub fn write(record: &ExitRecord) {
    let Some(file) = RECORD.get() else {
        return;
    };
    let written = serde_json::to_vec(record)
        .map_err(std::io::Error::from)
        .and_then(|bytes| {
            file.set_len(0)?;
            file.write_all_at(&bytes, 0)
        });
    if let Err(error) = written {
        tracing::error!("exit record: {error}");
    }
}
