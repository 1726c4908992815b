//! A program of its own, because a child process that another test starts holds
//! copies of all descriptors for a moment.

use std::fs::OpenOptions;
use std::sync::Arc;

use lodge_block::engine::Engine;
use lodge_block::raw::RawDisk;

#[test]
fn a_dropped_engine_lets_go_of_its_disk() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    for _ in 0..200 {
        let opened = OpenOptions::new().read(true).write(true).open(file.path());
        let disk = RawDisk::open(opened.unwrap().into()).unwrap();
        disk.claim().expect("the previous engine is gone");
        let mut engine = Engine::new(Arc::new(disk), 8).unwrap();
        engine.flush(1).unwrap();
    }
}
