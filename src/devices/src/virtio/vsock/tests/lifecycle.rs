//! Configuration, activation, saved state.

use super::*;

#[test]
fn shows_its_address_and_nothing_else() {
    let mut rig = Rig::new();
    let mut space = [0; 12];
    rig.device.read_config(0, &mut space);
    assert_eq!(space, [0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut half = [0; 2];
    rig.device.write_config(0, &[0xff; 8]);
    rig.device.read_config(2, &mut half);
    assert_eq!(half, [0x34, 0x12]);
    for offset in [8, 4096, u64::MAX] {
        let mut data = [0; 8];
        rig.device.read_config(offset, &mut data);
        assert_eq!(data, [0; 8]);
    }
    assert_eq!(rig.device.features(), STREAM | SEQPACKET);
}

#[test]
fn half_a_pair_is_left_alone() {
    let mut rig = Rig::new();
    let mut queues: Vec<_> = rig.queues.iter().map(DriverQueue::device_side).collect();
    queues[0].queue.set_ready(false);
    rig.activate(queues).unwrap();
    let queues = rig.device.deactivate();
    let ready: Vec<bool> = queues.iter().map(Queue::ready).collect();
    assert_eq!(ready, [false, true, true]);
    assert!(rig.device.deactivate().is_empty());
}

#[test]
fn a_host_that_refuses_leaves_nothing_running() {
    let mut rig = Rig::on(|events| Vsock::with(Box::new(Refused), CID, events));
    let queues = rig.queues.iter().map(DriverQueue::device_side).collect();
    let error = rig.activate(queues).unwrap_err();
    assert!(error.to_string().contains("vhost-vsock"), "{error}");
    assert!(rig.device.deactivate().is_empty());
    let mut queues: Vec<_> = rig.queues.iter().map(DriverQueue::device_side).collect();
    queues.pop();
    assert!(rig.activate(queues).is_err());
}

#[test]
fn takes_no_other_state() {
    let mut rig = Rig::new();
    let state = rig.device.save();
    let mut later = state.clone();
    later.version += 1;
    assert!(rig.device.restore(&later).is_err());
    let mut other = state.clone();
    other.kind = "virtio-net".to_owned();
    assert!(rig.device.restore(&other).is_err());
    // What was refused announces nothing.
    rig.start();
    rig.queues[EVENT].offer(&[writable(DATA, 4)]);
    rig.queues[EVENT].kick();
    rig.settle();
    assert_eq!(rig.queues[EVENT].take_used(), None);
}
