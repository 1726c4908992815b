//! Where the manager lives and what it may touch.

use std::path::PathBuf;

use lodge_store::StoreError;

/// Where the manager lives and what it may touch.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// Holds `store`, `images`, `disks`, `variables` (of UEFI), `snapshots`, `state`; created when absent.
    pub data_dir: PathBuf,
    /// Holds the control sockets of running guests; must not survive a restart of the host.
    pub run_dir: PathBuf,
    /// Whether this is the appliance: the host's network, cgroups and power are ours,
    /// and `boot.json` is in `run_dir`.
    pub appliance: bool,
    /// Whether to make bridges and taps, and on the appliance to configure links.
    pub manage_network: bool,
    /// The program that is started as `PROGRAM vmm` for each guest.
    pub vmm_exe: PathBuf,
    /// Largest image accepted, in bytes.
    pub max_image: u64,
    /// Put each guest's monitor into its jail (namespaces, own user). Off only in tests.
    pub jail: bool,
}

impl ManagerConfig {
    /// The appliance's configuration.
    pub fn appliance() -> Self {
        Self {
            data_dir: "/data/lodge".into(),
            run_dir: "/run/lodge".into(),
            appliance: true,
            manage_network: true,
            vmm_exe: "/proc/self/exe".into(),
            max_image: 1 << 40,
            jail: true,
        }
    }

    /// The configuration on an ordinary Linux host.
    pub fn hosted(data_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            run_dir: run_dir.into(),
            appliance: false,
            manage_network: false,
            ..Self::appliance()
        }
    }
}

/// The manager could not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory could not be made or read.
    #[error("{path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something else failed.
    #[error(transparent)]
    Other(#[from] lodge_api::Problem),
    /// The store could not be opened.
    #[error("the store could not be opened: {0}")]
    Store(#[from] StoreError),
}
