//! Leases on a RAM disk, for the manager that comes after this one.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::dhcp4::Lease;
use crate::seed::MacAddress;

/// A longer file is not one of ours, in bytes.
const SIZE_LIMIT: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Stored {
    /// The boot that the times of the lease count from.
    boot_id: String,
    lease: Lease,
}

/// Where leases are kept.
#[derive(Debug)]
pub(super) struct LeaseFiles {
    directory: PathBuf,
    boot_id: String,
}

impl LeaseFiles {
    /// Keeps leases in a directory, which need not exist yet.
    pub(super) fn new(directory: &Path) -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            directory: directory.to_owned(),
            boot_id: boot_id.trim().to_owned(),
        }
    }

    /// The lease of a link from this boot of the machine, if one was kept.
    pub(super) fn load(&self, mac: MacAddress) -> Option<Lease> {
        let path = self.path(mac);
        if fs::metadata(&path).ok()?.len() > SIZE_LIMIT {
            return None;
        }
        let stored: Stored = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        (stored.boot_id == self.boot_id && stored.lease.mac == mac).then_some(stored.lease)
    }

    /// Keeps the lease of a link, or forgets it. Not being able to is no reason to go without network.
    pub(super) fn store(&self, mac: MacAddress, lease: Option<&Lease>) {
        let path = self.path(mac);
        let Some(lease) = lease else {
            // Nothing there to forget is fine.
            let _ = fs::remove_file(&path);
            return;
        };
        let stored = Stored {
            boot_id: self.boot_id.clone(),
            lease: lease.clone(),
        };
        let temporary = path.with_extension("new");
        let written = fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&temporary, serde_json::to_vec(&stored)?))
            .and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            warn!(path = %path.display(), %error, "cannot keep the lease over a restart");
        }
    }

    fn path(&self, mac: MacAddress) -> PathBuf {
        self.directory
            .join(format!("lease-{}.json", mac.to_string().replace(':', "-")))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn lease() -> Lease {
        Lease {
            mac: MAC,
            address: Ipv4Addr::new(192, 0, 2, 7),
            prefix_len: 24,
            server: Ipv4Addr::new(192, 0, 2, 1),
            server_mac: MAC,
            obtained: Duration::from_millis(1234),
            duration: Some(Duration::from_secs(600)),
            t1: Duration::from_secs(300),
            t2: Duration::from_secs(525),
            routes: Vec::new(),
            dns: vec![Ipv4Addr::new(192, 0, 2, 53)],
            search: vec!["example.org".to_owned()],
            hostname: None,
            ntp: Vec::new(),
            mtu: None,
        }
    }

    #[test]
    fn a_lease_is_kept_and_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = LeaseFiles::new(&directory.path().join("net"));
        assert_eq!(files.load(MAC), None);
        files.store(MAC, Some(&lease()));
        assert_eq!(files.load(MAC), Some(lease()));
        files.store(MAC, None);
        assert_eq!(files.load(MAC), None);
    }

    #[test]
    fn another_boot_and_damage_count_for_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut files = LeaseFiles::new(directory.path());
        files.store(MAC, Some(&lease()));
        files.boot_id = "another".to_owned();
        assert_eq!(files.load(MAC), None);
        fs::write(files.path(MAC), b"{").expect("written");
        assert_eq!(files.load(MAC), None);
    }
}
