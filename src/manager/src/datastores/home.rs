//! A datastore's place in the filesystem: its mount and its folders.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lodge_api::Problem;
use lodge_block::datastore::Datastore;
use lodge_host::boot::DATA_FLAGS;
use lodge_host::disk::{
    FilesystemKind, Found, block_devices, detach, filesystems, mount, mounts, unmount,
};
use uuid::Uuid;

use super::Folders;
use super::owner::Claim;
use crate::core::internal;

/// Folder of the disks.
const DISKS: &str = "disks";

/// Folder of what snapshots have of them.
const SNAPSHOTS: &str = "snapshots";

/// An open datastore.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) folders: Folders,
    /// The device that is mounted for it, or the directory of a server.
    pub(super) device: Option<PathBuf>,
    /// Where it is mounted; nothing where it was there already.
    mounted_at: Option<PathBuf>,
    /// Whether copies within it are instant.
    pub(super) shares_extents: bool,
    /// A filesystem that gave up after an error says so of every file that is to be flushed.
    probe: Option<Arc<File>>,
    /// What keeps other hosts away.
    claim: Option<Arc<Claim>>,
}

/// Text for people: why it cannot be opened.
type Opened = Result<Home, String>;

impl Home {
    /// Mounts the filesystem with that UUID and opens it. One that an earlier manager has mounted stays so while it works. `new` makes its
    /// folders.
    pub(super) fn of_disk(id: Uuid, at: &Path, new: bool) -> Opened {
        let mounted = mounts().map_err(|error| format!("the mounts of this host: {error}"))?;
        let mounted = mounted.into_iter().rfind(|mount| mount.target == at);
        if let Some(mounted) = mounted {
            let device = mounted.device().map(Path::to_owned);
            let opened = Self::open(at, device, Some(at.to_owned()), new);
            if let Ok(home) = opened
                && home.works()
            {
                return Ok(home);
            }
            unmount(at).map_err(|error| {
                format!("its disk has failed or was unplugged, and is still used ({error}). Stop the guests that have disks on it")
            })?;
        }
        let device = device_of(id)?;
        let name = device.display().to_string();
        let kind = FilesystemKind::Xfs.name();
        mount(&name, at, kind, DATA_FLAGS, "").map_err(|error| {
            format!(
                "{name} cannot be mounted: {error}. The log says what the kernel has against it"
            )
        })?;
        let opened = Self::open(at, Some(device), Some(at.to_owned()), new);
        if opened.is_err()
            && let Err(error) = unmount(at)
        {
            tracing::warn!(%error, at = %at.display(), "what cannot be used stays mounted");
        }
        opened
    }

    /// Opens a directory.
    pub(super) fn of_directory(path: &Path, new: bool) -> Opened {
        Self::open(path, None, None, new)
    }

    /// Opens a mounted directory of a server.
    pub(super) fn of_server(at: &Path, claim: Claim, new: bool) -> Opened {
        let source = mounts().ok().and_then(|mounts| {
            let mounted = mounts.into_iter().rfind(|mount| mount.target == at)?;
            Some(PathBuf::from(mounted.source))
        });
        let home = Self::open(at, source, Some(at.to_owned()), new)?;
        Ok(Self {
            claim: Some(Arc::new(claim)),
            ..home
        })
    }

    fn open(
        root: &Path,
        device: Option<PathBuf>,
        mounted_at: Option<PathBuf>,
        new: bool,
    ) -> Opened {
        let open = |name: &str| {
            let path = root.join(name);
            if new {
                make(&path)?;
            }
            let folder = Datastore::open(&path)
                .and_then(|folder| folder.remove_leftovers().map(|_| folder))
                .map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(Arc::new(folder))
        };
        let whole = Datastore::open(root).map_err(|error| format!("{}: {error}", root.display()));
        let folders = Folders {
            root: Arc::new(whole?),
            disks: open(DISKS)?,
            saved: open(SNAPSHOTS)?,
        };
        let probe = folders.disks.unnamed_file().ok().map(Arc::new);
        Ok(Self {
            shares_extents: folders.disks.shares_extents().unwrap_or(false),
            folders,
            device,
            mounted_at,
            probe,
            claim: None,
        })
    }

    /// Whether what is written there reaches the disk, and no other host has taken it.
    pub(super) fn works(&self) -> bool {
        let probe = self.probe.as_ref();
        probe.is_none_or(|probe| probe.sync_all().is_ok())
            && self.claim.as_ref().is_none_or(|claim| claim.holds())
    }

    /// Leaves nothing of an empty datastore where several hosts look.
    pub(super) fn clear_claimed(&self) {
        let (Some(at), Some(_)) = (&self.mounted_at, &self.claim) else {
            return;
        };
        remove_empty_folders(at);
        if is_occupied(at).is_ok_and(|occupied| !occupied)
            && let Err(error) = Claim::give_up(at)
        {
            tracing::warn!(%error, at = %at.display(), "a deleted datastore stays marked as this host's");
        }
    }

    /// Undoes the mount. What somebody still has open there goes when it is closed.
    pub(super) fn leave(self) -> Result<(), Problem> {
        let Some(at) = self.mounted_at.clone() else {
            return Ok(());
        };
        // Its own files would keep it.
        drop(self);
        let left = unmount(&at).or_else(|_| detach(&at));
        left.map_err(|error| internal(format!("{}: {error}", at.display())))
    }
}

/// Where a datastore on a disk is mounted. The folder does not outlive a restart of the host, as mounts do not.
pub(super) fn mount_point(run_dir: &Path, id: Uuid) -> PathBuf {
    run_dir.join("datastores").join(id.to_string())
}

/// Whether something is in a directory.
pub(super) fn has_content(path: &Path) -> std::io::Result<bool> {
    Ok(path.read_dir()?.next().is_some())
}

/// Whether something is where a datastore has its folders.
pub(super) fn is_occupied(root: &Path) -> std::io::Result<bool> {
    Ok(root.join(DISKS).try_exists()? || root.join(SNAPSHOTS).try_exists()?)
}

/// Removes the folders of a datastore that is no more, those of them that are empty.
pub(super) fn remove_empty_folders(root: &Path) {
    for name in [DISKS, SNAPSHOTS] {
        // What is in them belongs to somebody.
        let _ = std::fs::remove_dir(root.join(name));
    }
}

fn make(path: &Path) -> Result<(), String> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    let synced = made.and_then(|()| File::open(path.parent().unwrap_or(path))?.sync_all());
    synced.map_err(|error| format!("{}: {error}", path.display()))
}

/// Has the kernel ask a disk how large it is; those that tell by themselves are not asked.
pub(super) fn look_at_size(device: &Path) {
    let name = device.file_name().unwrap_or_default();
    let rescan = Path::new("/sys/class/block")
        .join(name)
        .join("device/rescan");
    if let Err(error) = std::fs::write(&rescan, "1") {
        tracing::debug!(%error, path = %rescan.display(), "no disk to be asked");
    }
}

/// The only device with that filesystem.
fn device_of(id: Uuid) -> Result<PathBuf, String> {
    let devices = block_devices().map_err(|error| format!("the disks of this host: {error}"))?;
    let found = filesystems(&devices);
    let mut found = found.iter().filter(|found| is(found, id));
    let first = found
        .next()
        .ok_or("its disk is not there, or cannot be read")?;
    match found.next() {
        None => Ok(first.device.path()),
        Some(other) => Err(format!(
            "{} and {} have the same filesystem; take one of them out",
            first.device.path().display(),
            other.device.path().display()
        )),
    }
}

fn is(found: &Found, id: Uuid) -> bool {
    let filesystem = &found.filesystem;
    filesystem.kind == FilesystemKind::Xfs && filesystem.uuid == id.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_folders_is_not_taken_for_an_empty_datastore() {
        let directory = tempfile::tempdir().unwrap();
        // Such is one on which something was to be mounted.
        let problem = Home::of_directory(directory.path(), false).unwrap_err();
        assert!(problem.contains(DISKS), "{problem}");
        assert!(!has_content(directory.path()).unwrap());
        Home::of_directory(directory.path(), true).unwrap();
        Home::of_directory(directory.path(), false).unwrap();
        assert!(has_content(directory.path()).unwrap());
        remove_empty_folders(directory.path());
        assert!(!has_content(directory.path()).unwrap());
    }

    #[test]
    fn a_filesystem_that_nobody_has_is_missing() {
        let at = tempfile::tempdir().unwrap();
        let problem = Home::of_disk(Uuid::now_v7(), at.path(), false).unwrap_err();
        assert!(problem.contains("not there"), "{problem}");
    }
}
