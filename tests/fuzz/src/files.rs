//! Files and messages from strangers.

use std::io::Write as _;

use lodge_block::format::{self, HEAD_BYTES};
use lodge_vmm_proto::{Launch, Request, ServerMessage};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::file::empty_file;
use crate::input::Input;

/// A kernel of any kind, packed or not, with an initial RAM disk of a few pages if the first byte says so.
///
/// # Panics
/// When the loaders do something wrong.
pub fn kernel(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(pages) = input.u8() else {
        return;
    };
    let mut kernel = empty_file().expect("the host has memory");
    kernel.write_all(input.rest()).expect("the host has memory");
    let initrd = (pages > 0).then(|| {
        let file = empty_file().expect("the host has memory");
        // Not always whole pages.
        file.set_len(u64::from(pages) * 4096 - u64::from(pages % 2))
            .expect("room for a sparse file");
        file
    });
    lodge_vmm::fuzzing::load(kernel, initrd).expect("the host has memory");
}

/// Messages between manager and monitor, in both directions.
///
/// # Panics
/// When a message changes by being passed on.
pub fn messages(data: &[u8]) {
    if let Some(launch) = passed_on::<Launch>(data) {
        let _ = launch.validate(4);
    }
    passed_on::<Request>(data);
    passed_on::<ServerMessage>(data);
}

/// The message, which must be the same after it was sent once more.
fn passed_on<T: Serialize + DeserializeOwned>(data: &[u8]) -> Option<T> {
    let message: T = serde_json::from_slice(data).ok()?;
    let sent = serde_json::to_value(&message).expect("messages are plain data");
    let received: T = serde_json::from_value(sent.clone()).expect("what is sent is understood");
    assert_eq!(serde_json::to_value(&received).ok(), Some(sent));
    Some(message)
}

/// What a disk image is: the start of a file and its end.
///
/// # Panics
/// When detection does something wrong.
pub fn image(data: &[u8]) {
    let head = &data[..data.len().min(HEAD_BYTES)];
    let tail = data.last_chunk::<512>().map_or(&[][..], |tail| tail);
    let detected = format::detect(head, tail);
    assert_eq!(detected.format.is_raw(), detected.require_raw().is_ok());
}
