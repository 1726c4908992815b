//! Commands of the admin queue.

use super::*;

#[test]
fn the_controller_says_what_it_is() {
    let (rig, _file) = ready();
    let page = rig.identify(1, 0);
    assert_eq!(&page[4..24], b"disk-0              ");
    assert_eq!(&page[24..34], b"Lodge disk");
    assert_eq!(page[63], b' ');
    assert_eq!(page[77], 9, "2 MiB at a time");
    assert_eq!(page[80..84], 0x0001_0400_u32.to_le_bytes());
    assert_eq!(page[111], 1, "an I/O controller");
    assert_eq!(page[512..514], [0x66, 0x44]);
    assert_eq!(page[516..520], [1, 0, 0, 0]);
    assert_eq!(page[525] & 1, 1, "a volatile cache");
    let name = String::from_utf8(page[768..1024].to_vec()).unwrap();
    assert!(
        name.starts_with("nqn.2014.08.org.nvmexpress:1b361af4disk-0  "),
        "{name}"
    );
    assert!(name.ends_with('\0'));
}

#[test]
fn the_namespace_says_what_it_is() {
    let (rig, _file) = ready();
    let page = rig.identify(0, 1);
    for at in [0, 8, 16] {
        assert_eq!(page[at..at + 8], (SIZE / 512).to_le_bytes());
    }
    assert_eq!(
        (page[25], page[26], page[27]),
        (0, 0, 0),
        "one format, no metadata"
    );
    assert_eq!(page[128..132], [0, 0, 9, 0]);
    assert_eq!(page[48..56], SIZE.to_le_bytes());
    assert_eq!(page[99], 0, "writable");
    assert_eq!(page[64..66], [7, 0], "written in 4 KiB");
    // No EUI-64, so that firmware finds it by a path without one.
    assert!(page[104..128].iter().all(|byte| *byte == 0));
    assert_eq!(rig.identify(2, 0)[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.identify(2, 1)[..8], [0; 8]);
    let descriptors = rig.identify(3, 1);
    assert_eq!(descriptors[..4], [3, 16, 0, 0]);
    assert_eq!(
        (descriptors[10] & 0xf0, descriptors[12] & 0xc0),
        (0x80, 0x80)
    );
    assert_eq!(descriptors[20..24], [0; 4]);
    for (which, namespace, status) in [
        (0, 0, INVALID_NAMESPACE),
        (0, 2, INVALID_NAMESPACE),
        (0, u32::MAX, INVALID_NAMESPACE),
        (2, u32::MAX, INVALID_NAMESPACE),
        (3, 0, INVALID_NAMESPACE),
        (4, 0, INVALID_FIELD),
        (0xff, 1, INVALID_FIELD),
    ] {
        let bytes = command(6, namespace, [DATA, 0], &[which]);
        assert_eq!(rig.admin(bytes), (status, 0), "{which} {namespace}");
    }
}

#[test]
fn disks_of_other_kinds_say_so() {
    let options = NvmeDiskOptions {
        read_only: true,
        serial: "01234567890123456789x".to_owned(),
        queues: 0,
    };
    let rig = Rig::new(image(SIZE).1, options);
    rig.enable();
    assert_eq!(rig.identify(0, 1)[99], 1);
    assert_eq!(&rig.identify(1, 0)[4..24], b"01234567890123456789");
    let queues = command(9, 0, [0; 2], &[7, 0]);
    assert_eq!(rig.admin(queues), (OK, 1 << 16 | 1), "OVMF wants two");
    rig.create_pair(1, 16);
    for code in [1, 8, 9] {
        assert_eq!(rig.data(transfer(code, 0, 1, [DATA, 0])), failure(0, 0x20));
    }
    assert_eq!(rig.data(transfer(2, 0, 1, [DATA, 0])), OK);
}

#[test]
fn queues_come_and_go() {
    let (file, disk) = image(SIZE);
    drop(file);
    let rig = Rig::new(disk, disk_options());
    rig.enable();
    let set = |value: u32| rig.admin(command(9, 0, [0; 2], &[7, value]));
    assert_eq!(set(0), (OK, 2 << 16 | 2));
    assert_eq!(set(7 << 16 | 7), (OK, 2 << 16 | 2));
    assert_eq!(set(0xffff), (INVALID_FIELD, 0));
    assert_eq!(set(0xffff_0000), (INVALID_FIELD, 0));
    let ring = [completion_ring(1), 0];
    let completion = |id: u32, size: u32, more: u32, ring: [u64; 2]| {
        rig.admin(command(5, 0, ring, &[id | (size - 1) << 16, more]))
            .0
    };
    for id in [0, 4, 0xffff] {
        assert_eq!(completion(id, 8, 1, ring), INVALID_QUEUE);
    }
    for size in [1, 1025, 0x1_0000] {
        assert_eq!(completion(1, size, 1, ring), failure(1, 2));
    }
    assert_eq!(completion(1, 8, 0, ring), INVALID_FIELD, "in pieces");
    assert_eq!(
        completion(1, 8, 4 << 16 | 3, ring),
        failure(1, 8),
        "no such vector"
    );
    for base in [MEMORY, HIGH - 0x1000, ring[0] + 16, u64::MAX - 0xfff] {
        assert_eq!(completion(1, 1024, 1, [base, 0]), INVALID_FIELD);
    }
    assert_eq!(completion(1, 8, 1, ring), OK);
    assert_eq!(completion(1, 8, 1, ring), INVALID_QUEUE, "there already");
    let ring = [submission_ring(1), 0];
    let submission = |id: u32, size: u32, more: u32, ring: [u64; 2]| {
        rig.admin(command(1, 0, ring, &[id | (size - 1) << 16, more]))
            .0
    };
    assert_eq!(submission(1, 8, 2 << 16 | 1, ring), failure(1, 0));
    assert_eq!(
        submission(1, 8, 1, ring),
        INVALID_QUEUE,
        "completes in the admin queue"
    );
    assert_eq!(submission(4, 8, 1 << 16 | 1, ring), INVALID_QUEUE);
    assert_eq!(submission(1, 1, 1 << 16 | 1, ring), failure(1, 2));
    assert_eq!(submission(1, 1024, 1 << 16 | 1, [MEMORY, 0]), INVALID_FIELD);
    // Two that complete in one.
    assert_eq!(submission(1, 8, 1 << 16 | 1, ring), OK);
    assert_eq!(submission(3, 8, 1 << 16 | 1, [submission_ring(3), 0]), OK);
    assert_eq!(set(0), (failure(0, 0x0c), 0), "too late");
    let delete = |code: u8, id: u32| rig.admin(command(code, 0, [0; 2], &[id])).0;
    assert_eq!(delete(4, 1), failure(1, 0x0c), "in use");
    for id in [0, 2, 9] {
        assert_eq!(delete(0, id), INVALID_QUEUE);
        assert_eq!(delete(4, id), INVALID_QUEUE);
    }
    assert_eq!(delete(0, 1), OK);
    assert_eq!(delete(4, 1), failure(1, 0x0c), "still in use");
    assert_eq!(delete(0, 3), OK);
    assert_eq!(delete(4, 1), OK);
    rig.create_pair(1, 8);
    assert_eq!(rig.data(command(0, 1, [0; 2], &[])), OK);
}

#[test]
fn features_are_kept() {
    let (rig, _file) = ready();
    let set = |id: u32, value: u32| rig.admin(command(9, 0, [0; 2], &[id, value]));
    let get = |id: u32, value: u32| rig.admin(command(10, 0, [0; 2], &[id, value]));
    assert_eq!(get(6, 0), (OK, 1));
    assert_eq!(get(7, 0), (OK, 2 << 16 | 2));
    assert_eq!(get(4, 0), (OK, 0xffff));
    for (id, value) in [
        (1, 0x0102_0304),
        (2, 0),
        (5, 9),
        (6, 0),
        (8, 0x0a0b),
        (10, 1),
        (11, 0x100),
    ] {
        assert_eq!(set(id, value), (OK, 0), "{id}");
        assert_eq!(get(id, 0), (OK, value), "{id}");
    }
    assert_eq!(set(9, 1 << 16 | 2), (OK, 0));
    assert_eq!((get(9, 2), get(9, 1)), ((OK, 1 << 16 | 2), (OK, 1)));
    assert_eq!(set(4, 1 << 20 | 7), (OK, 0));
    assert_eq!((get(4, 1 << 20), get(4, 0)), ((OK, 7), (OK, 0xffff)));
    for (id, value) in [
        (2, 1),
        (4, 2 << 20),
        (4, 1 << 16),
        (5, 1 << 16),
        (9, 4),
        (3, 0),
        (0, 0),
        (0x80, 0),
    ] {
        assert_eq!(set(id, value), (INVALID_FIELD, 0), "{id} {value:#x}");
    }
    assert_eq!(get(0xff, 0), (INVALID_FIELD, 0));
    assert_eq!(
        set(1 << 31 | 6, 1),
        (failure(1, 0x0d), 0),
        "nothing is saved"
    );
    // A reset forgets them.
    rig.disable();
    rig.enable();
    assert_eq!(get(1, 0), (OK, 0));
    assert_eq!(get(6, 0), (OK, 1));
}

#[test]
fn log_pages() {
    let (rig, _file) = ready();
    for _ in 0..3 {
        assert_eq!(rig.data(transfer(2, 0, 8, [DATA, 0])), OK);
    }
    let log = |id: u32, words: u32, offset: u32| {
        rig.put(DATA, &[0xee; 4096]);
        let command = command(2, u32::MAX, [DATA, 0], &[id | (words - 1) << 16, 0, offset]);
        (rig.admin(command).0, rig.get(DATA, 4096))
    };
    let (status, health) = log(2, 128, 0);
    assert_eq!((status, health[0], health[3]), (OK, 0, 100));
    assert_eq!((health[32], health[64]), (1, 3));
    assert_eq!(health[512], 0xee);
    assert_eq!(log(2, 1, 64).1[..5], [3, 0, 0, 0, 0xee]);
    // No more than there is.
    assert_eq!(log(2, 1024, 508).1[3..5], [0, 0xee]);
    assert_eq!(log(2, 1, 513).0, INVALID_FIELD);
    assert_eq!(log(2, 1, 2).0, INVALID_FIELD);
    assert_eq!(
        log(1, 0x1_0000, 0).1[..65]
            .iter()
            .filter(|byte| **byte == 0)
            .count(),
        64
    );
    assert_eq!(log(3, 128, 0).1[..9], [1, 0, 0, 0, 0, 0, 0, 0, b'1']);
    assert_eq!(log(4, 1024, 0).1, [0; 4096]);
    assert_eq!(log(0, 1, 0).0, failure(1, 9));
    assert_eq!(log(0xff, 1, 0).0, failure(1, 9));
}

#[test]
fn other_commands() {
    let (rig, _file) = ready();
    assert_eq!(
        rig.admin(command(8, 0, [0; 2], &[1 | 7 << 16])),
        (OK, 1),
        "not aborted"
    );
    for code in [0x03, 0x0d, 0x10, 0x11, 0x14, 0x80, 0x84, 0xc0, 0xff] {
        assert_eq!(
            rig.admin(command(code, 1, [DATA, 0], &[])),
            (INVALID_OPCODE, 0)
        );
    }
    // Fused, and with scatter-gather lists.
    for bits in [1, 2, 0x40, 0x80] {
        let mut bytes = command(6, 0, [DATA, 0], &[1]);
        bytes[1] = bits;
        assert_eq!(rig.admin(bytes), (INVALID_FIELD, 0));
        let mut bytes = transfer(2, 0, 1, [DATA, 0]);
        bytes[1] = bits;
        assert_eq!(rig.data(bytes), INVALID_FIELD);
    }
    for data in [[MEMORY, 0], [HIGH - 4096, 0], [MEMORY - 2048, HIGH - 4096]] {
        assert_eq!(rig.admin(command(6, 0, data, &[1])), (DATA_TRANSFER, 0));
    }
    assert_eq!(
        rig.admin(command(6, 0, [DATA + 2048, DATA + 1], &[1])),
        (PRP_OFFSET, 0)
    );
}

#[test]
fn events_are_told_once_and_again_after_the_log() {
    let (rig, file) = ready();
    let requests: Vec<u16> = (0..4)
        .map(|_| rig.submit(0, command(12, 0, [0; 2], &[])))
        .collect();
    assert_eq!(rig.admin(command(12, 0, [0; 2], &[])), (failure(1, 5), 0));
    // A doorbell of no queue, and before the driver has read the log, one with a value that cannot be.
    rig.write(tail_doorbell(3), 1);
    let told = rig.reap(0);
    assert_eq!(
        (told.id, told.status, told.result),
        (requests[0], OK, 1 << 16)
    );
    rig.write(tail_doorbell(1), 64);
    rig.write(head_doorbell(1), 0xffff);
    assert_eq!(rig.admin(command(8, 0, [0; 2], &[])), (OK, 1));
    let log = |id: u32| {
        rig.submit(0, command(2, 0, [DATA, 0], &[id]));
        let completion = rig.reap(0);
        assert_eq!(completion.status, OK);
        rig.get(DATA, 4)
    };
    log(1);
    let told = rig.reap(0);
    assert_eq!((told.id, told.result), (requests[1], 1 << 8 | 1 << 16));
    // A disk that grew, of which the driver does not want to hear, and does.
    file.set_len(2 * SIZE).unwrap();
    assert_eq!(rig.handle.refresh_size().unwrap(), 2 * SIZE);
    assert_eq!(rig.admin(command(8, 0, [0; 2], &[])), (OK, 1));
    assert_eq!(rig.admin(command(9, 0, [0; 2], &[11, 0x100])), (OK, 0));
    assert_eq!(rig.poll(0), None);
    file.set_len(3 * SIZE).unwrap();
    rig.handle.refresh_size().unwrap();
    let told = rig.reap(0);
    assert_eq!((told.id, told.result), (requests[2], 2 | 4 << 16));
    assert_eq!(log(4), [1, 0, 0, 0]);
    assert_eq!(log(4), [0; 4]);
    assert_eq!(rig.identify(0, 1)[..8], (3 * SIZE / 512).to_le_bytes());
    rig.handle.refresh_size().unwrap();
    assert_eq!(rig.poll(0), None, "the same size is no event");
}
