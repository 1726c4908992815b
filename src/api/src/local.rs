//! What the local console needs to know: the file `/run/lodge/local.json`, readable by root only.

use serde::{Deserialize, Serialize};

/// Written by the manager, read by `lodge tui --local`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalConsole {
    /// The host's name.
    pub hostname: String,
    /// Where the API is reached from outside.
    pub urls: Vec<String>,
    /// Where the local console reaches it, `https://127.0.0.1:443`.
    pub local_url: String,
    /// SHA-256 fingerprint of the certificate: upper-case pairs joined by colons.
    pub certificate_fingerprint: String,
    /// A token of role `viewer`, valid until the manager restarts.
    pub token: String,
    /// The administrator's password while it is the random one of the first boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_password: Option<String>,
    /// What an administrator should know, most important first.
    #[serde(default)]
    pub warnings: Vec<String>,
}
