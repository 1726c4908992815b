//! Activation, pause, reset, save and restore.

use std::os::unix::fs::FileExt;

use super::*;
use crate::state::RestoreError;

#[test]
fn a_pause_loses_and_repeats_nothing() {
    let mut rig = Rig::new(1 << 20);
    for round in 0..200_u64 {
        for slot in 0..8 {
            let sector = round * 8 + slot;
            let address = DATA + slot * 512;
            rig.put(address, &[sector as u8; 512]);
            rig.offer(slot, OUT, sector, &[readable(address, 512)]);
        }
        rig.queue.kick();
        // Some are done, some under way, some not taken off the ring yet.
        let mut queues = rig.device.deactivate();
        let queue = queues.pop().unwrap();
        assert_eq!(queue.next_avail(), queue.next_used());
        let queue = rig.queue.activation(queue);
        // What the pause left in the ring is served without another kick.
        let _ = queue.kick.read();
        rig.activate(queue);
        for _ in 0..8 {
            assert_eq!(rig.queue.wait_used().1, 1);
        }
    }
    let mut content = vec![0; 1600 * 512];
    rig.file.read_exact_at(&mut content, 0).unwrap();
    for (sector, data) in content.chunks(512).enumerate() {
        assert_eq!(data, [sector as u8; 512], "sector {sector}");
    }
    assert_eq!(rig.totals().writes, 1600);
}

#[test]
fn indices_wrap() {
    let mut rig = Rig::idle(1 << 20, options(), 16);
    let queue = rig.queue.start_at(u16::MAX - 2);
    rig.activate(queue);
    for sector in 0..20 {
        assert_eq!(rig.request(IN, sector, &[writable(DATA, 512)]), (OK, 513));
    }
    let queues = rig.device.deactivate();
    assert_eq!(queues[0].next_used(), 17);
}

#[test]
fn interrupts_only_when_asked() {
    let mut rig = Rig::new(1 << 20);
    // The driver wants to hear of the eighth returned chain only.
    let event = rig.queue.available + 4 + 2 * u64::from(rig.queue.size);
    rig.memory.write_obj(7_u16, GuestAddress(event)).unwrap();
    for slot in 0..8 {
        rig.offer(slot, IN, 0, &[writable(DATA, 512)]);
        rig.queue.kick();
        rig.queue.kick();
    }
    rig.queue.wait_interrupt();
    assert_eq!(rig.device.deactivate()[0].next_used(), 8);
    assert_eq!(rig.queue.interrupt.0.read().unwrap(), 1, "interrupts");
}

#[test]
fn disabled_queues_come_back_as_they_were() {
    let four = Options {
        queues: 4,
        ..options()
    };
    let mut rig = Rig::idle(1 << 20, four, 16);
    let mut others: Vec<DriverQueue> = (1..4)
        .map(|index| DriverQueue::new(&rig.memory, RINGS + index * 0x1000, 16))
        .collect();
    let mut queues = vec![rig.queue.device_side()];
    queues.extend(others.iter().map(DriverQueue::device_side));
    queues[1].queue.set_ready(false);
    queues[2].queue.set_ready(false);
    rig.activate_with(EVENT_IDX, queues);
    assert_eq!(rig.request(IN, 0, &[writable(DATA, 512)]).0, OK);
    let chain = rig.chain(5, IN, 0, &[writable(DATA, 512)]);
    others[2].offer(&chain).unwrap();
    others[2].kick();
    others[2].wait_used();
    let queues = rig.device.deactivate();
    let used: Vec<u16> = queues.iter().map(Queue::next_used).collect();
    assert_eq!(used, [1, 0, 0, 1]);
    let ready: Vec<bool> = queues.iter().map(Queue::ready).collect();
    assert_eq!(ready, [true, false, false, true]);
}

#[test]
fn refuses_another_number_of_queues() {
    let mut rig = Rig::idle(1 << 20, options(), 16);
    let queues = vec![rig.queue.device_side(), rig.queue.device_side()];
    let refused = rig.device.activate(Activation {
        memory: rig.memory.clone(),
        features: 0,
        queues,
        events: Arc::clone(&rig.events) as _,
    });
    assert!(matches!(refused, Err(ActivateError::Setup(_))));
    assert!(rig.device.deactivate().is_empty());
}

#[test]
fn may_be_dropped_at_any_time() {
    for _ in 0..20 {
        let mut rig = Rig::new(1 << 20);
        for slot in 0..16 {
            rig.offer(slot, OUT, slot * 8, &[readable(DATA, 4096)]);
        }
        rig.queue.kick();
        let (device, memory) = (rig.device, rig.memory);
        drop(memory);
        drop(device);
    }
}

#[test]
fn growth_reaches_the_driver() {
    let mut rig = Rig::new(1 << 20);
    let handle = rig.device.handle();
    handle.refresh_size().unwrap();
    assert!(!rig.events.take_changed());
    let beyond = (1 << 20) / 512;
    assert_eq!(rig.request(IN, beyond, &[writable(DATA, 512)]).0, IO_ERROR);
    rig.file.set_len(2 << 20).unwrap();
    handle.refresh_size().unwrap();
    assert!(rig.events.take_changed());
    assert_eq!(rig.request(IN, beyond, &[writable(DATA, 512)]).0, OK);
    rig.device.deactivate();
    rig.file.set_len(3 << 20).unwrap();
    handle.refresh_size().unwrap();
    assert!(!rig.events.take_changed(), "there is no driver");
}

#[test]
fn restores_only_what_it_can_be() {
    let (_file, mut disk) = device(1 << 20, options());
    let state = disk.save();
    disk.restore(&state).unwrap();
    let (_file, mut larger) = device(2 << 20, options());
    larger.restore(&state).unwrap();
    let (_file, mut smaller) = device(1 << 19, options());
    let read_only = Options {
        read_only: true,
        ..options()
    };
    let (_file, mut read_only) = device(1 << 20, read_only);
    let queues = Options {
        queues: 2,
        ..options()
    };
    let (_file, mut queues) = device(1 << 20, queues);
    for device in [&mut smaller, &mut read_only, &mut queues] {
        let refused = device.restore(&state);
        assert!(matches!(refused, Err(RestoreError::Invalid { .. })));
    }
    let mut foreign = state.clone();
    foreign.kind = "virtio-net".to_owned();
    assert!(disk.restore(&foreign).is_err());
    let mut newer = state.clone();
    newer.version = 2;
    assert!(disk.restore(&newer).is_err());
    let mut damaged = state;
    damaged.body["queues"] = serde_json::json!(-1);
    assert!(disk.restore(&damaged).is_err());
}
