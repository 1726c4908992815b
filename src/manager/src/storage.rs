//! The filesystem that all data are on: how full it is, and whether it works.

use std::sync::Arc;
use std::time::Duration;

use lodge_api::Size;
use lodge_api::system::{Storage, StorageHealth, StorageKind};
use lodge_block::datastore::Space;
use lodge_host::boot::DataStorage;
use lodge_host::disk;

use crate::core::{Core, blocking};

/// Below this share of the data filesystem people are warned, in percent.
const LOW: u64 = 5;

/// The warning ends when this share is free again: a host that writes and deletes at the edge would tell of it all the time.
const ENOUGH: u64 = 6;

/// Between two looks.
pub(crate) const PAUSE: Duration = Duration::from_secs(10);

impl Core {
    /// Where the data are.
    pub(crate) fn storage(&self) -> Storage {
        let space = self.images.space().ok();
        let (kind, device, filesystem) = match self.boot.as_ref().map(|boot| &boot.data) {
            Some(DataStorage::Disk { device, filesystem }) => {
                (StorageKind::Disk, Some(device.clone()), filesystem.clone())
            }
            Some(DataStorage::Ram { .. }) => (StorageKind::Ram, None, "tmpfs".to_owned()),
            None => self.mounted_on(),
        };
        Storage {
            kind,
            device,
            filesystem,
            size: Size(space.map_or(0, |space| space.total)),
            free: Size(space.map_or(0, |space| space.available)),
            health: *self.storage_health.borrow(),
        }
    }

    /// The filesystem of the data directory, as the mount table has it.
    fn mounted_on(&self) -> (StorageKind, Option<String>, String) {
        let path = std::path::absolute(&self.config.data_dir).unwrap_or_default();
        let mounts = disk::mounts().unwrap_or_default();
        let deepest = mounts
            .into_iter()
            .filter(|mount| path.starts_with(&mount.target))
            .max_by_key(|mount| mount.target.components().count());
        let Some(mount) = deepest else {
            return (StorageKind::Disk, None, "unknown".to_owned());
        };
        if mount.filesystem == "tmpfs" {
            return (StorageKind::Ram, None, mount.filesystem);
        }
        let device = mount.device().map(|device| device.display().to_string());
        (StorageKind::Disk, device, mount.filesystem)
    }

    /// Looks after it for as long as the manager lives, and tells of changes.
    pub(crate) async fn follow_storage(&self) {
        let images = self.images.clone();
        // A filesystem that gave up after an error says so of every file that is to be flushed, of directories it does not.
        let opened = blocking(move || Ok(images.unnamed_file().ok().map(Arc::new))).await;
        let probe = opened.ok().flatten();
        let mut clock = tokio::time::interval(PAUSE);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            let before = *self.storage_health.borrow();
            let (images, probe) = (self.images.clone(), probe.clone());
            // A disk that does not answer may take its time to say so.
            let looked = blocking(move || {
                let works = probe.is_none_or(|probe| probe.sync_all().is_ok());
                Ok((images.space().ok(), works))
            });
            let Ok((space, works)) = looked.await else {
                continue;
            };
            let now = health(before, space, works);
            if now == before {
                continue;
            }
            self.storage_health.send_replace(now);
            match self.storage_warning() {
                Some(warning) => self.tell_problem(warning),
                None => self.tell(format!(
                    "The data storage is sound, and {} are free.",
                    self.storage().free
                )),
            }
            self.console_changed();
        }
    }

    /// What is wrong with it and what to do about it, if anything is.
    pub(crate) fn storage_warning(&self) -> Option<String> {
        let health = *self.storage_health.borrow();
        match health {
            StorageHealth::Sound => None,
            StorageHealth::Low => Some(format!(
                "The data storage is nearly full: {} are free. Delete images, disks or snapshots that are not needed.",
                self.storage().free
            )),
            StorageHealth::ReadOnly => Some(
                "The data storage is read-only, and nothing can be changed: its filesystem found errors, or was mounted so. See the \
                 log for what the kernel says of it; restart the host to have it repaired."
                    .to_owned(),
            ),
            StorageHealth::Failed | StorageHealth::Missing => Some(
                "The data storage fails, and what is done now is lost: its disk is gone or broken. See the log for what the kernel says \
                 of it; check the disk's cables, then restart the host."
                    .to_owned(),
            ),
        }
    }
}

/// What to make of the room there is, and of whether what is written reaches the disk.
pub(crate) fn health(before: StorageHealth, space: Option<Space>, works: bool) -> StorageHealth {
    let Some(space) = space.filter(|_| works) else {
        return StorageHealth::Failed;
    };
    if space.read_only {
        return StorageHealth::ReadOnly;
    }
    let share = if before == StorageHealth::Low {
        ENOUGH
    } else {
        LOW
    };
    if space.available < space.total / 100 * share {
        StorageHealth::Low
    } else {
        StorageHealth::Sound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(percent: u64) -> Option<Space> {
        Some(Space {
            total: 1 << 30,
            free: (1 << 30) / 100 * percent,
            available: (1 << 30) / 100 * percent,
            read_only: false,
        })
    }

    #[test]
    fn little_space_is_little_until_there_is_more() {
        use StorageHealth::{Low, Sound};
        assert_eq!(health(Sound, space(5), true), Sound);
        assert_eq!(health(Sound, space(4), true), Low);
        assert_eq!(health(Low, space(5), true), Low);
        assert_eq!(health(Low, space(6), true), Sound);
    }

    #[test]
    fn what_does_not_work_is_not_measured() {
        use StorageHealth::{Failed, Low, ReadOnly, Sound};
        assert_eq!(health(Sound, None, true), Failed);
        assert_eq!(health(Low, space(50), false), Failed);
        assert_eq!(health(Failed, space(50), true), Sound);
        let locked = space(50).map(|space| Space {
            read_only: true,
            ..space
        });
        assert_eq!(health(Sound, locked, true), ReadOnly);
    }
}
