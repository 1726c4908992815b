//! Datastores on the filesystem tests run on, and on XFS.

use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, symlink};

use super::*;
use crate::copy::CopyProgress;

fn name(name: &str) -> FileName {
    FileName::new(name).unwrap()
}

fn nothing(_: CopyProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn datastore() -> (tempfile::TempDir, Datastore) {
    let directory = tempfile::tempdir().unwrap();
    let datastore = Datastore::open(directory.path()).unwrap();
    (directory, datastore)
}

fn entries(directory: &tempfile::TempDir) -> usize {
    std::fs::read_dir(directory.path()).unwrap().count()
}

#[test]
fn makes_and_lists_disks() {
    let (_directory, datastore) = datastore();
    datastore.create_disk(&name("b.raw"), 10 << 30).unwrap();
    datastore.create_disk(&name("a.raw"), 512).unwrap();
    assert_eq!(datastore.files().unwrap(), [name("a.raw"), name("b.raw")]);
    let info = datastore.info(&name("b.raw")).unwrap();
    assert_eq!((info.size, info.allocated), (10 << 30, 0));
    datastore.remove_file(&name("b.raw")).unwrap();
    let gone = datastore.info(&name("b.raw")).unwrap_err();
    assert!(matches!(gone, DatastoreError::NotFound { name } if name == "b.raw"));
}

#[test]
fn refuses_impossible_sizes_and_leaves_nothing() {
    let (directory, datastore) = datastore();
    for size in [0, 1, 513, u64::MAX, 1 << 63] {
        let error = datastore.create_disk(&name("d"), size).unwrap_err();
        assert!(matches!(error, DatastoreError::Size { .. }), "{error}");
    }
    assert_eq!(entries(&directory), 0);
}

#[test]
fn never_replaces() {
    let (directory, datastore) = datastore();
    datastore.create_disk(&name("d"), 512).unwrap();
    let taken = |error| matches!(error, DatastoreError::Exists { name } if name == "d");
    assert!(taken(datastore.create_disk(&name("d"), 1024).unwrap_err()));
    let new = datastore.new_file().unwrap();
    assert!(taken(new.commit(&name("d")).unwrap_err()));
    datastore.create_disk(&name("e"), 512).unwrap();
    let source = datastore.open_file(&name("e"), Access::default()).unwrap();
    let clone = datastore.clone_file(&source, &name("d"), &mut nothing);
    assert!(taken(clone.unwrap_err()));
    assert_eq!(datastore.info(&name("d")).unwrap().size, 512);
    assert_eq!(entries(&directory), 2);
}

#[test]
fn uploads_appear_whole_or_not_at_all() {
    let (directory, datastore) = datastore();
    let new = datastore.new_file().unwrap();
    new.file().write_all_at(b"half", 0).unwrap();
    assert_eq!(datastore.files().unwrap(), []);
    drop(new);
    assert_eq!(entries(&directory), 0);

    let new = datastore.new_file().unwrap();
    new.file().write_all_at(b"whole", 0).unwrap();
    new.commit(&name("image")).unwrap();
    assert_eq!(datastore.info(&name("image")).unwrap().size, 5);

    // What a killed process leaves is swept away at the next start.
    std::mem::forget(datastore.new_file().unwrap());
    assert_eq!(datastore.files().unwrap(), [name("image")]);
    assert_eq!(datastore.remove_leftovers().unwrap(), 1);
    assert_eq!(entries(&directory), 1);
}

#[test]
fn follows_no_links_and_opens_no_devices() {
    let (directory, datastore) = datastore();
    let outside = tempfile::NamedTempFile::new().unwrap();
    symlink(outside.path(), directory.path().join("link")).unwrap();
    symlink("/etc", directory.path().join("linked-directory")).unwrap();
    symlink("..", directory.path().join("up")).unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    std::fs::create_dir(directory.path().join("directory")).unwrap();
    for planted in ["link", "linked-directory", "up", "fifo", "directory"] {
        for write in [false, true] {
            let access = Access {
                write,
                direct: false,
            };
            let error = datastore.open_file(&name(planted), access).unwrap_err();
            assert!(
                matches!(error, DatastoreError::Foreign { .. }),
                "{planted}: {error}"
            );
        }
        let taken = datastore.create_disk(&name(planted), 512).unwrap_err();
        assert!(matches!(taken, DatastoreError::Exists { .. }), "{planted}");
    }
    for planted in ["link", "linked-directory", "up", "fifo"] {
        let error = datastore.open_directory(&name(planted)).unwrap_err();
        assert!(
            matches!(error, DatastoreError::Foreign { .. }),
            "{planted}: {error}"
        );
    }
    assert_eq!(datastore.files().unwrap(), []);
    assert_eq!(outside.as_file().metadata().unwrap().len(), 0);
}

#[test]
fn directories_nest() {
    let (_directory, datastore) = datastore();
    let inner = datastore.create_directory(&name("vm1")).unwrap();
    inner.create_disk(&name("root.raw"), 4096).unwrap();
    let again = datastore.create_directory(&name("vm1")).unwrap_err();
    assert!(matches!(again, DatastoreError::Exists { .. }));
    let full = datastore.remove_directory(&name("vm1")).unwrap_err();
    assert!(matches!(full, DatastoreError::NotEmpty { .. }));
    let inner = datastore.open_directory(&name("vm1")).unwrap();
    inner.remove_file(&name("root.raw")).unwrap();
    datastore.remove_directory(&name("vm1")).unwrap();
    let missing = datastore.open_directory(&name("vm1")).unwrap_err();
    assert!(matches!(missing, DatastoreError::NotFound { .. }));
}

#[test]
fn disks_only_grow() {
    let (_directory, datastore) = datastore();
    datastore.create_disk(&name("d"), 4096).unwrap();
    datastore.grow_disk(&name("d"), 8192).unwrap();
    datastore.grow_disk(&name("d"), 8192).unwrap();
    assert_eq!(datastore.info(&name("d")).unwrap().size, 8192);
    for size in [4096, 8193, 0] {
        let error = datastore.grow_disk(&name("d"), size).unwrap_err();
        assert!(matches!(error, DatastoreError::Size { .. }));
    }
    assert_eq!(datastore.info(&name("d")).unwrap().size, 8192);
}

/// Clones a disk with data at its end and says how.
fn clone_and_compare(datastore: &Datastore) -> CloneMethod {
    let access = Access {
        write: true,
        direct: false,
    };
    datastore.create_disk(&name("original"), 8 << 20).unwrap();
    let original = datastore.open_file(&name("original"), access).unwrap();
    original.write_all_at(b"content", (8 << 20) - 7).unwrap();
    let method = datastore
        .clone_file(&original, &name("copy"), &mut nothing)
        .unwrap();
    let copy = datastore.open_file(&name("copy"), access).unwrap();
    let info = file_info(&copy).unwrap();
    assert_eq!(info.size, 8 << 20);
    assert!(info.allocated < 1 << 20, "holes stay holes");
    // Independent of each other from now on.
    original.write_all_at(b"CHANGED", (8 << 20) - 7).unwrap();
    let mut end = [0; 7];
    copy.read_exact_at(&mut end, (8 << 20) - 7).unwrap();
    assert_eq!(&end, b"content");
    datastore.remove_file(&name("original")).unwrap();
    copy.read_exact_at(&mut end, (8 << 20) - 7).unwrap();
    assert_eq!(&end, b"content");
    method
}

#[test]
fn clones() {
    let (_directory, datastore) = datastore();
    let shares = datastore.shares_extents().unwrap();
    let method = clone_and_compare(&datastore);
    assert_eq!(shares, method == CloneMethod::Shared);
}

#[test]
fn a_cancelled_clone_leaves_nothing() {
    let (directory, datastore) = datastore();
    let other = tempfile::tempdir().unwrap();
    let new = Datastore::open(other.path()).unwrap().new_file().unwrap();
    new.file().write_all_at(&[1; 4096], 0).unwrap();
    let result = datastore.clone_file(new.file(), &name("c"), &mut |_| ControlFlow::Break(()));
    if datastore.shares_extents().unwrap() {
        result.unwrap();
    } else {
        assert!(matches!(result, Err(DatastoreError::Cancelled)));
        assert_eq!(entries(&directory), 0);
    }
}

#[test]
fn clones_share_extents_on_xfs() {
    use nix::mount::{MsFlags, mount};
    use std::process::Command;
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    let file = File::create_new(&image).unwrap();
    file.set_len(512 << 20).unwrap();
    let made = Command::new("mkfs.xfs").arg("-q").arg(&image).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: no mkfs.xfs here");
        return;
    }
    let mounted = directory.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("tests run as root");
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let mut command = Command::new("mount");
    let status = command.arg("-oloop").args([&image, &mounted]).status();
    if !status.is_ok_and(|status| status.success()) {
        println!("skipped: XFS cannot be mounted here");
        return;
    }
    let datastore = Datastore::open(&mounted).unwrap();
    assert!(datastore.shares_extents().unwrap());
    assert_eq!(clone_and_compare(&datastore), CloneMethod::Shared);
    drop(datastore);
    let status = Command::new("umount").arg(&mounted).status().unwrap();
    assert!(status.success());
}

#[test]
fn space_adds_up() {
    let (_directory, datastore) = datastore();
    let space = datastore.space().unwrap();
    assert!(space.total >= space.free && space.free >= space.available);
    assert!(space.total > 0);
}
