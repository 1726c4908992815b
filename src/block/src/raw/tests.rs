//! What counts as a disk.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use super::*;

fn file(size: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    file
}

fn open(path: &std::path::Path, flags: i32) -> OwnedFd {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .unwrap()
        .into()
}

#[test]
fn describes_a_file() {
    let file = file(1 << 20);
    let disk = RawDisk::open(open(file.path(), 0)).unwrap();
    assert_eq!((disk.kind(), disk.size()), (Kind::File, 1 << 20));
    assert_eq!((disk.logical_block(), disk.physical_block()), (512, 4096));
    assert!(!disk.read_only() && !disk.direct());
    assert!(disk.discard(), "filesystems that tests run on punch holes");
    // Asking changed nothing.
    let info = crate::datastore::file_info(file.as_file()).unwrap();
    assert_eq!((info.size, info.allocated), (1 << 20, 0));
    let direct = RawDisk::open(open(file.path(), libc::O_DIRECT)).unwrap();
    assert_eq!(direct.logical_block(), 512);
}

#[test]
fn follows_growth() {
    let file = file(1 << 20);
    let disk = RawDisk::open(open(file.path(), 0)).unwrap();
    file.as_file().set_len(2 << 20).unwrap();
    assert_eq!(disk.size(), 1 << 20);
    assert_eq!(disk.refresh_size().unwrap(), 2 << 20);
    assert_eq!(disk.size(), 2 << 20);
    file.as_file().set_len(1000).unwrap();
    assert!(matches!(disk.refresh_size(), Err(RawError::Size(1000))));
    assert_eq!(disk.size(), 2 << 20);
}

#[test]
fn refuses_what_is_no_disk() {
    for size in [0, 1, 511, 513, 1_000_000] {
        let error = RawDisk::open(open(file(size).path(), 0)).unwrap_err();
        assert!(matches!(error, RawError::Size(found) if found == size));
    }
    let null = RawDisk::open(open("/dev/null".as_ref(), 0)).unwrap_err();
    assert!(matches!(null, RawError::Kind));
    let file = file(512);
    let write_only = OpenOptions::new().write(true).open(file.path()).unwrap();
    let error = RawDisk::open(write_only.into()).unwrap_err();
    assert!(matches!(error, RawError::Access));
}

#[test]
fn one_writer_or_many_readers() {
    let file = file(512);
    let disk = |write: bool| {
        let file = OpenOptions::new().read(true).write(write).open(file.path());
        RawDisk::open(file.unwrap().into()).unwrap()
    };
    let writer = disk(true);
    writer.claim().unwrap();
    assert!(matches!(disk(true).claim(), Err(RawError::InUse)));
    assert!(matches!(disk(false).claim(), Err(RawError::InUse)));
    drop(writer);
    let readers = [disk(false), disk(false)];
    for reader in &readers {
        reader.claim().unwrap();
    }
    assert!(matches!(disk(true).claim(), Err(RawError::InUse)));
}
