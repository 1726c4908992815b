//! The engine against a model, on real files.

mod devices;
mod memory;

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use proptest::prelude::*;

use super::*;

const SIZE: u64 = 256 << 10;
const BLOCK: u64 = 512;

/// A file of [`SIZE`] bytes, and an engine on it.
fn engine(direct: bool, depth: u16) -> (File, Engine) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if direct {
        options.custom_flags(libc::O_DIRECT);
    }
    let opened = options.open(file.path()).unwrap();
    let disk = RawDisk::open(opened.into()).unwrap();
    assert_eq!(disk.direct(), direct);
    let engine = Engine::new(Arc::new(disk), depth).unwrap();
    (file.into_file(), engine)
}

/// Memory at a chosen distance from a page border, in pieces.
struct Memory {
    bytes: Vec<u8>,
    start: usize,
}

impl Memory {
    fn new(length: usize, misalignment: usize) -> Self {
        let bytes = vec![0xa5; length + 4096 + misalignment];
        let start = bytes.as_ptr().align_offset(4096) + misalignment;
        Self { bytes, start }
    }

    fn pieces(&mut self, lengths: &[usize]) -> Vec<libc::iovec> {
        let mut position = self.start;
        let mut pieces = Vec::new();
        for &length in lengths {
            let part = &mut self.bytes[position..position + length];
            pieces.push(libc::iovec {
                iov_base: part.as_mut_ptr().cast(),
                iov_len: length,
            });
            position += length;
        }
        pieces
    }

    fn content(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + length]
    }
}

fn finish(engine: &mut Engine) -> Vec<Completion> {
    let mut done = Vec::new();
    engine.drain(&mut done).unwrap();
    done.sort_by_key(|completion| completion.token);
    done
}

fn finish_one(engine: &mut Engine) -> Result<(), IoError> {
    let done = finish(engine);
    assert_eq!(done.len(), 1);
    done[0].result
}

#[derive(Debug, Clone)]
enum Action {
    Read {
        block: u64,
        pieces: Vec<usize>,
        misalignment: usize,
    },
    Write {
        block: u64,
        pieces: Vec<usize>,
        misalignment: usize,
        seed: u8,
    },
    Flush,
    Discard {
        block: u64,
        blocks: u64,
    },
    Zero {
        block: u64,
        blocks: u64,
        unmap: bool,
    },
}

/// Pieces that add up to whole blocks but need not be such themselves.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    (1..40_usize, prop::collection::vec(1..5000_usize, 0..6)).prop_map(|(blocks, cuts)| {
        let mut left = blocks * BLOCK as usize;
        let mut pieces = Vec::new();
        for cut in cuts {
            if cut >= left {
                break;
            }
            pieces.push(cut);
            left -= cut;
        }
        pieces.push(left);
        pieces
    })
}

fn action() -> impl Strategy<Value = Action> {
    let block = || 0..SIZE / BLOCK - 40;
    let misalignment = || prop_oneof![Just(0_usize), Just(512), 1..511_usize];
    prop_oneof![
        4 => (block(), pieces(), misalignment()).prop_map(|(block, pieces, misalignment)| {
            Action::Read { block, pieces, misalignment }
        }),
        4 => (block(), pieces(), misalignment(), any::<u8>()).prop_map(
            |(block, pieces, misalignment, seed)| Action::Write { block, pieces, misalignment, seed }
        ),
        1 => Just(Action::Flush),
        1 => (block(), 1..40_u64).prop_map(|(block, blocks)| Action::Discard { block, blocks }),
        1 => (block(), 1..40_u64, any::<bool>())
            .prop_map(|(block, blocks, unmap)| Action::Zero { block, blocks, unmap }),
    ]
}

fn apply(engine: &mut Engine, model: &mut [u8], action: &Action) {
    match action {
        Action::Read {
            block,
            pieces,
            misalignment,
        } => {
            let length = pieces.iter().sum();
            let mut memory = Memory::new(length, *misalignment);
            let buffers = memory.pieces(pieces);
            // SAFETY: `memory` outlives the request, which `finish_one` waits for.
            unsafe { engine.read(1, block * BLOCK, &buffers) }.unwrap();
            finish_one(engine).unwrap();
            let start = (block * BLOCK) as usize;
            assert_eq!(memory.content(length), &model[start..start + length]);
        }
        Action::Write {
            block,
            pieces,
            misalignment,
            seed,
        } => {
            let length = pieces.iter().sum();
            let mut memory = Memory::new(length, *misalignment);
            for (position, byte) in memory.content(length).iter_mut().enumerate() {
                *byte = seed.wrapping_add(position as u8).wrapping_mul(31);
            }
            let buffers = memory.pieces(pieces);
            // SAFETY: `memory` outlives the request, which `finish_one` waits for.
            unsafe { engine.write(1, block * BLOCK, &buffers) }.unwrap();
            finish_one(engine).unwrap();
            let start = (block * BLOCK) as usize;
            model[start..start + length].copy_from_slice(memory.content(length));
        }
        Action::Flush => {
            engine.flush(1).unwrap();
            finish_one(engine).unwrap();
        }
        Action::Discard { block, blocks } => {
            engine.discard(1, block * BLOCK, blocks * BLOCK).unwrap();
            finish_one(engine).unwrap();
            zero(model, *block, *blocks);
        }
        Action::Zero {
            block,
            blocks,
            unmap,
        } => {
            engine
                .write_zeroes(1, block * BLOCK, blocks * BLOCK, *unmap)
                .unwrap();
            finish_one(engine).unwrap();
            zero(model, *block, *blocks);
        }
    }
}

fn zero(model: &mut [u8], block: u64, blocks: u64) {
    model[(block * BLOCK) as usize..((block + blocks) * BLOCK) as usize].fill(0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn behaves_like_a_byte_array(
        (in_memory, direct) in prop_oneof![Just((true, false)), any::<bool>().prop_map(|direct| (false, direct))],
        actions in prop::collection::vec(action(), 1..40),
    ) {
        let (file, mut engine) = if in_memory { memory::engine_in_memory(8) } else { engine(direct, 8) };
        let mut model = vec![0; SIZE as usize];
        for action in &actions {
            apply(&mut engine, &mut model, action);
        }
        drop(engine);
        let mut content = vec![0; SIZE as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        prop_assert!(content == model);
    }
}

#[test]
fn many_at_once_complete_each_once() {
    // More misaligned requests than there are bounce buffers, each larger than one.
    for (direct, misalignment) in [(false, 1), (true, 0), (true, 3)] {
        let (file, mut engine) = engine(direct, 64);
        let length = 96 << 10;
        let mut memories: Vec<Memory> = (0..64_u8)
            .map(|seed| {
                let mut memory = Memory::new(length, misalignment);
                memory.content(length).fill(seed);
                memory
            })
            .collect();
        // All write the same value wherever they overlap: the last 96 KiB.
        for (token, memory) in memories.iter_mut().enumerate() {
            let block = (token as u64 % 16) * BLOCK;
            memory.content(length).fill(7);
            let buffers = memory.pieces(&[1000, length - 1000]);
            // SAFETY: `memories` outlive the engine's `drain`.
            unsafe { engine.write(token as u64, block, &buffers) }.unwrap();
        }
        assert!(!engine.has_room());
        assert_eq!(engine.flush(99), Err(SubmitError::Full));
        let done = finish(&mut engine);
        let tokens: Vec<u64> = done.iter().map(|completion| completion.token).collect();
        assert_eq!(tokens, (0..64).collect::<Vec<u64>>());
        assert!(done.iter().all(|completion| completion.result.is_ok()));
        let mut content = vec![0; length];
        file.read_exact_at(&mut content, 0).unwrap();
        assert!(content.iter().all(|byte| *byte == 7));
    }
}

#[test]
fn takes_more_pieces_than_one_call_does() {
    let (file, mut engine) = engine(false, 4);
    let lengths = vec![32; 4096];
    let mut memory = Memory::new(128 << 10, 0);
    for (position, byte) in memory.content(128 << 10).iter_mut().enumerate() {
        *byte = (position / 32) as u8;
    }
    let buffers = memory.pieces(&lengths);
    // SAFETY: `memory` outlives the request.
    unsafe { engine.write(0, 4096, &buffers) }.unwrap();
    finish_one(&mut engine).unwrap();
    let mut content = vec![0; 128 << 10];
    file.read_exact_at(&mut content, 4096).unwrap();
    assert!(content == memory.content(128 << 10));
}

#[test]
fn refuses_what_is_not_on_the_disk() {
    let (_file, mut engine) = engine(false, 4);
    let range = |offset, length| SubmitError::Range {
        offset,
        length,
        size: SIZE,
    };
    for (offset, length) in [
        (SIZE, 512),
        (SIZE - 512, 1024),
        (0, 0),
        (u64::MAX - 511, 512),
        (512, u64::MAX),
    ] {
        assert_eq!(
            engine.discard(1, offset, length),
            Err(range(offset, length))
        );
        assert_eq!(
            engine.write_zeroes(1, offset, length, true),
            Err(range(offset, length))
        );
    }
    assert!(matches!(
        engine.discard(1, 1, 512),
        Err(SubmitError::Misaligned { .. })
    ));
    let mut memory = Memory::new(1024, 0);
    let buffers = memory.pieces(&[1024]);
    // SAFETY: nothing is submitted.
    let refused = unsafe { engine.read(1, SIZE - 512, &buffers) };
    assert_eq!(refused, Err(range(SIZE - 512, 1024)));
    assert_eq!(finish(&mut engine), []);
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    let disk = RawDisk::open(File::open(file.path()).unwrap().into()).unwrap();
    assert!(disk.read_only());
    assert!(!disk.discard());
    let mut engine = Engine::new(Arc::new(disk), 4).unwrap();
    let mut memory = Memory::new(512, 0);
    let buffers = memory.pieces(&[512]);
    // SAFETY: nothing is submitted.
    let refused = unsafe { engine.write(1, 0, &buffers) };
    assert_eq!(refused, Err(SubmitError::ReadOnly));
    assert_eq!(engine.discard(1, 0, 512), Err(SubmitError::ReadOnly));
    assert_eq!(
        engine.write_zeroes(1, 0, 512, false),
        Err(SubmitError::ReadOnly)
    );
    engine.flush(1).unwrap();
    finish_one(&mut engine).unwrap();
}

#[test]
fn watched_events_end_the_sleep() {
    use nix::sys::eventfd::EventFd;
    let (_file, mut engine) = engine(false, 4);
    let mut sink = Vec::new();
    for _ in 0..3 {
        let (first, second) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        // Readable before it is watched.
        second.write(1).unwrap();
        engine.watch([first.as_fd(), second.as_fd()]);
        let fired = engine.wait(true, &mut sink).unwrap();
        assert_eq!((fired.has(0), fired.has(1)), (false, true));
        // Told again only when signalled again, though never read.
        let fired = engine.wait(false, &mut sink).unwrap();
        assert_eq!((fired.has(0), fired.has(1)), (false, false));
        for _ in 0..1000 {
            second.write(1).unwrap();
            assert!(engine.wait(true, &mut sink).unwrap().has(1));
        }
        // From another thread, while asleep.
        std::thread::scope(|scope| {
            scope.spawn(|| first.write(1).unwrap());
            while !engine.wait(true, &mut sink).unwrap().has(0) {}
        });
        // A signal during a drain is not lost.
        engine.flush(1).unwrap();
        first.write(1).unwrap();
        assert_eq!(finish_one(&mut engine), Ok(()));
        assert!(engine.wait(false, &mut sink).unwrap().has(0));
        engine.unwatch().unwrap();
        second.write(1).unwrap();
        engine.flush(2).unwrap();
        let fired = engine.wait(true, &mut sink).unwrap();
        assert_eq!((fired.has(0), fired.has(1)), (false, false));
        finish(&mut engine);
    }
    assert!(!Fired::default().has(64));
}

#[test]
fn a_sleep_ends_when_its_time_is_over() {
    let (_file, mut engine) = engine(false, 4);
    let event = nix::sys::eventfd::EventFd::new().unwrap();
    engine.watch([event.as_fd()]);
    let mut sink = Vec::new();
    let nap = Duration::from_millis(20);
    // Also when the trip into the kernel has something to hand over: the first one starts to watch.
    for _ in 0..3 {
        let began = std::time::Instant::now();
        let fired = engine.wait_at_most(Some(nap), &mut sink).unwrap();
        assert!(began.elapsed() >= nap);
        assert_eq!(fired, Fired::default());
    }
    event.write(1).unwrap();
    let long = Some(Duration::from_secs(3600));
    assert!(engine.wait_at_most(long, &mut sink).unwrap().has(0));
    engine.flush(1).unwrap();
    while sink.is_empty() {
        engine.wait_at_most(long, &mut sink).unwrap();
    }
}

#[test]
fn watching_ends_under_a_storm_of_signals() {
    use nix::sys::eventfd::EventFd;
    use std::sync::atomic::{AtomicBool, Ordering};
    let (_file, mut engine) = engine(false, 4);
    let event = EventFd::new().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                event.write(1).unwrap();
            }
        });
        let mut sink = Vec::new();
        for _ in 0..5000 {
            engine.watch([event.as_fd()]);
            engine.wait(true, &mut sink).unwrap();
            engine.unwatch().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn tells_that_a_file_was_cut() {
    let (file, mut engine) = engine(false, 4);
    file.set_len(8192).unwrap();
    let mut memory = Memory::new(4096, 0);
    let buffers = memory.pieces(&[4096]);
    // SAFETY: `memory` outlives the request.
    unsafe { engine.read(1, 6144, &buffers) }.unwrap();
    assert_eq!(finish_one(&mut engine), Err(IoError::EndOfFile));
    // The same engine goes on.
    // SAFETY: as above.
    unsafe { engine.read(2, 4096, &buffers) }.unwrap();
    assert_eq!(finish_one(&mut engine), Ok(()));
}

#[test]
fn dropping_waits_for_the_kernel() {
    for _ in 0..20 {
        let (file, mut engine) = engine(true, 32);
        let mut memory = Memory::new(64 << 10, 0);
        memory.content(64 << 10).fill(9);
        let buffers = memory.pieces(&[64 << 10]);
        for token in 0..32 {
            let offset = (token % 4) * (64 << 10);
            // SAFETY: `memory` outlives the engine.
            unsafe { engine.write(token, offset, &buffers) }.unwrap();
        }
        engine.wait(false, &mut Vec::new()).unwrap();
        drop(engine);
        let mut content = vec![0; SIZE as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        assert!(content.iter().all(|byte| *byte == 9));
    }
}

#[test]
fn a_full_datastore_has_an_error_of_its_own() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    // Mounts of this thread are its own from here on.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("tests run as root");
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = Some("size=64k");
    let flags = MsFlags::empty();
    mount(
        Some("tmpfs"),
        directory.path(),
        Some("tmpfs"),
        flags,
        options,
    )
    .unwrap();
    let path = directory.path().join("disk");
    let file = File::create_new(&path).unwrap();
    file.set_len(SIZE).unwrap();
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    let disk = RawDisk::open(opened.unwrap().into()).unwrap();
    let mut engine = Engine::new(Arc::new(disk), 4).unwrap();

    let mut memory = Memory::new(128 << 10, 0);
    let buffers = memory.pieces(&[128 << 10]);
    // SAFETY: `memory` outlives the request.
    unsafe { engine.write(1, 0, &buffers) }.unwrap();
    assert_eq!(finish_one(&mut engine), Err(IoError::NoSpace));
    // Discarding makes room, and the same engine goes on.
    engine.discard(2, 0, 128 << 10).unwrap();
    finish_one(&mut engine).unwrap();
    // tmpfs cannot zero a range in place: zeroes are written.
    engine.write_zeroes(3, 0, 32 << 10, false).unwrap();
    finish_one(&mut engine).unwrap();
    drop(engine);
    drop(file);
    umount2(directory.path(), MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn spare_rings_go_from_disk_to_disk() {
    let spares = Spares::new(4);
    spares.add(1).unwrap();
    for round in 0..3_u8 {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        let disk = Arc::new(RawDisk::open(file.try_clone().unwrap().into()).unwrap());
        let event = nix::sys::eventfd::EventFd::new().unwrap();
        let mut engine = Engine::with_spares(Arc::clone(&disk), 4, &spares).unwrap();
        assert_eq!(spares.left(), 0);
        // Watched to its end, and after it.
        engine.watch([event.as_fd()]);
        let mut memory = Memory::new(512, 0);
        memory.bytes.fill(round);
        let buffers = memory.pieces(&[512]);
        // SAFETY: `memory` outlives the request.
        unsafe { engine.write(u64::from(round), 0, &buffers) }.unwrap();
        finish_one(&mut engine).unwrap();
        drop(engine);
        event.write(1).unwrap();
        assert_eq!(spares.left(), 1);
        let mut block = [0; 512];
        file.read_exact_at(&mut block, 0).unwrap();
        assert_eq!(block, [round; 512]);
    }
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE).unwrap();
    let disk = Arc::new(RawDisk::open(file.into()).unwrap());
    let engine = |depth| Engine::with_spares(Arc::clone(&disk), depth, &spares).unwrap();
    drop(engine(8));
    assert_eq!(spares.left(), 1, "one of another depth is no spare");
    drop((engine(4), engine(4)));
    assert_eq!(
        spares.left(),
        2,
        "one that was made for its engine is one afterwards"
    );
}
