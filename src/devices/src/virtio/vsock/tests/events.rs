//! What a restored guest hears.

use super::super::event::TRANSPORT_RESET;
use super::*;

#[test]
fn a_restored_guest_hears_once_that_its_connections_are_no_more() {
    let mut rig = Rig::new();
    rig.start();
    // As Linux does: a few buffers, given right at the start.
    for number in 0..8 {
        rig.queues[EVENT].offer(&[writable(DATA + 64 * number, 4)]);
    }
    rig.queues[EVENT].kick();
    let queues = rig.device.deactivate();
    assert_eq!(queues[EVENT].next_avail(), 0, "nothing has happened yet");
    rig.restore();
    rig.memory
        .write_slice(&[0xff; 1024], GuestAddress(DATA))
        .unwrap();
    rig.resume(queues);
    let (_, written) = rig.queues[EVENT].wait_used();
    assert_eq!(written, 4);
    let event: u32 = rig.memory.read_obj(GuestAddress(DATA)).unwrap();
    assert_eq!(event, TRANSPORT_RESET);
    rig.queues[EVENT].kick();
    rig.settle();
    assert_eq!(rig.queues[EVENT].take_used(), None);
    assert!(!rig.events.broken());
}

#[test]
fn the_event_waits_for_a_buffer() {
    let mut rig = Rig::new();
    rig.restore();
    rig.start();
    for queue in &rig.queues {
        queue.kick();
    }
    // It survives pauses as well.
    let queues = rig.device.deactivate();
    rig.resume(queues);
    rig.queues[EVENT].offer(&[writable(DATA, 1), writable(DATA + 1, 64)]);
    rig.queues[EVENT].kick();
    assert_eq!(rig.queues[EVENT].wait_used().1, 4);
}

#[test]
fn a_pause_is_no_news() {
    let mut rig = Rig::new();
    rig.start();
    rig.queues[EVENT].offer(&[writable(DATA, 4)]);
    let queues = rig.device.deactivate();
    assert_eq!(queues.len(), QUEUES);
    rig.resume(queues);
    rig.settle();
    assert_eq!(rig.queues[EVENT].take_used(), None);
}

#[test]
fn a_driver_that_starts_anew_has_nothing_to_lose() {
    let mut rig = Rig::new();
    rig.restore();
    rig.device.reset();
    rig.start();
    rig.queues[EVENT].offer(&[writable(DATA, 4)]);
    rig.queues[EVENT].kick();
    rig.settle();
    assert_eq!(rig.queues[EVENT].take_used(), None);
}
