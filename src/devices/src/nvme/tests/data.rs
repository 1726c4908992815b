//! Commands on the namespace.

use std::os::unix::fs::FileExt;

use super::*;

/// Bits of doubleword 12.
const FORCE_ACCESS: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;

fn content(file: &File, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

#[test]
fn reads_and_writes() {
    let (rig, file) = ready();
    rig.put(DATA, &[7; 512]);
    assert_eq!(rig.data(transfer(1, 5, 1, [DATA, 0])), OK);
    assert_eq!(content(&file, 5 * 512, 512), [7; 512]);
    assert_eq!(content(&file, 6 * 512, 1), [0]);
    file.write_all_at(&[9; 1024], SIZE - 1024).unwrap();
    let last = SIZE / 512 - 2;
    assert_eq!(rig.data(transfer(2, last, 2, [DATA + 0x1000, 0])), OK);
    assert_eq!(rig.get(DATA + 0x1000, 1025)[1023..], [9, 0]);
    let totals = rig.handle.statistics().totals();
    assert_eq!((totals.reads, totals.read_bytes), (1, 1024));
    assert_eq!((totals.writes, totals.write_bytes), (1, 512));
    assert_eq!(totals.errors, 0);
}

#[test]
fn completions_say_where_they_come_from() {
    let (rig, _file) = ready();
    let id = rig.submit(2, transfer(2, 0, 1, [DATA, 0]));
    let expected = Completion {
        result: 0,
        head: 1,
        queue: 2,
        id,
        status: OK,
    };
    assert_eq!(rig.reap(2), expected);
    rig.until("the interrupt", || rig.interrupts(2) == 1);
    assert_eq!(rig.interrupts(1), 0);
    assert!(rig.interrupts(0) > 0);
}

#[test]
fn blocks_that_do_not_exist() {
    let (rig, _file) = ready();
    let blocks = SIZE / 512;
    for (first, count) in [
        (blocks, 1),
        (blocks - 1, 2),
        (0, 0x1_0000),
        (u64::MAX, 1),
        (u64::MAX - 1, 0x1_0000),
        (1 << 55, 8),
    ] {
        assert_eq!(rig.data(transfer(8, first, count, [0; 2])), OUT_OF_RANGE);
        if count <= 4096 {
            for code in [1, 2] {
                assert_eq!(
                    rig.data(transfer(code, first, count, [DATA, 0])),
                    OUT_OF_RANGE
                );
            }
        }
    }
    // More than the controller moves at a time.
    for code in [1, 2] {
        assert_eq!(rig.data(transfer(code, 0, 4097, [DATA, 0])), INVALID_FIELD);
    }
    for namespace in [0, 2, u32::MAX] {
        for code in [1, 2, 8, 9] {
            let bytes = command(code, namespace, [DATA, 0], &[0; 3]);
            assert_eq!(rig.data(bytes), INVALID_NAMESPACE);
        }
    }
    for code in [4, 5, 0x0c, 0x0d, 0x7f, 0x80, 0xff] {
        assert_eq!(rig.data(command(code, 1, [DATA, 0], &[])), INVALID_OPCODE);
    }
    let totals = rig.handle.statistics().totals();
    assert_eq!((totals.reads, totals.writes, totals.discards), (0, 0, 0));
}

#[test]
fn flushes() {
    let (rig, _file) = ready();
    let flushes = || rig.handle.statistics().totals().flushes;
    assert_eq!(rig.data(command(0, 1, [0; 2], &[])), OK);
    assert_eq!(rig.data(command(0, u32::MAX, [0; 2], &[])), OK);
    assert_eq!(flushes(), 2);
    assert_eq!(rig.data(command(0, 2, [0; 2], &[])), INVALID_NAMESPACE);
    // Past the cache.
    let mut bytes = transfer(1, 0, 1, [DATA, 0]);
    assert_eq!(rig.data(bytes), OK);
    assert_eq!(flushes(), 2);
    bytes[48..52].copy_from_slice(&FORCE_ACCESS.to_le_bytes());
    assert_eq!(rig.data(bytes), OK);
    assert_eq!(flushes(), 3);
    bytes[0] = 8;
    assert_eq!(rig.data(bytes), OK);
    assert_eq!(flushes(), 4);
    // Without a cache, all are.
    assert_eq!(rig.admin(command(9, 0, [0; 2], &[6, 0])), (OK, 0));
    assert_eq!(rig.data(transfer(1, 0, 1, [DATA, 0])), OK);
    assert_eq!(rig.data(transfer(8, 0, 1, [0; 2])), OK);
    assert_eq!(flushes(), 6);
    assert_eq!(rig.data(transfer(2, 0, 1, [DATA, 0])), OK);
    assert_eq!(flushes(), 6);
}

#[test]
fn zeroes() {
    let (rig, file) = ready();
    for more in [0, DEALLOCATE] {
        file.write_all_at(&[5; 65536], 0).unwrap();
        let bytes = command(8, 1, [0; 2], &[8, 0, 103 | more]);
        assert_eq!(rig.data(bytes), OK);
        let whole = content(&file, 0, 65536);
        let zeroed = 8 * 512..(8 + 104) * 512;
        for (at, byte) in whole.iter().enumerate() {
            assert_eq!(*byte == 0, zeroed.contains(&at), "{at}");
        }
    }
    let totals = rig.handle.statistics().totals();
    assert_eq!((totals.discards, totals.discard_bytes), (2, 2 * 104 * 512));
}

/// The ranges of a dataset management command: first block and number of blocks.
fn ranges(list: &[(u64, u32)]) -> Vec<u8> {
    let range = |(first, count): &(u64, u32)| {
        let mut bytes = vec![0xff; 16];
        bytes[4..8].copy_from_slice(&count.to_le_bytes());
        bytes[8..].copy_from_slice(&first.to_le_bytes());
        bytes
    };
    list.iter().flat_map(range).collect()
}

#[test]
fn deallocates() {
    let (rig, file) = ready();
    file.write_all_at(&[5; SIZE as usize], 0).unwrap();
    let run = |list: &[(u64, u32)], attributes: u32| {
        rig.put(DATA, &ranges(list));
        rig.data(command(
            9,
            1,
            [DATA, 0],
            &[list.len() as u32 - 1, attributes],
        ))
    };
    assert_eq!(run(&[(0, 8)], 3), OK);
    assert_eq!(content(&file, 0, 4096), [5; 4096], "only hints");
    assert_eq!(run(&[(8, 8), (100, 0), (64, 16), (1024, 1)], 4), OK);
    for (first, count) in [(8, 8), (64, 16), (1024, 1)] {
        assert!(
            content(&file, first * 512, count * 512)
                .iter()
                .all(|byte| *byte == 0)
        );
    }
    for first in [0, 7, 16, 63, 80, 100, 1023, 1025] {
        assert_eq!(content(&file, first * 512, 512), [5; 512], "{first}");
    }
    assert_eq!(rig.handle.statistics().totals().discards, 3);
    // One that is not there spoils all.
    assert_eq!(run(&[(0, 8), (SIZE / 512, 1)], 4), OUT_OF_RANGE);
    assert_eq!(run(&[(u64::MAX, u32::MAX)], 4), OUT_OF_RANGE);
    assert_eq!(content(&file, 0, 512), [5; 512]);
    assert_eq!(run(&[(0, 1); 256], 4), OK);
    let nowhere = command(9, 1, [MEMORY, 0], &[0, 4]);
    assert_eq!(rig.data(nowhere), DATA_TRANSFER);
}

#[test]
fn a_cut_image_is_a_bad_disk() {
    let (rig, file) = ready();
    file.set_len(SIZE / 2).unwrap();
    assert_eq!(
        rig.data(transfer(2, SIZE / 512 - 8, 8, [DATA, 0])),
        2 << 8 | 0x81
    );
    assert_eq!(rig.handle.statistics().totals().errors, 1);
    assert_eq!(rig.complaints.lock().unwrap().len(), 1);
    assert_eq!(rig.data(transfer(2, 0, 8, [DATA, 0])), OK);
}

#[test]
fn many_commands_on_all_queues() {
    let (rig, file) = ready();
    rig.create_pair(3, 1024);
    let each = 300_u64;
    for number in 0..each {
        for queue in 1..=3_u16 {
            let block = u64::from(queue) * 1000 + number;
            let data = DATA + block * 512;
            rig.put(data, &(block as u32 + 1).to_le_bytes());
            rig.submit(queue, transfer(1, block, 1, [data, 0]));
            // Short rings must not overflow.
            if queue != 3 {
                assert_eq!(rig.reap(queue).status, OK);
            }
        }
    }
    for _ in 0..each {
        assert_eq!(rig.reap(3).status, OK);
    }
    for queue in 1..=3_u64 {
        for number in 0..each {
            let block = queue * 1000 + number;
            assert_eq!(
                content(&file, block * 512, 4),
                (block as u32 + 1).to_le_bytes()
            );
        }
    }
    assert_eq!(rig.handle.statistics().totals().writes, 3 * each);
}

#[test]
fn a_full_completion_queue_waits_for_its_driver() {
    let (rig, _file) = ready();
    rig.create_pair(3, 4);
    let heads = rig.driver.lock().unwrap().pairs[&3];
    assert_eq!(heads.size, 4);
    // Two submission queues of 64 entries complete in one of four.
    for queue in [1, 2] {
        assert_eq!(rig.admin(command(0, 0, [0; 2], &[queue])).0, OK);
        let words = [queue | 63 << 16, 3 << 16 | 1];
        let ring = [submission_ring(queue as u16), 0];
        assert_eq!(rig.admin(command(1, 0, ring, &words)).0, OK);
        rig.driver
            .lock()
            .unwrap()
            .pairs
            .get_mut(&(queue as u16))
            .unwrap()
            .tail = 0;
    }
    let mut expected: Vec<u16> = Vec::new();
    for _ in 0..60 {
        for queue in [1, 2] {
            expected.push(rig.fill(queue, command(0, 1, [0; 2], &[])));
        }
    }
    rig.ring(1);
    rig.ring(2);
    let mut found: Vec<u16> = (0..expected.len()).map(|_| rig.reap(3).id).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(rig.poll(3), None);
}
