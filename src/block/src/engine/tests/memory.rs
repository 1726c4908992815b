//! Disks in memory, on which the engine makes small steps itself.

use std::os::fd::AsRawFd;

use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;

/// A file of [`SIZE`] bytes in memory, and an engine on it.
pub(super) fn engine_in_memory(depth: u16) -> (File, Engine) {
    let file = File::from(memfd_create(c"disk", MFdFlags::empty()).unwrap());
    file.set_len(SIZE).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = OpenOptions::new().read(true).write(true).open(path);
    let disk = RawDisk::open(opened.unwrap().into()).unwrap();
    let engine = Engine::new(Arc::new(disk), depth).unwrap();
    assert!(engine.in_memory);
    (file, engine)
}

#[test]
fn small_steps_are_over_at_once() {
    let (file, mut engine) = engine_in_memory(4);
    let mut memory = Memory::new(4096, 0);
    memory.content(4096).fill(3);
    let buffers = memory.pieces(&[1000, 3096]);
    let mut sink = Vec::new();
    // SAFETY: `memory` outlives the request.
    unsafe { engine.write(1, 512, &buffers) }.unwrap();
    engine.flush(2).unwrap();
    engine.wait(false, &mut sink).unwrap();
    let tokens: Vec<u64> = sink.iter().map(|completion| completion.token).collect();
    assert_eq!(tokens, [1, 2]);
    let mut content = vec![0; 4096];
    file.read_exact_at(&mut content, 512).unwrap();
    assert_eq!(memory.content(4096), content);
    // What is not there any more is found out as by the ring.
    file.set_len(1024).unwrap();
    // SAFETY: as above.
    unsafe { engine.read(3, 512, &buffers) }.unwrap();
    assert_eq!(finish_one(&mut engine), Err(IoError::EndOfFile));
}

#[test]
fn a_stream_of_steps_hides_no_event() {
    let (_file, mut engine) = engine_in_memory(4);
    let event = EventFd::new().unwrap();
    engine.watch([event.as_fd()]);
    let mut sink = Vec::new();
    engine.wait(false, &mut sink).unwrap();
    for _ in 0..1000 {
        event.write(1).unwrap();
        let heard = (0..2).any(|_| {
            engine.flush(1).unwrap();
            engine.wait(true, &mut sink).unwrap().has(0)
        });
        assert!(heard);
        // What is still under way would be counted among the next.
        finish(&mut engine);
    }
    engine.unwatch().unwrap();
}
