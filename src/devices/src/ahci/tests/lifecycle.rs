//! Pause, reset, save and restore.

use std::os::unix::fs::FileExt;

use super::*;
use crate::ahci::port::bits::{at, cmd};
use crate::state::RestoreError;

fn both() -> (Rig, CdromHandle) {
    let disk = Disk::new(image(1 << 20).1, disk_options());
    let cdrom = Cdrom::new(Some(image(1 << 20).1), "cd-0");
    let handle = cdrom.handle();
    let (disk, cdrom) = (Some(Drive::Disk(disk)), Some(Drive::Cdrom(cdrom)));
    (Rig::new([disk, cdrom, None, None, None, None]), handle)
}

fn copy_memory(from: &Rig, to: &Rig) {
    to.put(0, &from.get(0, MEMORY as usize));
}

#[test]
fn commands_still_issued_are_restored() {
    let (rig, _) = both();
    rig.start_port(0);
    rig.start_port(1);
    rig.write(4, 2);
    rig.function.lock().unwrap().pause();
    rig.put(DATA, &[9; 512]);
    rig.prepare(0, 3, &frame(0x35, 0, 7, 1), WRITES, &[(DATA, 512)]);
    rig.prepare(0, 4, &frame(0x25, 0, 7, 1), 0, &[(DATA + 512, 512)]);
    rig.prepare(1, 0, &frame(0xa1, 0, 0, 0), 0, &[(DATA + 1024, 512)]);
    rig.issue(0, 0x18);
    rig.issue(1, 1);
    let saved = rig.function.lock().unwrap().save();
    let (other, _) = both();
    copy_memory(&rig, &other);
    {
        let mut function = other.function.lock().unwrap();
        function.pause();
        function.restore(&saved).unwrap();
        assert_eq!(function.save(), saved);
    }
    assert_eq!(other.port(0, at::CI), 0x18);
    assert!(!other.line.high());
    other.function.lock().unwrap().resume();
    other.until("the commands", || {
        other.port(0, at::CI) | other.port(1, at::CI) == 0
    });
    assert_eq!(other.get(DATA + 512, 512), [9; 512]);
    assert_eq!(other.get(DATA + 1024, 2), [0xc0, 0x85]);
    assert!(other.line.high());
    assert_eq!(other.read(8), 3);
    // An interrupt that is pending is pending after a restore.
    let mut function = other.function.lock().unwrap();
    function.pause();
    let pending = function.save();
    function.reset();
    assert!(!other.line.high());
    function.restore(&pending).unwrap();
    assert!(other.line.high());
}

#[test]
fn a_pause_loses_nothing() {
    let (rig, _, file) = disk_rig(4 << 20);
    for round in 0..100_u64 {
        for slot in 0..32 {
            let lba = round % 4 * 32 + u64::from(slot);
            rig.put(DATA + u64::from(slot) * 512, &[round as u8; 512]);
            let piece = (DATA + u64::from(slot) * 512, 512);
            rig.prepare(0, slot, &queued_frame(0x61, slot, lba, 1), WRITES, &[piece]);
        }
        rig.set_port(0, at::SACT, u32::MAX);
        rig.issue(0, u32::MAX);
        let mut function = rig.function.lock().unwrap();
        function.pause();
        function.pause();
        function.resume();
        function.resume();
        drop(function);
        rig.until("the commands", || {
            rig.port(0, at::SACT) | rig.port(0, at::CI) == 0
        });
    }
    let mut content = vec![0; 128 * 512];
    file.read_exact_at(&mut content, 0).unwrap();
    for (lba, block) in content.chunks(512).enumerate() {
        assert_eq!(block, [96 + (lba / 32) as u8; 512], "block {lba}");
    }
}

#[test]
fn reset_is_power_on() {
    let (rig, _) = both();
    let fresh = {
        let mut function = rig.function.lock().unwrap();
        function.reset();
        function.save()
    };
    rig.power_on();
    for port in [0, 1] {
        rig.start_port(port);
    }
    rig.write(4, 2);
    rig.run(0, &frame(0xef, 0x82, 0, 0), 0, &[]);
    rig.run(0, &frame(0x25, 0, 1 << 40, 1), 0, &[(DATA, 512)]);
    for slot in 0..32 {
        rig.prepare(0, slot, &frame(0x35, 0, 0, 8), WRITES, &[(DATA, 4096)]);
    }
    rig.issue(0, u32::MAX);
    let mut function = rig.function.lock().unwrap();
    function.reset();
    assert!(!rig.line.high());
    assert_eq!(function.save(), fresh);
    drop(function);
    assert_eq!(rig.read(0x0c), u32::MAX, "no BAR");
    rig.power_on();
    rig.start_port(0);
    assert_eq!(rig.run(0, &frame(0xe7, 0, 0, 0), 0, &[]), 1);
}

#[test]
fn a_paused_controller_stays_paused_after_a_reset() {
    let (rig, _) = both();
    let mut function = rig.function.lock().unwrap();
    function.pause();
    function.reset();
    drop(function);
    rig.power_on();
    rig.start_port(0);
    rig.prepare(0, 0, &frame(0xe7, 0, 0, 0), 0, &[]);
    rig.issue(0, 1);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rig.port(0, at::CI), 1);
    rig.function.lock().unwrap().resume();
    assert_eq!(rig.finish(0, 0), 1);
}

#[test]
fn stopping_a_port_waits_for_its_commands() {
    let (rig, _, file) = disk_rig(64 << 20);
    for _ in 0..50 {
        rig.put(DATA, &[1; 4096]);
        for slot in 0..32 {
            let piece = (DATA, 1 << 20);
            rig.prepare(
                0,
                slot,
                &queued_frame(0x61, slot, u64::from(slot) * 2048, 2048),
                WRITES,
                &[piece],
            );
        }
        rig.set_port(0, at::SACT, u32::MAX);
        rig.issue(0, u32::MAX);
        rig.set_port(0, at::CMD, cmd::RECEIVE);
        assert_eq!((rig.port(0, at::CI), rig.port(0, at::SACT)), (0, 0));
        rig.until("the port to stop", || {
            rig.port(0, at::CMD) & cmd::RUNNING == 0
        });
        // Nothing reads this memory any more.
        rig.put(DATA, &[2; 4096]);
        rig.start_port(0);
        rig.run(0, &frame(0xe7, 0, 0, 0), 0, &[]);
        let mut first = [0; 4096];
        file.read_exact_at(&mut first, 0).unwrap();
        assert!(first[0] != 2 && first == [first[0]; 4096]);
    }
}

#[test]
fn a_reset_waits_for_commands_under_way() {
    let (rig, _, _file) = disk_rig(64 << 20);
    for round in 0..50 {
        for slot in 0..32 {
            let frame = queued_frame(0x61, slot, u64::from(slot) * 2048, 2048);
            rig.prepare(0, slot, &frame, WRITES, &[(DATA, 1 << 20)]);
        }
        rig.set_port(0, at::SACT, u32::MAX);
        rig.issue(0, u32::MAX);
        if round % 2 == 0 {
            rig.write(4, 1);
            rig.until("the reset", || rig.read(4) & 1 == 0);
        } else {
            // Without stopping the port first.
            rig.set_port(0, at::SCTL, 1);
            rig.set_port(0, at::SCTL, 0);
        }
        rig.until("the link", || rig.port(0, at::SSTS) == 0x123);
        rig.restart_port(0);
        assert_eq!(rig.run(0, &frame(0xec, 0, 0, 0), 0, &[(DATA, 512)]), 2);
    }
}

#[test]
fn restores_only_what_it_can_be() {
    let (rig, _) = both();
    let mut function = rig.function.lock().unwrap();
    function.pause();
    let saved = function.save();
    let invalid = |result| matches!(result, Err(RestoreError::Invalid { .. }));
    for (path, value) in [
        ("/ports", serde_json::json!([])),
        ("/drives/0", serde_json::json!(null)),
        ("/drives/2", saved.body["drives"][0].clone()),
        ("/drives/0/body/size", serde_json::json!(1_u64 << 40)),
        ("/drives/0/body/logical_block", serde_json::json!(4096)),
        ("/drives/0/body/read_only", serde_json::json!(true)),
        ("/drives/0/body/modes", serde_json::json!(7)),
        ("/ports/0/cmd", serde_json::json!(-1)),
        ("/config/bytes/0", serde_json::json!(0)),
    ] {
        let mut forged = saved.clone();
        *forged.body.pointer_mut(path).unwrap() = value;
        assert!(invalid(function.restore(&forged)), "{path}");
    }
    let mut foreign = saved.clone();
    foreign.body["drives"][0]["kind"] = serde_json::json!("virtio-blk");
    assert!(function.restore(&foreign).is_err());
    assert_eq!(function.save(), saved, "nothing changed");
    function.restore(&saved).unwrap();
}

#[test]
fn another_disc_is_noticed_after_a_restore() {
    let (rig, handle) = both();
    let saved = {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        function.save()
    };
    handle.eject(true).unwrap();
    handle.insert(image(2 << 20).1).unwrap();
    let mut function = rig.function.lock().unwrap();
    function.restore(&saved).unwrap();
    let body = &function.save().body["drives"][1]["body"];
    assert_eq!(body["flags"]["absence"], serde_json::json!(true));
    assert_eq!(body["flags"]["changed"], serde_json::json!(true));
}

#[test]
fn a_long_read_is_done_again_after_a_pause() {
    let (file, disc) = image(1 << 30);
    file.write_all_at(&[5], (1 << 30) - 1).unwrap();
    let cdrom = Cdrom::new(Some(disc), "cd-0");
    let rig = Rig::new([Some(Drive::Cdrom(cdrom)), None, None, None, None, None]);
    rig.start_port(0);
    // The first packet only hears of the reset.
    rig.run(0, &frame(0xa0, 1, 0, 0), ATAPI, &[]);
    rig.restart_port(0);
    // 128 MiB into the same 4 MiB.
    let pieces = [(DATA, 4 << 20); 32];
    rig.prepare(0, 0, &frame(0xa0, 1, 0, 0), ATAPI, &pieces);
    let first = ((1_u32 << 19) - 0xffff).to_be_bytes();
    rig.put(
        table(0, 0) + 0x40,
        &[
            0x28, 0, first[0], first[1], first[2], first[3], 0, 0xff, 0xff,
        ],
    );
    rig.issue(0, 1);
    let saved = {
        let mut function = rig.function.lock().unwrap();
        function.pause();
        function.save()
    };
    assert_eq!(saved.body["ports"][0]["issued"], 1);
    rig.function.lock().unwrap().resume();
    // Or taken back.
    rig.restart_port(0);
    rig.issue(0, 1);
    assert_eq!(rig.finish(0, 0), 1);
    assert_eq!(rig.moved(0, 0), 0xffff * 2048);
    assert_eq!(rig.get(DATA + (4 << 20) - 2049, 1), [5]);
}

#[test]
fn may_be_dropped_at_any_time() {
    for _ in 0..20 {
        let (rig, _, _file) = disk_rig(1 << 20);
        for slot in 0..32 {
            rig.prepare(
                0,
                slot,
                &queued_frame(0x61, slot, 0, 8),
                WRITES,
                &[(DATA, 4096)],
            );
        }
        rig.issue(0, u32::MAX);
        let Rig {
            function, memory, ..
        } = rig;
        drop(memory);
        drop(function);
    }
}
