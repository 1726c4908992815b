//! Pause, reset, save and restore.

use std::os::unix::fs::FileExt;

use super::*;
use crate::state::RestoreError;

fn copy_to(from: &Rig, to: &Rig) {
    to.put(0, &from.get(0, MEMORY as usize));
    *to.driver.lock().unwrap() = from.driver.lock().unwrap().clone();
}

#[test]
fn a_pause_loses_nothing() {
    let (rig, file) = ready();
    for round in 0..60_u64 {
        for block in 0..60 {
            let data = DATA + block * 512;
            rig.put(data, &[round as u8; 512]);
            rig.fill(1, transfer(1, block, 1, [data, 0]));
        }
        rig.ring(1);
        {
            let mut function = rig.function.lock().unwrap();
            function.pause();
            function.pause();
            function.resume();
            function.resume();
        }
        for _ in 0..60 {
            assert_eq!(rig.reap(1).status, OK);
        }
    }
    let mut content = vec![0; 60 * 512];
    file.read_exact_at(&mut content, 0).unwrap();
    assert!(content.iter().all(|byte| *byte == 59));
}

#[test]
fn everything_is_saved_and_restored() {
    let (rig, _file) = ready();
    rig.create_pair(3, 4);
    rig.submit(0, command(12, 0, [0; 2], &[]));
    assert_eq!(rig.admin(command(9, 0, [0; 2], &[6, 0])), (OK, 0));
    for _ in 0..70 {
        assert_eq!(rig.data(transfer(2, 0, 1, [DATA, 0])), OK);
    }
    // More than its completion queue has room for.
    let filled: Vec<u16> = (0..3)
        .map(|_| rig.fill(3, command(0, 1, [0; 2], &[])))
        .collect();
    rig.ring(3);
    rig.until("completions", || {
        rig.handle.statistics().totals().flushes >= 3
    });
    let more: Vec<u16> = (0..3)
        .map(|_| rig.fill(3, transfer(2, 0, 1, [DATA, 0])))
        .collect();
    rig.ring(3);
    let saved = {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        function.save()
    };
    let other = Rig::new(image(SIZE).1, disk_options());
    copy_to(&rig, &other);
    {
        let mut function = other.function.lock().unwrap();
        function.pause();
        function.restore(&saved).unwrap();
        assert_eq!(function.save(), saved);
        function.resume();
    }
    assert_eq!(other.read(CSTS), 1);
    assert_eq!(other.read(CC), ENABLED);
    // In whatever order.
    let mut expected = filled;
    expected.extend(more);
    let mut found = Vec::new();
    for _ in &expected {
        let completion = other.reap(3);
        assert_eq!(completion.status, OK);
        found.push(completion.id);
    }
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(other.admin(command(10, 0, [0; 2], &[6])), (OK, 0));
    assert_eq!(other.data(transfer(1, 0, 1, [DATA, 0])), OK);
    assert!(other.interrupts(3) > 0 && other.interrupts(1) > 0);
    // The request for events is still there.
    other.write(tail_doorbell(1), 0xffff);
    assert_eq!(other.reap(0).result, 1 << 8 | 1 << 16);
}

#[test]
fn reset_is_power_on() {
    let fresh = {
        let rig = Rig::new(image(SIZE).1, disk_options());
        let mut function = rig.function.lock().unwrap();
        function.reset();
        function.save()
    };
    let (rig, _file) = ready();
    assert_eq!(rig.admin(command(9, 0, [0; 2], &[6, 0])), (OK, 0));
    for _ in 0..60 {
        rig.fill(1, transfer(1, 0, 8, [DATA, 0]));
    }
    rig.ring(1);
    rig.function.lock().unwrap().reset();
    assert_eq!(rig.function.lock().unwrap().save(), fresh);
    assert_eq!(rig.read(CSTS), u32::MAX, "no BAR");
    rig.power_on();
    rig.enable();
    rig.create_pair(1, 64);
    assert_eq!(rig.data(transfer(2, 0, 1, [DATA, 0])), OK);
}

#[test]
fn a_reset_in_the_middle_leaves_memory_alone() {
    let (rig, file) = ready();
    for round in 0..40_u8 {
        rig.put(DATA, &[1; 4096]);
        let list: Vec<u8> = (0..512).flat_map(|_| DATA.to_le_bytes()).collect();
        rig.put(LISTS, &list);
        for command in 0..60 {
            rig.fill(1, transfer(1, command % 2 * 4096, 4096, [DATA, LISTS]));
        }
        rig.ring(1);
        if round % 2 == 0 {
            rig.disable();
        } else {
            assert_eq!(rig.admin(command(0, 0, [0; 2], &[1])), (OK, 0));
            rig.disable();
        }
        // Nothing reads this memory any more, nor writes completions.
        rig.put(DATA, &[2; 4096]);
        let ring = rig.get(completion_ring(1), 0x400);
        rig.enable();
        rig.create_pair(2, 8);
        assert_eq!(rig.run(2, command(0, 1, [0; 2], &[])), (OK, 0));
        assert_eq!(rig.get(completion_ring(1), 0x400), ring);
        let mut first = [0; 4096];
        file.read_exact_at(&mut first, 0).unwrap();
        assert!(first[0] != 2 && first == [first[0]; 4096]);
        assert_eq!(rig.admin(command(0, 0, [0; 2], &[2])), (OK, 0));
        assert_eq!(rig.admin(command(4, 0, [0; 2], &[2])), (OK, 0));
        rig.create_pair(1, 64);
    }
}

#[test]
fn a_paused_controller_stays_paused_after_a_reset() {
    let (rig, _file) = ready();
    rig.function.lock().unwrap().pause();
    rig.function.lock().unwrap().reset();
    rig.power_on();
    rig.enable();
    rig.fill(0, command(6, 0, [DATA, 0], &[1]));
    rig.ring(0);
    assert_eq!(rig.poll(0), None);
    rig.function.lock().unwrap().resume();
    rig.ring(0);
    assert_eq!(rig.reap(0).status, OK);
}

#[test]
fn restores_only_what_it_can_be() {
    let (rig, _file) = ready();
    let mut function = rig.function.lock().unwrap();
    function.pause();
    let saved = function.save();
    let invalid = |result| matches!(result, Err(RestoreError::Invalid { .. }));
    for (path, value) in [
        ("/disk/size", serde_json::json!(1_u64 << 40)),
        ("/disk/logical_block", serde_json::json!(4096)),
        ("/disk/read_only", serde_json::json!(true)),
        ("/disk/queues", serde_json::json!(2)),
        ("/registers/configuration", serde_json::json!(0)),
        ("/config/bytes/0", serde_json::json!(0)),
        ("/msix/entries", serde_json::json!([])),
        ("/session/submission", serde_json::json!([])),
        ("/session/completion", serde_json::json!([])),
        ("/session/submission/0/id", serde_json::json!(1)),
        ("/session/submission/2/id", serde_json::json!(1)),
        ("/session/submission/2/id", serde_json::json!(9)),
        ("/session/submission/1/base", serde_json::json!(MEMORY)),
        ("/session/submission/1/base", serde_json::json!(8)),
        ("/session/submission/1/size", serde_json::json!(0)),
        ("/session/submission/1/size", serde_json::json!(2048)),
        ("/session/submission/1/head", serde_json::json!(64)),
        ("/session/submission/1/tail", serde_json::json!(64)),
        ("/session/submission/1/completion", serde_json::json!(3)),
        ("/session/submission/1/completion", serde_json::json!(0)),
        ("/session/submission/0/completion", serde_json::json!(1)),
        ("/session/completion/1/size", serde_json::json!(1)),
        ("/session/completion/1/tail", serde_json::json!(64)),
        ("/session/completion/1/head", serde_json::json!(64)),
        ("/session/completion/1/vector", serde_json::json!(4)),
        (
            "/session/events/requests",
            serde_json::json!([1, 2, 3, 4, 5]),
        ),
        (
            "/session/shadow",
            serde_json::json!({"doorbells": 4096, "events": MEMORY}),
        ),
        (
            "/session/shadow",
            serde_json::json!({"doorbells": 8, "events": 4096}),
        ),
    ] {
        let mut forged = saved.clone();
        *forged.body.pointer_mut(path).unwrap() = value;
        assert!(invalid(function.restore(&forged)), "{path}");
    }
    let mut many = saved.clone();
    let done = serde_json::json!({"id": 1, "status": 0, "result": 0});
    many.body["session"]["submission"][1]["done"] = vec![done; 193].into();
    assert!(invalid(function.restore(&many)));
    assert_eq!(function.save(), saved, "nothing changed");
    function.restore(&saved).unwrap();
}

#[test]
fn a_shutdown_goes_on_after_a_restore() {
    let (rig, _file) = ready();
    let saved = {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        drop(function);
        rig.write(CC, ENABLED | 1 << 14);
        rig.function.lock().unwrap().save()
    };
    let other = Rig::new(image(SIZE).1, disk_options());
    copy_to(&rig, &other);
    {
        let mut function = other.function.lock().unwrap();
        function.pause();
        function.restore(&saved).unwrap();
        assert_eq!(function.save(), saved);
        function.resume();
    }
    other.until("the shutdown", || other.read(CSTS) == 1 | 2 << 2);
    assert_eq!(other.handle.statistics().totals().flushes, 1);
}

#[test]
fn may_be_dropped_at_any_time() {
    for _ in 0..20 {
        let (rig, _file) = ready();
        for _ in 0..60 {
            rig.fill(1, transfer(1, 0, 8, [DATA, 0]));
        }
        rig.ring(1);
        let Rig {
            function, memory, ..
        } = rig;
        drop(memory);
        drop(function);
    }
}
