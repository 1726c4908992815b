//! Registers, enabling, and the PCI side.

use super::*;

#[test]
fn the_function() {
    let rig = Rig::new(image(SIZE).1, disk_options());
    assert_eq!(rig.config(0), [0x36, 0x1b, 0x10, 0x00]);
    assert_eq!(rig.config(9), [2, 8, 1]);
    // MSI-X with four vectors behind BAR 0, which has 64 bits and is not prefetchable.
    assert_eq!(
        rig.config(0x40),
        [0x11, 0, 3, 0x80, 0, 0x20, 0, 0, 0, 0x30, 0, 0]
    );
    assert_eq!(rig.config::<1>(0x10)[0] & 0xf, 4);
    assert_eq!(rig.config(0x3d), [0], "no wire");
    let requests = rig.function.lock().unwrap().bar_requests();
    assert_eq!(requests, [(0, 0x4000, crate::pci::BarKind::Registers64)]);
}

#[test]
fn capabilities() {
    let rig = Rig::new(image(SIZE).1, disk_options());
    let mut wide = [0; 8];
    rig.bus.read(BASE, &mut wide);
    let capabilities = u64::from_le_bytes(wide);
    assert_eq!(capabilities & 0xffff, 1023, "entries of a queue");
    assert_eq!(capabilities >> 16 & 1, 1, "in one piece");
    assert_eq!(capabilities >> 32 & 0xf, 0, "doorbells 4 bytes apart");
    assert_eq!(capabilities >> 37 & 1, 1, "the NVM command set");
    assert_eq!(capabilities >> 48, 0, "pages of 4 KiB");
    assert_eq!(rig.read(8), 0x0001_0400);
    assert_eq!((rig.read(CC), rig.read(CSTS)), (0, 0));
    rig.write(0, 7);
    rig.write(8, 7);
    rig.write(CSTS, 7);
    rig.write(0x0c, 7);
    assert_eq!(
        (rig.read(8), rig.read(CSTS), rig.read(0x0c)),
        (0x0001_0400, 0, 0)
    );
}

#[test]
fn admin_queues_are_set_before_enabling() {
    let rig = Rig::new(image(SIZE).1, disk_options());
    rig.bus.write(BASE + ASQ, &0x1_2345_6789_u64.to_le_bytes());
    assert_eq!((rig.read(ASQ), rig.read(ASQ + 4)), (0x2345_6000, 1));
    rig.write(AQA, u32::MAX);
    assert_eq!(rig.read(AQA), 0x0fff_0fff);
    // Neither bytes nor words nor what is not aligned.
    rig.bus.write(BASE + AQA, &[0]);
    rig.bus.write(BASE + AQA, &[0, 0]);
    rig.bus.write(BASE + AQA + 1, &[0; 4]);
    rig.bus.write(BASE + AQA, &[0; 8]);
    assert_eq!(rig.read(AQA), 0x0fff_0fff);
    rig.enable();
    let before = (rig.read(AQA), rig.read(ASQ), rig.read(ACQ));
    for register in [AQA, ASQ, ACQ] {
        rig.write(register, 0x7000);
    }
    assert_eq!((rig.read(AQA), rig.read(ASQ), rig.read(ACQ)), before);
    // A reset of the controller leaves them.
    rig.disable();
    assert_eq!((rig.read(AQA), rig.read(ASQ), rig.read(ACQ)), before);
}

#[test]
fn what_cannot_be_enabled_is_fatal() {
    let rig = Rig::new(image(SIZE).1, disk_options());
    let fails = |what: &str| {
        assert_eq!(rig.read(CSTS), 2, "{what}");
        rig.write(0x1000, 1);
        rig.write(CC, 0);
        rig.enable();
        assert_eq!(rig.identify(1, 0)[0], 0x36);
        rig.disable();
    };
    rig.write(CC, ENABLED);
    fails("no admin queues");
    // Another command set, page size, arbitration, sizes of entries.
    for wrong in [1 << 4, 1 << 7, 1 << 11, 1 << 16, 1 << 20] {
        rig.write(CC, ENABLED ^ wrong);
        fails("what is not offered");
    }
    for base in [MEMORY, HIGH - 0x1000, MEMORY - 0x400, u64::MAX - 0xfff] {
        for register in [ASQ, ACQ] {
            rig.write(AQA, 0x0fff_0fff);
            rig.bus.write(BASE + register, &base.to_le_bytes());
            rig.write(CC, ENABLED);
            fails("a ring that is nowhere");
        }
    }
    rig.write(AQA, 0);
    rig.write(CC, ENABLED);
    fails("rings of one entry");
    let complaints = rig.complaints.lock().unwrap();
    assert!(
        complaints
            .iter()
            .all(|complaint| complaint.starts_with("disk0: needs a reset"))
    );
}

#[test]
fn admin_queues_may_have_two_entries() {
    let rig = Rig::new(image(SIZE).1, disk_options());
    // As OVMF and SeaBIOS do, without sizes of entries, which come later.
    rig.write(AQA, 0x0001_0001);
    rig.write(ASQ, submission_ring(0) as u32);
    rig.write(ACQ, completion_ring(0) as u32);
    rig.write(CC, 1);
    assert_eq!(rig.read(CSTS), 1);
    for round in 0..5_u16 {
        let at = round % 2;
        let bytes = command(6, 0, [DATA, 0], &[1]);
        rig.put(submission_ring(0) + u64::from(at) * 64, &bytes);
        rig.write(tail_doorbell(0), u32::from(1 - at));
        let phase = u16::from(round / 2 % 2 == 0);
        rig.until("a completion", || {
            rig.get(completion_ring(0) + u64::from(at) * 16 + 14, 2) == phase.to_le_bytes()
        });
        rig.write(head_doorbell(0), u32::from(1 - at));
    }
}

#[test]
fn a_shutdown_is_told_when_everything_is_durable() {
    let (rig, _file) = ready();
    assert_eq!(rig.data(transfer(1, 0, 8, [DATA, 0])), OK);
    let before = rig.handle.statistics().totals().flushes;
    rig.write(CC, ENABLED | 1 << 14);
    rig.until("the shutdown", || rig.read(CSTS) == 1 | 2 << 2);
    assert_eq!(rig.handle.statistics().totals().flushes, before + 1);
    // Saying it again changes nothing.
    rig.write(CC, ENABLED);
    rig.write(CC, ENABLED | 2 << 14);
    assert_eq!(rig.read(CSTS), 1 | 2 << 2);
    rig.disable();
    rig.enable();
}

#[test]
fn without_bus_mastering_nothing_is_fetched() {
    let (rig, _file) = ready();
    rig.config_write(4, &[2, 0]);
    rig.fill(1, transfer(2, 0, 1, [DATA, 0]));
    rig.ring(1);
    assert_eq!(rig.poll(1), None);
    assert_eq!(rig.handle.statistics().totals().reads, 0);
    rig.config_write(4, &[6, 0]);
    rig.ring(1);
    assert_eq!(rig.reap(1).status, OK);
}
