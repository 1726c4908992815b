//! A guest's state and memory, in files.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use lodge_vmm_proto::{Answer, RequestBody};

use super::Guest;

/// Memory of a guest that is given no other size, in bytes.
pub const MEMORY: u64 = 64 << 20;

/// Bytes before the body of a state file.
pub const HEADER: usize = 24;

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

/// A state file, as `src/saved/file.rs` writes it.
pub fn state_file(body: &[u8]) -> File {
    let mut bytes = b"LODGEVMS".to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(crc32c::crc32c(body).to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file
}

/// The body of a state file.
pub fn body_of(state: &File) -> Vec<u8> {
    let length = usize::try_from(state.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0; length];
    state.read_exact_at(&mut bytes, 0).unwrap();
    bytes.split_off(HEADER)
}
