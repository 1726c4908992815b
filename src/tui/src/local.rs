//! This machine's own host, found through the file its manager writes.

use std::path::PathBuf;

use lodge_api::local::LocalConsole;
use lodge_client::Remote;

/// Where the manager writes it; `LODGE_RUN_DIR` moves it for hosted set-ups.
fn path() -> PathBuf {
    std::env::var_os("LODGE_RUN_DIR")
        .map_or_else(|| PathBuf::from("/run/lodge"), PathBuf::from)
        .join("local.json")
}

/// What the manager last wrote; `None` while it starts.
pub(crate) fn read() -> Option<LocalConsole> {
    serde_json::from_slice(&std::fs::read(path()).ok()?).ok()
}

/// How to reach the manager with the read-only token.
pub(crate) fn remote(local: &LocalConsole) -> Option<Remote> {
    Some(Remote {
        url: local.local_url.parse().ok()?,
        fingerprint: local.certificate_fingerprint.parse().ok()?,
        user: None,
        token: Some(local.token.clone()),
    })
}
