//! Types of the Lodge API, version 1: what travels between the server and its clients.
//!
//! The server, the CLI and the consoles share this crate and nothing else, so
//! it holds no behaviour beyond parsing and checking its own values. The wire
//! format is JSON: `snake_case` fields, sizes in bytes, times as RFC 3339,
//! absent optional fields left out. Requests refuse unknown fields; responses
//! may grow fields, which clients ignore.

pub mod auth;
pub mod authority;
pub mod backup;
pub mod backup_catalog;
pub mod configuration;
pub mod datastore;
pub mod disk;
pub mod event;
pub mod image;
pub mod install;
pub mod keyboard;
pub mod local;
pub mod log;
pub mod network;
pub mod nvme;
pub mod nvram;
pub mod operation;
pub mod page;
pub mod pointer;
pub mod privilege;
pub mod problem;
pub mod system;
pub mod update;
pub mod vm;

mod balloon;
mod boot_device;
mod cloud_init;
mod cpu;
mod disk_error;
mod import;
mod limits;
mod name;
mod plug;
mod processors;
mod size;
pub mod snapshot;
mod snapshot_schedule;
mod watchdog;

pub use name::{Name, NameError};
pub use problem::{ErrorCode, Problem};
pub use processors::{Processors, ProcessorsError};
pub use size::{Size, SizeError};

/// First path segment of every URL of this version.
pub const ROOT: &str = "/v1";

/// Features beyond the first release of `/v1`, so that clients can ask before they use one.
pub const EXTENSIONS: &[&str] = &[];

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answer to `GET /v1`: readable without logging in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiInfo {
    /// Product name, `lodge`.
    pub product: String,
    /// Release of the server.
    pub version: String,
    /// See [`EXTENSIONS`].
    pub extensions: Vec<String>,
    /// Whether this request carried valid credentials.
    pub authenticated: bool,
}
