//! The disks and what is on them, each looked at once.

use std::collections::HashSet;

use lodge_host::disk::{Found, add_filesystem, block_devices, probe};

/// What is known of the disks.
#[derive(Debug, Default)]
pub(crate) struct Media {
    found: Vec<Found>,
    /// Names and sizes of devices that need not be read again; a card that is put into a reader changes its size.
    seen: HashSet<(String, u64)>,
}

impl Media {
    /// Looks at devices that are new.
    pub(crate) fn refresh(&mut self) {
        for device in block_devices().unwrap_or_default() {
            let key = (device.name.clone(), device.size);
            // What other machines write is neither seed nor data of this one.
            if device.is_export() || self.seen.contains(&key) {
                continue;
            }
            match probe(&device.path()) {
                Ok(filesystem) => {
                    self.seen.insert(key);
                    if let Some(filesystem) = filesystem {
                        add_filesystem(&mut self.found, &device, filesystem);
                    }
                }
                // An empty drive stays empty while the machine boots; asking it takes long.
                Err(error) if error.raw_os_error() == Some(libc::ENOMEDIUM) => {
                    self.seen.insert(key);
                }
                // A disk that is still starting.
                Err(error) => tracing::debug!("{}: {error}", device.name),
            }
        }
    }

    /// Every filesystem there is.
    pub(crate) fn found(&self) -> &[Found] {
        &self.found
    }
}
