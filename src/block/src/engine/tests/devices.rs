//! The engine on block devices, and on files that lie on them.

use super::*;

/// A loop device with sectors of `sector` bytes over a file of [`SIZE`] bytes;
/// `None` where there are none.
struct Loop {
    path: String,
    _file: tempfile::NamedTempFile,
}

impl Loop {
    fn new(sector: u32) -> Option<Self> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        let output = std::process::Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &sector.to_string()])
            .arg(file.path())
            .output();
        let Some(output) = output.ok().filter(|output| output.status.success()) else {
            println!("skipped: no loop devices here");
            return None;
        };
        let path = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Some(Self { path, _file: file })
    }

    fn open(&self) -> RawDisk {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        RawDisk::open(options.open(&self.path).unwrap().into()).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .args(["--detach", &self.path])
            .status();
    }
}

#[test]
fn a_block_device_keeps_its_sectors() {
    let Some(device) = Loop::new(4096) else {
        return;
    };
    let disk = device.open();
    assert_eq!(disk.kind(), crate::raw::Kind::BlockDevice);
    assert_eq!((disk.size(), disk.logical_block()), (SIZE, 4096));
    assert!(disk.direct() && disk.discard());
    let mut engine = Engine::new(Arc::new(disk), 8).unwrap();
    let mut memory = Memory::new(8192, 1);
    memory.content(8192).fill(3);
    let buffers = memory.pieces(&[100, 8092]);
    // SAFETY: nothing is submitted.
    let refused = unsafe { engine.write(1, 512, &buffers) };
    assert!(matches!(refused, Err(SubmitError::Misaligned { .. })));
    // SAFETY: `memory` outlives the requests.
    unsafe { engine.write(1, 4096, &buffers) }.unwrap();
    finish_one(&mut engine).unwrap();
    engine.write_zeroes(2, 4096, 4096, true).unwrap();
    finish_one(&mut engine).unwrap();
    engine.discard(3, 0, 4096).unwrap();
    finish_one(&mut engine).unwrap();
    let mut read = Memory::new(8192, 1);
    let buffers = read.pieces(&[8192]);
    // SAFETY: `read` outlives the request.
    unsafe { engine.read(4, 4096, &buffers) }.unwrap();
    finish_one(&mut engine).unwrap();
    assert!(read.content(8192)[..4096].iter().all(|byte| *byte == 0));
    assert!(read.content(8192)[4096..].iter().all(|byte| *byte == 3));
}

#[test]
fn a_disk_of_small_sectors_on_large_ones_goes_through_the_page_cache() {
    use nix::mount::{MsFlags, mount};
    let Some(device) = Loop::new(4096) else {
        return;
    };
    let made = std::process::Command::new("mkfs.ext4")
        .args(["-q", "-b", "4096", "-O", "^has_journal", &device.path])
        .status();
    assert!(made.unwrap().success());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("tests run as root");
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let flags = MsFlags::empty();
    mount(
        Some(&*device.path),
        directory.path(),
        Some("ext4"),
        flags,
        None::<&str>,
    )
    .unwrap();
    let path = directory.path().join("disk");
    File::create_new(&path).unwrap().set_len(1536).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    let disk = RawDisk::open(options.open(&path).unwrap().into()).unwrap();
    // The guest's partition table was written for sectors of 512 bytes.
    assert_eq!((disk.logical_block(), disk.direct()), (512, false));
    let mut engine = Engine::new(Arc::new(disk), 8).unwrap();
    let mut memory = Memory::new(512, 3);
    memory.content(512).fill(5);
    let buffers = memory.pieces(&[512]);
    // SAFETY: `memory` outlives the request.
    unsafe { engine.write(1, 1024, &buffers) }.unwrap();
    finish_one(&mut engine).unwrap();
    drop(engine);
    assert_eq!(std::fs::read(&path).unwrap()[1024..], [5; 512]);
    // Children of other tests may hold copies of descriptors for a moment.
    nix::mount::umount2(directory.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}
