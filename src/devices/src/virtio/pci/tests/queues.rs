use super::*;

#[test]
fn keeps_queue_registers_frozen_outside_set_up() {
    let rig = rig();
    let snapshot = |rig: &Rig| {
        (0..2)
            .map(|number| {
                rig.put16(0x16, number);
                rig.get::<8>(0x18)
                    .into_iter()
                    .chain(rig.get::<8>(0x20))
                    .chain(rig.get::<8>(0x28))
                    .chain(rig.get::<8>(0x30))
                    .collect::<Vec<u8>>()
            })
            .collect::<Vec<_>>()
    };
    let scribble = |rig: &Rig| {
        for number in [0, 1, 2, 0xffff] {
            rig.queue(number, 64, 2, [0x5000, 0x6000, 0x7000]);
            for offset in 0x18..0x38 {
                for width in [1, 2, 4, 8] {
                    rig.put(offset, &[0x11; 8][..width]);
                }
            }
        }
    };
    // Before negotiation.
    for status in [0, 1, 3] {
        rig.set_status(status);
        let before = snapshot(&rig);
        scribble(&rig);
        assert_eq!(snapshot(&rig), before, "status {status}");
    }
    rig.set_status(0);
    rig.start();
    let before = snapshot(&rig);
    scribble(&rig);
    assert_eq!(snapshot(&rig), before, "running");
    assert_eq!(rig.queue_state(0), (true, 128, 0x1000, true));
    // A driver that gave up.
    rig.set_status(0);
    rig.negotiate(VERSION_1);
    assert_eq!(rig.set_status(0x8b), 0x8b);
    let before = snapshot(&rig);
    scribble(&rig);
    assert_eq!(snapshot(&rig), before, "failed");
}

#[test]
fn an_enabled_queue_takes_only_a_vector() {
    let rig = rig();
    rig.negotiate(VERSION_1);
    rig.queue(1, 8, 0xffff, [0x1000, 0x2000, 0x3000]);
    rig.queue(1, 16, 2, [0x4000, 0x5000, 0x6000]);
    rig.put16(0x1c, 0);
    assert_eq!(
        (rig.get16(0x18), rig.get16(0x1a), rig.get16(0x1c)),
        (8, 2, 1)
    );
    assert_eq!(rig.get(0x20), 0x1000_u64.to_le_bytes());
}

#[test]
fn takes_sizes_and_vectors_that_exist() {
    let rig = rig();
    rig.negotiate(VERSION_1);
    rig.put16(0x16, 1);
    for (written, expected) in [
        (8, 8),
        (0, 8),
        (32, 8),
        (3, 8),
        (0x8000, 8),
        (1, 1),
        (16, 16),
    ] {
        rig.put16(0x18, written);
        assert_eq!(rig.get16(0x18), expected, "{written}");
    }
    for register in [0x10, 0x1a] {
        for (written, expected) in [
            (2, 2),
            (3, 0xffff),
            (0, 0),
            (0x7ff, 0xffff),
            (1, 1),
            (0xffff, 0xffff),
        ] {
            rig.put16(register, written);
            assert_eq!(rig.get16(register), expected, "{written}");
        }
    }
    // Queues that do not exist.
    for number in [2, 255, 256, 0x8000, 0xffff] {
        rig.put16(0x16, number);
        rig.put16(0x1a, 1);
        rig.put16(0x1c, 1);
        rig.put16(0x18, 8);
        assert_eq!(
            (rig.get16(0x18), rig.get16(0x1a), rig.get16(0x1c)),
            (0, 0xffff, 0)
        );
    }
    // 64-bit fields in halves, whole, and not otherwise.
    rig.put16(0x16, 0);
    rig.put(0x28, &[1, 2, 3, 4, 5, 6, 7, 8]);
    rig.put(0x2c, &[0, 0, 0, 0]);
    rig.put(0x2a, &[9, 9, 9, 9]);
    rig.put(0x2c, &[9; 8]);
    rig.put(0x28, &[9, 9]);
    assert_eq!(rig.get(0x28), [1, 2, 3, 4, 0, 0, 0, 0]);
}

#[test]
fn rings_outside_memory_need_a_reset() {
    for rings in [
        [0x10_0000, 0x2000, 0x3000],
        [0xf_f810, 0x2000, 0x3000],
        [0x1000, 0xf_fffe, 0x3000],
        [0x1000, 0x2000, u64::MAX - 3],
        [u64::MAX - 0xf, 0x2000, 0x3000],
        [0x1001, 0x2000, 0x3000],
        [0x1000, 0x2001, 0x3000],
        [0x1000, 0x2000, 0x3002],
        [0, 0x2000, 0x3000],
        [0x1000, 0, 0x3000],
        [0x1000, 0x2000, 0],
    ] {
        let rig = rig();
        rig.open_msix();
        rig.put16(0x10, 0);
        rig.negotiate(VERSION_1);
        rig.queue(0, 128, 1, rings);
        assert_eq!(rig.set_status(15), 0x4f, "{rings:x?}");
        assert!(!rig.active());
        assert_eq!((rig.sent()[0], rig.get(ISR)), (1, [2]));
        // Doorbells of a device that does not listen ring nothing.
        rig.put16(NOTIFY, 0);
        assert_eq!(rig.set_status(0), 0);
        rig.start();
        assert!(rig.active());
    }
}
