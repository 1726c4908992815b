//! The methods of the API, one file per resource.

mod authorities;
mod backup_targets;
mod backups;
pub mod carry;
mod configuration;
mod content;
mod datastores;
mod disks;
mod download;
mod events;
mod fetch;
mod images;
mod install;
mod metrics;
mod networks;
mod nvme;
mod operations;
mod root;
mod sessions;
mod snapshots;
mod socket;
mod system;
mod tokens;
mod update;
mod users;
mod vm_balloon;
mod vm_cloud_init;
mod vm_console;
mod vm_display;
mod vm_import;
mod vm_nvram;
mod vm_plug;
mod vm_vnc;
mod vm_vsock;
mod vms;

use crate::route::Route;

/// All methods of the API.
pub fn table() -> Vec<Route> {
    [
        root::routes(),
        sessions::routes(),
        users::routes(),
        tokens::routes(),
        authorities::routes(),
        system::routes(),
        configuration::routes(),
        install::routes(),
        update::routes(),
        vms::routes(),
        vm_balloon::routes(),
        vm_console::routes(),
        vm_display::routes(),
        vm_import::routes(),
        vm_cloud_init::routes(),
        vm_nvram::routes(),
        vm_plug::routes(),
        vm_vnc::routes(),
        vm_vsock::routes(),
        snapshots::routes(),
        backups::routes(),
        backup_targets::routes(),
        images::routes(),
        datastores::routes(),
        nvme::routes(),
        disks::routes(),
        networks::routes(),
        operations::routes(),
        events::routes(),
        metrics::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
