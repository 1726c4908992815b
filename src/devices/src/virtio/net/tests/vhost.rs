//! The same through vhost-net, on hosts that have it.

use std::fs::OpenOptions;

use super::*;

/// A device served by the kernel; `None` where the host cannot.
fn rig(features: u64) -> Option<Rig> {
    let Ok(vhost) = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/vhost-net")
    else {
        println!("skipped: no /dev/vhost-net here");
        return None;
    };
    let (tap, wire) = wire();
    let vhost = Some(vhost.into());
    Some(Rig::on(tap, vhost, wire, features, &no_prologue()))
}

#[test]
fn the_kernel_sends_and_receives() {
    let Some(mut rig) = rig(!0) else { return };
    for seed in 0..100 {
        rig.send(&frame(100, seed));
        rig.transmit.wait_used();
        assert_eq!(rig.wire.receive(), frame(100, seed));
    }
    rig.post(64, 128);
    for seed in 0..100 {
        rig.wire.send(&frame(1400, seed));
        let (received, buffers) = rig.take_frame(128);
        assert_eq!((received, buffers), (frame(1400, seed), 12));
    }
}

#[test]
fn a_pause_of_the_kernel_loses_nothing() {
    let Some(mut rig) = rig(!0) else { return };
    rig.post(32, 2048);
    for seed in 0..100 {
        rig.send(&frame(100, seed));
        let mut queues = rig.device.deactivate();
        let transmit = queues.pop().unwrap();
        let receive = queues.pop().unwrap();
        assert_eq!(transmit.next_avail(), transmit.next_used());
        assert_eq!(receive.next_avail(), receive.next_used());
        let transmit = rig.transmit.activation(transmit);
        let _ = transmit.kick.read();
        let queues = [rig.receive.activation(receive), transmit];
        rig.activate(!0, queues);
        rig.transmit.wait_used();
        assert_eq!(rig.wire.receive(), frame(100, seed));
        rig.wire.send(&frame(500, seed));
        assert_eq!(rig.take_frame(2048).0, frame(500, seed));
    }
}

#[test]
fn the_kernel_takes_any_subset_of_features() {
    let without_merging = !(1 << abi::VIRTIO_NET_F_MRG_RXBUF);
    for features in [without_merging, !EVENT_IDX, without_merging & !EVENT_IDX] {
        let Some(mut rig) = rig(features) else { return };
        rig.post(16, 4096);
        rig.send(&frame(100, 1));
        rig.transmit.wait_used();
        assert_eq!(rig.wire.receive(), frame(100, 1));
        rig.wire.send(&frame(1200, 2));
        assert_eq!(rig.take_frame(4096), (frame(1200, 2), 1));
    }
}
