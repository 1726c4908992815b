//! Pause, reset, save and restore.

use super::*;
use crate::state::RestoreError;

#[test]
fn a_pause_loses_nothing() {
    let mut rig = Rig::started();
    for seed in 0..100 {
        rig.put(OUTGOING, &frame(100, seed));
        let descriptor = rig.prepare(OUTGOING, 114 | END | REPORT, 0);
        rig.ring();
        {
            let mut function = rig.function.lock().unwrap();
            function.pause();
            function.pause();
            function.resume();
            function.resume();
        }
        rig.wait_done(descriptor);
        assert_eq!(rig.wire.receive(), frame(100, seed));
        rig.wire.send(&frame(200, seed));
        assert_eq!(rig.take_frame(), frame(200, seed));
    }
}

#[test]
fn packets_still_in_the_ring_are_restored() {
    let mut rig = Rig::started();
    rig.function.lock().unwrap().pause();
    rig.put(OUTGOING, &frame(100, 1));
    rig.prepare(OUTGOING, 114 | END | REPORT, 0);
    rig.ring();
    rig.write(at::ICS, 1 << 2);
    rig.write(at::IMS, 1 << 2);
    rig.write(at::MTA, 0x55);
    let saved = rig.function.lock().unwrap().save();
    let mut other = Rig::new();
    other.put(0, &rig.get(0, MEMORY as usize));
    {
        let mut function = other.function.lock().unwrap();
        function.pause();
        function.restore(&saved).unwrap();
        assert_eq!(function.save(), saved);
    }
    assert!(other.line.high());
    assert_eq!(other.read(at::MTA), 0x55);
    assert_eq!(other.read(TDH), 0);
    other.function.lock().unwrap().resume();
    assert_eq!(other.wire.receive(), frame(100, 1));
    other.driver.tail = 1;
    other.send(&frame(100, 2));
    assert_eq!(other.wire.receive(), frame(100, 2));
}

#[test]
fn half_a_packet_is_lost_and_no_more() {
    let mut rig = Rig::started();
    rig.put(OUTGOING, &frame(100, 1));
    let half = rig.prepare(OUTGOING, 50 | REPORT, 0);
    rig.ring();
    rig.wait_done(half);
    {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        let saved = function.save();
        function.restore(&saved).unwrap();
        assert_eq!(function.save(), saved);
        function.resume();
    }
    rig.prepare(OUTGOING + 50, 64 | END, 0);
    rig.send(&frame(100, 2));
    assert_eq!(rig.wire.receive(), frame(100, 2));
}

#[test]
fn reset_is_power_on() {
    let mut rig = Rig::new();
    let fresh = {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        function.reset();
        function.save()
    };
    rig.function.lock().unwrap().resume();
    rig.power_on();
    rig.start(Format::Split, PROMISCUOUS);
    rig.give_buffers(RING - 1);
    rig.send(&frame(100, 1));
    rig.write(at::IMS, u32::MAX);
    rig.write(at::MDIC, 1 << 26 | 1 << 21 | 0x0940);
    assert!(rig.line.high());
    {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        function.reset();
        assert!(!rig.line.high());
        assert_eq!(function.save(), fresh);
        function.resume();
    }
    assert_eq!(rig.read(at::STATUS), u32::MAX, "no BAR");
    rig.power_on();
    rig.works();
}

#[test]
fn restores_only_what_it_can_be() {
    let rig = Rig::started();
    let mut function = rig.function.lock().unwrap();
    function.pause();
    let saved = function.save();
    for (path, value) in [
        ("/card/mac/5", serde_json::json!(9)),
        ("/card/counters", serde_json::json!([1])),
        ("/card/phy", serde_json::json!([1])),
        ("/card/receivers", serde_json::json!([])),
        ("/card/receivers/0/head", serde_json::json!(-1)),
        ("/msix/entries", serde_json::json!([])),
        ("/config/bytes/0", serde_json::json!(0)),
    ] {
        let mut forged = saved.clone();
        *forged.body.pointer_mut(path).unwrap() = value;
        let refused = function.restore(&forged);
        assert!(
            matches!(refused, Err(RestoreError::Invalid { .. })),
            "{path}"
        );
    }
    assert_eq!(function.save(), saved, "nothing changed");
    // What no driver could have written is left out.
    let mut forged = saved.clone();
    forged.body["card"]["receivers"][0]["base"] = serde_json::json!(0x1007);
    forged.body["card"]["receivers"][0]["length"] = serde_json::json!(u32::MAX);
    forged.body["card"]["registers"] =
        serde_json::json!([[0, u32::MAX], [0x1010, 0], [u64::MAX, 1]]);
    function.restore(&forged).unwrap();
    let state = function.save();
    assert_eq!(state.body["card"]["receivers"][0]["base"], 0x1000);
    assert_eq!(state.body["card"]["receivers"][0]["length"], 0xf_ff80);
    function.restore(&saved).unwrap();
    assert_eq!(function.save(), saved);
}

#[test]
fn may_be_dropped_at_any_time() {
    for _ in 0..20 {
        let mut rig = Rig::started();
        rig.put(OUTGOING, &frame(100, 1));
        for _ in 0..RING - 1 {
            rig.prepare(OUTGOING, 114 | END, 0);
        }
        rig.ring();
        rig.wire.send(&frame(100, 1));
    }
}
