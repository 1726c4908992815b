//! Each kind of request, right and wrong.

use std::os::unix::fs::FileExt;

use super::*;

#[test]
fn reads_and_writes() {
    let mut rig = Rig::new(1 << 20);
    let pattern: Vec<u8> = (0..8192_u32).map(|at| (at ^ (at >> 8)) as u8).collect();
    rig.put(DATA, &pattern);
    let halves = [readable(DATA, 4096), readable(DATA + 4096, 4096)];
    assert_eq!(rig.request(OUT, 16, &halves), (OK, 1));
    assert_eq!(rig.request(FLUSH, 0, &[]), (OK, 1));
    let mut on_disk = vec![0; 8192];
    rig.file.read_exact_at(&mut on_disk, 16 * 512).unwrap();
    assert_eq!(on_disk, pattern);

    let (status, written) = rig.request(IN, 17, &[writable(DATA + 0x8000, 1024)]);
    assert_eq!((status, written), (OK, 1025));
    assert_eq!(rig.get(DATA + 0x8000, 1024), pattern[512..1536]);

    let totals = rig.totals();
    assert_eq!((totals.reads, totals.read_bytes), (1, 1024));
    assert_eq!((totals.writes, totals.write_bytes), (1, 8192));
    assert_eq!((totals.flushes, totals.errors), (1, 0));
}

#[test]
fn takes_any_framing() {
    // Drivers may split and join descriptors as they like (virtio 1.2, 2.7.4).
    let mut rig = Rig::new(1 << 20);
    rig.put(DATA, &[7; 512]);
    rig.put(HEADERS, &OUT.to_le_bytes());
    rig.put(HEADERS + 8, &3_u64.to_le_bytes());
    let split = [
        readable(HEADERS, 5),
        readable(HEADERS + 5, 11),
        readable(DATA, 100),
        readable(DATA + 100, 412),
        writable(HEADERS + 16, 1),
    ];
    rig.queue.offer(&split).unwrap();
    // Header and data in one descriptor; data and status in one.
    rig.put(DATA + 0x1000, &OUT.to_le_bytes());
    rig.put(DATA + 0x1000 + 8, &4_u64.to_le_bytes());
    rig.put(DATA + 0x1010, &[8; 512]);
    let joined = [readable(DATA + 0x1000, 528), writable(HEADERS + 48, 1)];
    rig.queue.offer(&joined).unwrap();
    rig.queue.kick();
    for _ in 0..2 {
        assert_eq!(rig.queue.wait_used().1, 1);
    }
    rig.put(HEADERS, &IN.to_le_bytes());
    let read = [readable(HEADERS, 16), writable(DATA + 0x2000, 1025)];
    rig.queue.offer(&read).unwrap();
    rig.queue.kick();
    assert_eq!(rig.queue.wait_used().1, 1025);
    let content = rig.get(DATA + 0x2000, 1025);
    assert_eq!(content[..512], [7; 512]);
    assert_eq!(content[512..1024], [8; 512]);
    assert_eq!(content[1024], OK);
}

#[test]
fn tells_its_serial_number() {
    let mut rig = Rig::new(512);
    rig.put(DATA, &[0xff; 64]);
    let answer = rig.request(GET_ID, 0, &[writable(DATA, 20)]);
    assert_eq!(answer, (OK, 21));
    assert_eq!(rig.get(DATA, 20), *b"disk-0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    // Less room than it takes, and more.
    assert_eq!(rig.request(GET_ID, 0, &[writable(DATA, 4)]), (OK, 5));
    assert_eq!(rig.request(GET_ID, 0, &[writable(DATA, 64)]), (OK, 21));
    assert_eq!(rig.request(GET_ID, 0, &[]).0, IO_ERROR);
    assert_eq!(
        config::serial("a serial number too long")[..],
        *b"a serial number too "
    );
}

#[test]
fn refuses_what_is_not_on_the_disk() {
    let mut rig = Rig::new(1 << 20);
    let last = (1 << 20) / 512 - 1;
    for (sector, length) in [
        (last + 1, 512),
        (last, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (u64::MAX / 512 + 1, 512),
        (0, 511),
        (0, 513),
    ] {
        let what = format!("sector {sector}, {length} bytes");
        let read = rig.request(IN, sector, &[writable(DATA, length)]);
        assert_eq!(read, (IO_ERROR, 1), "{what}");
        let write = rig.request(OUT, sector, &[readable(DATA, length)]);
        assert_eq!(write, (IO_ERROR, 1), "{what}");
    }
    // No data, or data the wrong way.
    for kind in [IN, OUT] {
        assert_eq!(rig.request(kind, 0, &[]).0, IO_ERROR);
        let both = [readable(DATA, 512), writable(DATA + 512, 512)];
        assert_eq!(rig.request(kind, 0, &both).0, IO_ERROR);
    }
    assert_eq!(rig.request(IN, 0, &[readable(DATA, 512)]).0, IO_ERROR);
    assert_eq!(rig.request(OUT, 0, &[writable(DATA, 512)]).0, IO_ERROR);
    assert_eq!(rig.request(IN, last, &[writable(DATA, 512)]).0, OK);
    assert_eq!(rig.totals().errors, 20);
    assert!(!rig.events.broken());
}

#[test]
fn does_not_know_other_kinds() {
    let mut rig = Rig::new(1 << 20);
    // SCSI pass-through, get-lifetime, secure erase, zone commands, nonsense.
    for kind in [2, 3, 10, 14, 15, 18, 0x8000_0000, u32::MAX] {
        let data = [writable(DATA, 512)];
        assert_eq!(rig.request(kind, 0, &data), (UNSUPPORTED, 1), "{kind}");
    }
}

#[test]
fn a_read_only_disk_takes_no_writes() {
    let read_only = Options {
        read_only: true,
        ..options()
    };
    let mut rig = Rig::with(1 << 20, read_only, 16);
    let offered = rig.device.features();
    assert_ne!(offered & 1 << abi::VIRTIO_BLK_F_RO, 0);
    assert_eq!(offered & 1 << abi::VIRTIO_BLK_F_DISCARD, 0);
    assert_eq!(offered & 1 << abi::VIRTIO_BLK_F_WRITE_ZEROES, 0);
    rig.put(DATA, &[1; 512]);
    let write = rig.request(OUT, 0, &[readable(DATA, 512)]);
    assert_eq!(write, (IO_ERROR, 1));
    let discard = rig.request(DISCARD, 0, &[readable(DATA, 16)]);
    assert_eq!(discard.0, UNSUPPORTED);
    assert_eq!(rig.request(IN, 0, &[writable(DATA, 512)]).0, OK);
    assert_eq!(rig.get(DATA, 512), [0; 512]);
    assert_eq!(rig.request(FLUSH, 0, &[]).0, OK);
}

/// One request with the given range descriptors.
fn range_request(rig: &mut Rig, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
    let mut bytes = Vec::new();
    for (sector, sectors, flags) in ranges {
        bytes.extend(sector.to_le_bytes());
        bytes.extend(sectors.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
    }
    rig.put(DATA, &bytes);
    let length = bytes.len() as u32;
    rig.request(kind, 0, &[readable(DATA, length)]).0
}

#[test]
fn discards_and_zeroes() {
    let mut rig = Rig::new(8 << 20);
    rig.file.write_all_at(&vec![1; 8 << 20], 0).unwrap();
    assert_eq!(range_request(&mut rig, WRITE_ZEROES, &[(1, 3, 0)]), OK);
    assert_eq!(range_request(&mut rig, WRITE_ZEROES, &[(9, 1, 1)]), OK);
    // 4 MiB, aligned for any filesystem: the space must be gone.
    assert_eq!(range_request(&mut rig, DISCARD, &[(8192, 8192, 0)]), OK);
    let mut sectors = [0; 12 * 512];
    rig.file.read_exact_at(&mut sectors, 0).unwrap();
    let zero: Vec<bool> = sectors
        .chunks(512)
        .map(|sector| sector.iter().all(|byte| *byte == 0))
        .collect();
    let expected = [0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0].map(|zero| zero == 1);
    assert_eq!(zero, expected);
    let allocated = lodge_block::datastore::file_info(&rig.file).unwrap();
    assert!(allocated.allocated < 6 << 20, "{allocated:?}");
    let totals = rig.totals();
    assert_eq!((totals.discards, totals.discard_bytes), (3, 8196 * 512));
}

#[test]
fn refuses_bad_ranges() {
    let mut rig = Rig::new(1 << 20);
    rig.file.write_all_at(&[1; 1 << 20], 0).unwrap();
    for kind in [DISCARD, WRITE_ZEROES] {
        for ranges in [
            &[][..],
            &[(0, 1, 0), (1, 1, 0)],
            &[(0, 0, 0)],
            &[(2047, 2, 0)],
            &[(u64::MAX, 1, 0)],
            &[(u64::MAX / 512, u32::MAX, 0)],
            &[(0, u32::MAX, 0)],
        ] {
            let status = range_request(&mut rig, kind, ranges);
            assert_eq!(status, IO_ERROR, "{kind} {ranges:?}");
        }
        let status = range_request(&mut rig, kind, &[(0, 1, 2)]);
        assert_eq!(status, UNSUPPORTED);
    }
    // Unmap is a flag of zeroing only.
    assert_eq!(range_request(&mut rig, DISCARD, &[(0, 1, 1)]), UNSUPPORTED);
    let mut content = vec![0; 1 << 20];
    rig.file.read_exact_at(&mut content, 0).unwrap();
    assert!(content.iter().all(|byte| *byte == 1));
}

#[test]
fn features_not_accepted_are_not_there() {
    let mut rig = Rig::idle(1 << 20, options(), 16);
    let queue = rig.queue.device_side();
    rig.activate_with(0, vec![queue]);
    assert_eq!(range_request(&mut rig, DISCARD, &[(0, 1, 0)]), UNSUPPORTED);
    let status = range_request(&mut rig, WRITE_ZEROES, &[(0, 1, 0)]);
    assert_eq!(status, UNSUPPORTED);
    assert_eq!(rig.request(IN, 0, &[writable(DATA, 512)]).0, OK);
}

#[test]
fn a_cut_file_is_an_io_error() {
    let mut rig = Rig::new(1 << 20);
    rig.file.set_len(4096).unwrap();
    assert_eq!(rig.request(IN, 64, &[writable(DATA, 512)]), (IO_ERROR, 1));
    assert_eq!(rig.request(IN, 0, &[writable(DATA, 512)]).0, OK);
    let failures = rig.events.failures();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("(Read)"), "{failures:?}");
}

#[test]
fn more_requests_than_the_engine_holds_wait_their_turn() {
    let mut rig = Rig::with(1 << 20, options(), 256);
    for slot in 0..256_u64 {
        let address = DATA + slot * 512;
        rig.put(address, &[slot as u8; 512]);
        let chain = rig.chain(slot, OUT, slot, &[readable(address, 512)]);
        rig.queue
            .offer_indirect(TABLES + slot * 64, &chain)
            .unwrap();
    }
    // One kick for all of them.
    rig.queue.kick();
    for _ in 0..256 {
        assert_eq!(rig.queue.wait_used().1, 1);
    }
    let mut content = vec![0; 256 * 512];
    rig.file.read_exact_at(&mut content, 0).unwrap();
    for (slot, sector) in content.chunks(512).enumerate() {
        assert_eq!(rig.status(slot as u64), OK);
        assert_eq!(sector, [slot as u8; 512]);
    }
}

#[test]
fn shows_its_configuration() {
    let mut four = options();
    four.queues = 9;
    let (file, device) = device(1 << 20, four);
    assert_eq!(device.queue_sizes(), [256; 4], "brought into the range");
    assert_ne!(device.features() & 1 << abi::VIRTIO_BLK_F_MQ, 0);
    let field = |offset: u64, length: usize| {
        let mut data = [0; 8];
        device.read_config(offset, &mut data[..length]);
        u64::from_le_bytes(data)
    };
    assert_eq!(field(0, 8), 2048);
    assert_eq!(field(12, 4), 254, "seg_max");
    assert_eq!(field(20, 4), 512, "blk_size");
    assert_eq!(field(24, 1), 3, "physical_block_exp");
    assert_eq!(field(34, 2), 4, "num_queues");
    assert_eq!(field(40, 4), 1, "max_discard_seg");
    assert_eq!(field(56, 1), 1, "write_zeroes_may_unmap");
    for offset in [60, 61, 4096, u64::MAX - 1, u64::MAX] {
        assert_eq!(field(offset, 8), 0);
    }
    assert_eq!(field(56, 8), 1, "the end does not wrap");
    // A driver reads the size in two halves, of which the first may be old: the transport's
    // generation counter covers that.
    file.set_len(2 << 20).unwrap();
    assert_eq!(device.handle().refresh_size().unwrap(), 2 << 20);
    assert_eq!(field(0, 8), 4096);
}
