//! Requests that the host fails and the disk holds back. A file that is cut short fails reads, until it is made longer again.

use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, channel};

use lodge_block::engine::IoError;

use super::*;
use crate::on_error::OnError;

const SIZE: u64 = 1 << 20;

/// A rig that holds back what fails, and what it says of that.
fn rig() -> (Rig, Receiver<IoError>) {
    let rig = Rig::new(SIZE);
    let (tell, heard) = channel();
    let errors = Arc::clone(rig.device.handle().errors());
    errors.on_stuck(Box::new(move |error| tell.send(error).unwrap()));
    errors.set(OnError::HoldBack);
    (rig, heard)
}

/// The queue and what of it is unfinished.
fn rest(rig: &mut Rig) -> ActiveQueue {
    let queue = rig.device.deactivate().pop().unwrap();
    let mut unfinished = rig.device.take_unfinished();
    assert!(rig.device.take_unfinished().is_empty());
    ActiveQueue {
        unfinished: unfinished.pop().unwrap(),
        ..rig.queue.activation(queue)
    }
}

#[test]
fn what_failed_is_done_again_when_the_disk_is_resumed() {
    let (mut rig, heard) = rig();
    rig.file.set_len(SIZE / 2).unwrap();
    let sectors = SIZE / 512;
    let failing = [
        rig.offer(0, IN, sectors - 1, &[writable(DATA, 512)]),
        rig.offer(1, IN, sectors - 2, &[writable(DATA + 512, 512)]),
    ];
    let fine = rig.offer(2, IN, 0, &[writable(DATA + 1024, 512)]);
    rig.queue.kick();
    assert_eq!(heard.recv().unwrap(), IoError::EndOfFile);
    assert_eq!(rig.queue.wait_used().0, fine);
    // It takes no more.
    let later = rig.offer(3, IN, 1, &[writable(DATA + 1536, 512)]);
    rig.queue.kick();
    let queue = rest(&mut rig);
    let mut unfinished = queue.unfinished.clone();
    unfinished.sort_unstable();
    let mut expected = failing;
    expected.sort_unstable();
    assert_eq!(unfinished, expected);
    assert_eq!(rig.queue.take_used(), None);
    assert_eq!([rig.status(0), rig.status(1)], [0xff, 0xff]);
    assert!(heard.try_recv().is_err(), "it is told once");
    assert_eq!(rig.totals().errors, 2);

    rig.file.set_len(SIZE).unwrap();
    rig.file.write_all_at(&[7; 512], SIZE - 512).unwrap();
    rig.activate(queue);
    let mut used: Vec<u16> = (0..3).map(|_| rig.queue.wait_used().0).collect();
    used.sort_unstable();
    let mut expected = vec![failing[0], failing[1], later];
    expected.sort_unstable();
    assert_eq!(used, expected);
    for slot in 0..4 {
        assert_eq!(rig.status(slot), OK);
    }
    assert_eq!(rig.get(DATA, 512), [7; 512]);
    assert!(rest(&mut rig).unfinished.is_empty());
}

#[test]
fn a_cause_that_stays_is_told_again() {
    let (mut rig, heard) = rig();
    rig.file.set_len(0).unwrap();
    let head = rig.offer(0, IN, 0, &[writable(DATA, 512)]);
    rig.queue.kick();
    for _ in 0..3 {
        assert_eq!(heard.recv().unwrap(), IoError::EndOfFile);
        let queue = rest(&mut rig);
        assert_eq!(queue.unfinished, [head]);
        rig.activate(queue);
    }
    // Somebody decides that the guest is to deal with it.
    assert_eq!(heard.recv().unwrap(), IoError::EndOfFile);
    let errors = Arc::clone(rig.device.handle().errors());
    errors.set(OnError::Report);
    let queue = rest(&mut rig);
    rig.activate(queue);
    assert_eq!(rig.queue.wait_used(), (head, 1));
    assert_eq!(rig.status(0), IO_ERROR);
    assert!(heard.try_recv().is_err());
}

#[test]
fn chains_that_are_offered_again_meanwhile_break_the_rules() {
    let (mut rig, heard) = rig();
    rig.file.set_len(0).unwrap();
    let head = rig.offer(0, IN, 0, &[writable(DATA, 512)]);
    rig.queue.kick();
    heard.recv().unwrap();
    rig.queue.make_available(head);
    let queue = rest(&mut rig);
    rig.activate(queue);
    let why = rig.events.wait_broken();
    assert!(why.contains("in flight"), "{why}");
}

#[test]
fn without_anybody_to_tell_the_driver_is_told() {
    let mut rig = Rig::new(SIZE);
    rig.device.handle().errors().set(OnError::HoldBack);
    rig.file.set_len(0).unwrap();
    let (status, _) = rig.request(IN, 0, &[writable(DATA, 512)]);
    assert_eq!(status, IO_ERROR);
}
