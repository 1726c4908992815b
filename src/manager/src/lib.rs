//! What the API means: guests, images, disks, networks, users and operations, as
//! desired state (in the store) and observed state (of this host).
//!
//! [`Manager`] is the whole of it, seen from the server: one method per verb of
//! the API. Every method that changes something returns only after the change is
//! durable, or with a [`Problem`](lodge_api::Problem) and nothing changed.

mod authorities;
mod backups;
mod caller;
mod catalogue;
mod changes;
mod cloud_init;
mod config;
mod configuration;
mod content;
mod convert;
mod core;
mod datastores;
mod disk_apply;
mod disk_health;
mod disk_move;
mod disks;
mod events;
mod export;
mod fetch;
mod filter;
mod first_admin;
mod hostname;
mod identity;
mod images;
mod install;
mod links;
mod log_ring;
mod manager;
mod merge;
mod metrics;
mod networks;
mod nvme;
mod operations;
mod ova;
mod password;
mod recovered;
mod schedule;
mod sessions;
mod snapshots;
mod storage;
mod system;
mod throttle;
mod tokens;
mod update;
mod upload;
mod users;
mod vms;

pub use authorities::Certificate;
pub use caller::{Caller, Credential, Identity, IfMatch};
pub use config::{ManagerConfig, OpenError};
pub use configuration::CertificateCheck;
pub use events::Subscription;
pub use export::Download;
pub use fetch::{Fetch, Fetched};
pub use log_ring::{LogRing, RingLayer};
pub use manager::Manager;
pub use metrics::{DatastoreMetrics, MetricsSnapshot, VmMetrics};
pub use system::Endpoint;
