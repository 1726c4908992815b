//! Commands of a disk.

use std::os::unix::fs::FileExt;

use super::*;
use crate::ahci::port::bits::at;

const SIZE: u64 = 4 << 20;

fn word(identity: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([identity[2 * at], identity[2 * at + 1]])
}

fn text(identity: &[u8], at: usize, words: usize) -> String {
    let bytes = (at..at + words).flat_map(|at| word(identity, at).to_be_bytes());
    String::from_utf8(bytes.collect()).unwrap()
}

fn identify(rig: &Rig) -> Vec<u8> {
    let events = rig.run(0, &frame(0xec, 0, 0, 0), 0, &[(DATA, 512)]);
    assert_eq!(events, 2, "ends with a PIO setup frame");
    assert_eq!(rig.moved(0, 0), 512);
    rig.get(DATA, 512)
}

#[test]
fn identifies_itself() {
    let (rig, _, _file) = disk_rig(SIZE);
    let identity = identify(&rig);
    let setup = rig.received(0, 0x20, 20);
    assert_eq!(setup[..3], [0x5f, 0x60, 0x58]);
    assert_eq!((setup[15], &setup[16..18]), (0x50, &[0, 2][..]));
    assert_eq!(text(&identity, 10, 10).trim_end(), "disk-0");
    assert_eq!(text(&identity, 27, 20).trim_end(), "Lodge disk");
    assert_eq!(word(&identity, 60), 8192);
    assert_eq!(word(&identity, 100), 8192);
    assert_eq!(word(&identity, 75), 31);
    assert_eq!(word(&identity, 106), 0x6003, "4 KiB physical blocks");
    assert_eq!(word(&identity, 169), 1, "trims");
    let sum = identity
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(sum, 0);
    assert_eq!(rig.task(0), (0x50, 0));
}

#[test]
fn reads_and_writes_in_every_way() {
    let (rig, handle, file) = disk_rig(SIZE);
    let mut lba = 8;
    // Code to write and to read; with 48-bit addresses.
    for (write, read) in [
        (0xca, 0xc8),
        (0x35, 0x25),
        (0x30, 0x20),
        (0x34, 0x24),
        (0x3d, 0x25),
        (0xc5, 0xc4),
        (0x39, 0x29),
        (0xce, 0x29),
    ] {
        rig.run(0, &frame(0xc6, 0, 0, 8), 0, &[]);
        let bytes: Vec<u8> = (0..3 * 512).map(|at| (at as u8) ^ write).collect();
        rig.put(DATA, &bytes);
        // Odd pieces, across the page.
        let pieces = [(DATA, 1000), (DATA + 1000, 2), (DATA + 1002, 534)];
        let events = rig.run(0, &frame(write, 0, lba, 3), WRITES, &pieces);
        assert_eq!(events & !2, 1, "{write:#x}");
        assert_eq!(rig.moved(0, 0), 1536);
        let mut content = vec![0; 1536];
        file.read_exact_at(&mut content, lba * 512).unwrap();
        assert!(content == bytes, "{write:#x}");
        let pieces = [(DATA + 0x1_0000, 2), (DATA + 0x1_0002, 4 << 20)];
        let events = rig.run(0, &frame(read, 0, lba, 3), 0, &pieces);
        assert!(matches!(events, 1 | 2), "{read:#x}: {events:#x}");
        assert_eq!(rig.moved(0, 0), 1536);
        assert!(rig.get(DATA + 0x1_0000, 1536) == bytes, "{read:#x}");
        lba += 3;
    }
    let Totals {
        reads,
        writes,
        flushes,
        errors,
        ..
    } = handle.statistics().totals();
    assert_eq!((reads, writes, flushes, errors), (8, 8, 2, 0));
}

#[test]
fn the_largest_transfer() {
    let (rig, _, file) = disk_rig(64 << 20);
    file.write_all_at(&[7], (32 << 20) + 512 - 1).unwrap();
    // 65536 blocks into the same 4 MiB over and over.
    let pieces = [(DATA, 4 << 20); 8];
    let events = rig.run(0, &frame(0x25, 0, 1, 0), 0, &pieces);
    assert_eq!(events, 1);
    assert_eq!(rig.moved(0, 0), 32 << 20);
    assert_eq!(rig.get(DATA + (4 << 20) - 1, 1), [7]);
}

#[test]
fn queued_commands() {
    let (rig, handle, file) = disk_rig(SIZE);
    for slot in 0..32 {
        let (address, lba) = (DATA + u64::from(slot) * 4096, u64::from(slot) * 8);
        rig.put(address, &[slot as u8 + 1; 4096]);
        let frame = queued_frame(0x61, slot, lba, 8);
        rig.prepare(0, slot, &frame, WRITES, &[(address, 4096)]);
    }
    let events = rig.run_queued(0, u32::MAX);
    assert_eq!(events, 8, "set device bits");
    assert_eq!(rig.port(0, at::CI), 0);
    let bits = rig.received(0, 0x58, 4);
    assert_eq!(bits, [0xa1, 0x40, 0x50, 0]);
    for slot in 0..32 {
        let (address, lba) = (DATA + u64::from(slot) * 4096, u64::from(31 - slot) * 8);
        rig.prepare(
            0,
            slot,
            &queued_frame(0x60, slot, lba, 8),
            0,
            &[(address, 4096)],
        );
    }
    rig.run_queued(0, u32::MAX);
    for slot in 0..32_u32 {
        let byte = 32 - slot as u8;
        let address = DATA + u64::from(slot) * 4096;
        assert!(rig.get(address, 4096) == [byte; 4096], "slot {slot}");
    }
    // Past the cache.
    let mut through = queued_frame(0x61, 3, 0, 8);
    through[7] |= 0x80;
    rig.prepare(0, 3, &through, WRITES, &[(DATA, 4096)]);
    rig.run_queued(0, 1 << 3);
    assert_eq!(handle.statistics().totals().flushes, 1);
    let mut content = vec![0; 4096];
    file.read_exact_at(&mut content, 8 * 512).unwrap();
    assert!(content == [2; 4096]);
}

#[test]
fn a_queued_command_that_fails() {
    let (rig, _, _file) = disk_rig(SIZE);
    rig.prepare(0, 5, &queued_frame(0x60, 5, 8192, 1), 0, &[(DATA, 512)]);
    let events = rig.run_queued(0, 1 << 5);
    assert_eq!(events, TASK_FILE_ERROR | 8);
    assert_eq!(rig.port(0, at::SACT), 1 << 5);
    assert_eq!(rig.task(0), (0x51, 0x10));
    // Nothing goes on before the port is restarted.
    rig.prepare(0, 0, &frame(0xec, 0, 0, 0), 0, &[(DATA, 512)]);
    rig.issue(0, 1);
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(rig.port(0, at::CI), 1);
    rig.restart_port(0);
    assert_eq!(rig.port(0, at::SACT), 0);
    let events = rig.run(0, &frame(0x2f, 0, 0x10, 1), 0, &[(DATA, 512)]);
    assert_eq!(events, 2);
    let page = rig.get(DATA, 512);
    assert_eq!(page[..4], [5, 0, 0x51, 0x10]);
    assert_eq!(page[4..7], [0, 0x20, 0]);
    let sum = page.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(sum, 0);
    rig.run(0, &frame(0x2f, 0, 0, 1), 0, &[(DATA, 512)]);
    assert_eq!(rig.get(DATA, 2), [1, 0]);
    assert_eq!(rig.get(DATA + 32, 2), [1, 0]);
    // A tag that is not its slot's.
    rig.prepare(0, 1, &queued_frame(0x60, 2, 0, 1), 0, &[(DATA, 512)]);
    assert_eq!(rig.run_queued(0, 2), TASK_FILE_ERROR | 8);
}

#[test]
fn refuses_what_it_should() {
    let (rig, handle, _file) = disk_rig(SIZE);
    let one = [(DATA, 512)];
    for (frame, expected) in [
        // Behind the end.
        (frame(0x25, 0, 8192, 1), 0x10),
        (frame(0x25, 0, 8191, 2), 0x10),
        (frame(0x25, 0, 0xffff_ffff_ffff, 0), 0x10),
        (frame(0xc8, 0, 0xff_ffff, 1), 0x10),
        (frame(0x42, 0, 8192, 1), 0x10),
        // Unknown, or not for disks.
        (frame(0x00, 0, 0, 0), 4),
        (frame(0xa0, 0, 0, 0), 4),
        (frame(0xa1, 0, 0, 0), 4),
        (frame(0xb0, 0xd0, 0xc2_4f00, 0), 4),
        (frame(0xff, 0, 0, 0), 4),
        // READ MULTIPLE before it was set up.
        (frame(0xc4, 0, 0, 1), 4),
        (frame(0xc6, 0, 0, 3), 4),
        (frame(0xc6, 0, 0, 32), 4),
        (frame(0xef, 0x10, 0, 2), 4),
        (frame(0x06, 0, 0, 1), 4),
        (frame(0x06, 1, 0, 9), 4),
        (frame(0x2f, 0, 0x30, 1), 4),
    ] {
        let events = rig.run(0, &frame, 0, &one);
        assert_eq!(events, TASK_FILE_ERROR | 1, "{frame:x?}");
        assert_eq!(rig.task(0), (0x51, expected), "{frame:x?}");
        assert_eq!(rig.port(0, at::CI), 1, "stays, so that it is found");
        assert_eq!(rig.port(0, at::CMD) >> 8 & 0x1f, 0);
        rig.restart_port(0);
    }
    // Cylinders, heads and sectors.
    let mut old = frame(0xc8, 0, 1, 1);
    old[7] = 0;
    assert_eq!(rig.run(0, &old, 0, &one), TASK_FILE_ERROR | 1);
    rig.restart_port(0);
    assert_eq!(handle.statistics().totals().errors, 18);
    assert_eq!(rig.run(0, &frame(0xc8, 0, 0, 1), 0, &one), 1);
}

#[test]
fn takes_what_it_should() {
    let (rig, handle, _file) = disk_rig(SIZE);
    for code in [
        0xe0, 0xe1, 0xe2, 0xe3, 0xe6, 0xe7, 0xea, 0x10, 0x91, 0x70, 0x40, 0x42, 0x90,
    ] {
        assert_eq!(rig.run(0, &frame(code, 0, 1, 1), 0, &[]), 1, "{code:#x}");
        assert_eq!(rig.task(0).0, 0x50);
    }
    assert_eq!(handle.statistics().totals().flushes, 2);
    rig.run(0, &frame(0xe5, 0, 0, 0), 0, &[]);
    assert_eq!(rig.received(0, 0x4c, 1), [0xff], "active");
    rig.run(0, &frame(0x27, 0, 0, 0), 0, &[]);
    assert_eq!(rig.received(0, 0x44, 3), [0xff, 0x1f, 0]);
    rig.run(0, &frame(0xf8, 0, 0, 0), 0, &[]);
    assert_eq!(rig.received(0, 0x44, 3), [0xff, 0x1f, 0]);
    // Without the cache, every write is durable.
    assert_eq!(word(&identify(&rig), 85) & 0x20, 0x20);
    rig.run(0, &frame(0xef, 0x82, 0, 0), 0, &[]);
    assert_eq!(word(&identify(&rig), 85) & 0x20, 0);
    rig.run(0, &frame(0x35, 0, 0, 1), WRITES, &[(DATA, 512)]);
    assert_eq!(handle.statistics().totals().flushes, 3);
    rig.run(0, &frame(0xef, 0x02, 0, 0), 0, &[]);
    rig.run(0, &frame(0xef, 0x03, 0, 0x46), 0, &[]);
    rig.run(0, &frame(0xc6, 0, 0, 16), 0, &[]);
    assert_eq!(word(&identify(&rig), 59), 0x0110);
}

#[test]
fn trims() {
    let (rig, handle, file) = disk_rig(SIZE);
    file.write_all_at(&[1; 64 * 1024], 0).unwrap();
    let mut ranges = vec![0; 1024];
    for (at, block, count) in [(0, 8_u64, 8_u64), (9, 64, 16), (127, 0, 8)] {
        ranges[at * 8..at * 8 + 8].copy_from_slice(&(block | count << 48).to_le_bytes());
    }
    rig.put(DATA, &ranges);
    let events = rig.run(0, &frame(0x06, 1, 0, 2), WRITES, &[(DATA, 1024)]);
    assert_eq!(events, 1);
    let mut content = vec![0; 64 * 1024];
    file.read_exact_at(&mut content, 0).unwrap();
    for (block, bytes) in content.chunks(512).enumerate() {
        let trimmed = block < 16 || (64..80).contains(&block);
        assert_eq!(bytes, [u8::from(!trimmed); 512], "block {block}");
    }
    assert_eq!(handle.statistics().totals().discards, 3);
    assert_eq!(handle.statistics().totals().discard_bytes, 32 * 512);
    // None, and one behind the end.
    rig.put(DATA, &[0; 512]);
    assert_eq!(rig.run(0, &frame(0x06, 1, 0, 1), WRITES, &[(DATA, 512)]), 1);
    rig.put(DATA, &(8190 | 3_u64 << 48).to_le_bytes());
    let events = rig.run(0, &frame(0x06, 1, 0, 1), WRITES, &[(DATA, 512)]);
    assert_eq!(events, TASK_FILE_ERROR | 1);
}

#[test]
fn read_only_disks_are_not_written() {
    let (file, disk) = image(SIZE);
    let options = DiskOptions {
        read_only: true,
        ..disk_options()
    };
    let disk = Disk::new(disk, options);
    let rig = Rig::new([Some(Drive::Disk(disk)), None, None, None, None, None]);
    rig.start_port(0);
    rig.put(DATA, &[1; 512]);
    let events = rig.run(0, &frame(0x35, 0, 0, 1), WRITES, &[(DATA, 512)]);
    assert_eq!(events, TASK_FILE_ERROR | 1);
    rig.restart_port(0);
    assert_eq!(word(&identify(&rig), 169), 0);
    let mut content = [0; 512];
    file.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(content, [0; 512]);
}

#[test]
fn errors_of_the_host_reach_both_sides() {
    let (rig, handle, file) = disk_rig(SIZE);
    file.set_len(SIZE / 2).unwrap();
    let events = rig.run(0, &frame(0x25, 0, 8000, 8), 0, &[(DATA, 4096)]);
    assert_eq!(events, TASK_FILE_ERROR | 1);
    assert_eq!(rig.task(0), (0x51, 0x40));
    assert_eq!(handle.statistics().totals().errors, 1);
    let complaints = rig.complaints.lock().unwrap().clone();
    assert_eq!(complaints.len(), 1);
    assert!(
        complaints[0].starts_with("sata port 0: command 0x25"),
        "{complaints:?}"
    );
    rig.restart_port(0);
    file.set_len(2 * SIZE).unwrap();
    assert_eq!(handle.refresh_size().unwrap(), 2 * SIZE);
    assert_eq!(word(&identify(&rig), 60), 16384);
    assert_eq!(rig.run(0, &frame(0x25, 0, 8192, 8), 0, &[(DATA, 4096)]), 1);
}

#[test]
fn firmware_sets_sact_for_everything() {
    // SeaBIOS does, and only looks at the events.
    let (rig, _, _file) = disk_rig(SIZE);
    for _ in 0..3 {
        rig.set_port(0, at::SACT, 1);
        let events = rig.run(0, &frame(0xc8, 0, 0, 1), 0, &[(DATA, 512)]);
        assert_eq!(events, 1);
        assert_eq!(rig.received(0, 0x42, 2), [0x50, 0]);
    }
}
