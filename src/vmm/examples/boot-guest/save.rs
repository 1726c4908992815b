//! Saving a guest into two files of a folder.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use lodge_vmm_proto::{Channel, MAX_PIECE, RequestBody};

use crate::control::ask;

/// Where state and memory are.
pub fn paths(folder: &str) -> (String, String) {
    (format!("{folder}/state"), format!("{folder}/memory"))
}

/// Holds the guest, writes it to the folder, which is made, and ends it.
pub fn save(channel: &Channel, folder: &str, size: u64) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.to_owned())?;
    let (state, memory) = paths(folder);
    ask(channel, RequestBody::Hold, &[])?;
    let file = create(&state)?;
    ask(channel, RequestBody::SaveState, &[file.as_fd()])?;
    let file = create(&memory)?;
    file.set_len(size)?;
    let mut offset = 0;
    while offset < size {
        let length = MAX_PIECE.min(size - offset);
        let body = RequestBody::SaveMemory { offset, length };
        ask(channel, body, &[file.as_fd()])?;
        offset += length;
    }
    ask(channel, RequestBody::Kill, &[]).map(drop)
}

fn create(path: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options.open(path).with_context(|| path.to_owned())
}
