//! A guest's state and memory, in files.

use std::fs::File;
use std::os::fd::AsFd;

use lodge_vmm_proto::{Answer, RequestBody};

use super::Guest;

/// Memory of a guest that is given no other size, in bytes.
pub const MEMORY: u64 = 64 << 20;

/// Saves a paused guest.
pub fn save(guest: &mut Guest) -> [File; 2] {
    let state = tempfile::tempfile().unwrap();
    let memory = tempfile::tempfile().unwrap();
    memory.set_len(MEMORY).unwrap();
    assert_eq!(
        guest.ask_with(RequestBody::SaveState, &[state.as_fd()]),
        Answer::Done
    );
    for offset in (0..MEMORY).step_by(24 << 20) {
        let length = 24 << 20;
        let body = RequestBody::SaveMemory { offset, length };
        let answer = guest.ask_with(body, &[memory.as_fd()]);
        assert!(matches!(answer, Answer::Saved { .. }), "{answer:?}");
    }
    [state, memory]
}

/// The same files again.
pub fn copies(files: &[File; 2]) -> Option<[File; 2]> {
    Some(files.each_ref().map(|file| file.try_clone().unwrap()))
}
