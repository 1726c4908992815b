//! Commands that the host fails and the disk holds back. A file that is cut short fails reads, until it is made longer again.

use std::os::unix::fs::FileExt;
use std::sync::mpsc::channel;

use lodge_block::engine::IoError;

use super::*;
use crate::on_error::OnError;

const LAST: u64 = SIZE / 512 - 1;

/// Makes a rig hold back what fails, and tells what it says of that.
fn hold_back(rig: &Rig) -> std::sync::mpsc::Receiver<IoError> {
    let (tell, heard) = channel();
    let tell = Mutex::new(tell);
    let stuck = move |error| tell.lock().unwrap().send(error).unwrap();
    rig.handle.errors().on_stuck(Box::new(stuck));
    rig.handle.errors().set(OnError::HoldBack);
    heard
}

#[test]
fn what_failed_is_done_again_when_the_disk_is_resumed() {
    let (rig, file) = ready();
    let heard = hold_back(&rig);
    file.set_len(SIZE / 2).unwrap();
    let failing = rig.submit(1, transfer(2, LAST, 1, [DATA, 0]));
    assert_eq!(heard.recv().unwrap(), IoError::EndOfFile);
    let later = rig.submit(1, transfer(2, 0, 1, [DATA + 512, 0]));
    let saved = {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        function.save()
    };
    assert!(rig.poll(1).is_none());
    // Releases that know nothing of it must not take it.
    assert_eq!(saved.version, 2);
    file.set_len(SIZE).unwrap();
    file.write_all_at(&[7; 512], SIZE - 512).unwrap();
    {
        let mut function = rig.function.lock().unwrap();
        function.restore(&saved).unwrap();
        assert_eq!(function.save(), saved);
        function.resume();
    }
    let mut ended = [rig.reap(1), rig.reap(1)].map(|end| {
        assert_eq!(end.status, OK);
        end.id
    });
    ended.sort_unstable();
    assert_eq!(ended, [failing, later]);
    assert_eq!(rig.get(DATA, 512), [7; 512]);
    let mut function = rig.function.lock().unwrap();
    function.pause();
    assert_eq!(function.save().version, 1);
}

#[test]
fn states_that_cannot_be_are_refused() {
    let (rig, file) = ready();
    let heard = hold_back(&rig);
    file.set_len(0).unwrap();
    rig.submit(1, transfer(2, 0, 1, [DATA, 0]));
    heard.recv().unwrap();
    let mut function = rig.function.lock().unwrap();
    function.pause();
    let saved = function.save();
    let at = |queue: u16| format!("/session/submission/{queue}/unfinished");
    let one = saved.body.pointer(&at(1)).unwrap()[0].clone();
    let mut many = saved.clone();
    *many.body.pointer_mut(&at(1)).unwrap() = vec![one.clone(); 129].into();
    let mut admin = saved.clone();
    admin.body["session"]["submission"][0]["unfinished"] = vec![one].into();
    for bad in [many, admin] {
        assert!(function.restore(&bad).is_err());
        assert_eq!(function.save(), saved);
    }
}
