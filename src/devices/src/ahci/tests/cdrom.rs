//! Packets of a CD-ROM drive.

use std::os::unix::fs::FileExt;

use super::*;
use crate::ahci::port::bits::at;

const PORT: u64 = 1;
const UNIT_ATTENTION: (u8, u8) = (0x51, 0x64);
const NOT_READY: (u8, u8) = (0x51, 0x24);
const ILLEGAL: (u8, u8) = (0x51, 0x54);

/// A disc of `size` bytes, each block of which begins with its number.
fn disc(size: u64) -> (File, RawDisk) {
    let (file, disc) = image(size);
    for block in 0..size.div_ceil(2048) {
        file.write_all_at(&(block as u32 + 1).to_le_bytes(), block * 2048)
            .unwrap();
    }
    (file, disc)
}

struct Cd {
    rig: Rig,
    handle: CdromHandle,
}

/// A drive whose driver has heard of the reset.
fn cd(disc: Option<RawDisk>) -> Cd {
    let cdrom = Cdrom::new(disc, "cd-0");
    let handle = cdrom.handle();
    let rig = Rig::new([None, Some(Drive::Cdrom(cdrom)), None, None, None, None]);
    rig.start_port(PORT);
    let cd = Cd { rig, handle };
    assert_eq!(cd.fail(&[0]), UNIT_ATTENTION);
    assert_eq!(cd.sense(), [6, 0x29, 0]);
    cd
}

impl Cd {
    fn packet(&self, packet: &[u8], dma: bool, pieces: &[Piece]) -> u32 {
        self.prepare(packet, dma, pieces);
        self.rig.issue(PORT, 1);
        self.rig.finish(PORT, 0)
    }

    fn prepare(&self, packet: &[u8], dma: bool, pieces: &[Piece]) {
        // A byte count limit of 2048.
        let frame = frame(0xa0, u16::from(dma), 0x08_0000, 0);
        self.rig.prepare(PORT, 0, &frame, ATAPI, pieces);
        let mut bytes = [0; 16];
        bytes[..packet.len()].copy_from_slice(packet);
        self.rig.put(table(PORT, 0) + 0x40, &bytes);
    }

    /// What a packet answers.
    fn ask(&self, packet: &[u8]) -> Vec<u8> {
        let events = self.packet(packet, true, &[(DATA, 0x1_0000)]);
        assert_eq!(events, 1, "{packet:x?}");
        assert_eq!(self.rig.task(PORT), (0x50, 0));
        let length = self.rig.moved(PORT, 0);
        self.rig.get(DATA, length as usize)
    }

    /// The registers after a packet that fails.
    fn fail(&self, packet: &[u8]) -> (u8, u8) {
        let events = self.packet(packet, true, &[(DATA, 0x1_0000)]);
        assert_eq!(events, TASK_FILE_ERROR | 1, "{packet:x?}");
        let task = self.rig.task(PORT);
        self.rig.restart_port(PORT);
        task
    }

    /// Key, code and qualifier.
    fn sense(&self) -> [u8; 3] {
        let sense = self.ask(&[3, 0, 0, 0, 18, 0]);
        assert_eq!((sense[0], sense.len()), (0x70, 18));
        [sense[2], sense[12], sense[13]]
    }

    fn read(&self, first: u32, count: u16) -> Vec<u8> {
        let [a, b, c, d] = first.to_be_bytes();
        let [high, low] = count.to_be_bytes();
        self.ask(&[0x28, 0, a, b, c, d, 0, high, low, 0])
    }

    fn event(&self) -> (u8, u8) {
        let bytes = self.ask(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0]);
        assert_eq!(bytes[..4], [0, 6, 4, 0x10]);
        (bytes[4], bytes[5])
    }
}

#[test]
fn identifies_itself() {
    let cd = cd(None);
    let events = cd.rig.run(PORT, &frame(0xa1, 0, 0, 0), 0, &[(DATA, 512)]);
    assert_eq!(events, 2);
    let identity = cd.rig.get(DATA, 512);
    assert_eq!(identity[..2], [0xc0, 0x85]);
    assert_eq!(&identity[54..66], b"oLgd eDCR-MO");
    let inquiry = cd.ask(&[0x12, 0, 0, 0, 36, 0]);
    assert_eq!((inquiry[0], inquiry[1], inquiry.len()), (5, 0x80, 36));
    assert_eq!(cd.ask(&[0x12, 0, 0, 0, 5, 0]).len(), 5);
    assert_eq!(cd.fail(&[0x12, 1, 0, 0, 36, 0]), ILLEGAL);
    // As a disk it shows what it is.
    let events = cd.rig.run(PORT, &frame(0xec, 0, 0, 0), 0, &[(DATA, 512)]);
    assert_eq!(events, TASK_FILE_ERROR | 1);
    assert_eq!(cd.rig.received(PORT, 0x44, 3), [1, 0x14, 0xeb]);
    cd.rig.restart_port(PORT);
    for code in [0x08, 0x90, 0xe0, 0xe5, 0xe7] {
        assert_eq!(cd.rig.run(PORT, &frame(code, 0, 0, 0), 0, &[]), 1);
    }
    for code in [0x25, 0x35, 0xc8, 0x60] {
        let events = cd.rig.run(PORT, &frame(code, 0, 0, 0), 0, &[(DATA, 512)]);
        assert_eq!(events & TASK_FILE_ERROR, TASK_FILE_ERROR, "{code:#x}");
        cd.rig.restart_port(PORT);
    }
}

#[test]
fn reads_discs() {
    // Three and a quarter blocks.
    let (_file, disc) = disc(3 * 2048 + 512);
    let cd = cd(Some(disc));
    assert_eq!(cd.ask(&[0]), [0; 0]);
    assert_eq!(cd.ask(&[0x25]), [0, 0, 0, 3, 0, 0, 8, 0]);
    let blocks = cd.read(1, 3);
    assert_eq!(blocks.len(), 3 * 2048);
    for (at, block) in blocks.chunks(2048).enumerate() {
        assert_eq!(block[..4], (at as u32 + 2).to_le_bytes());
    }
    assert!(blocks[2 * 2048 + 512..].iter().all(|byte| *byte == 0));
    let twelve = cd.ask(&[0xa8, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0]);
    assert_eq!((twelve.len(), twelve[0]), (2048, 3));
    assert!(cd.read(4, 0).is_empty());
    assert_eq!(cd.fail(&[0x28, 0, 0, 0, 0, 4, 0, 0, 1, 0]), ILLEGAL);
    assert_eq!(cd.sense(), [5, 0x21, 0]);
    assert_eq!(cd.sense(), [0, 0, 0], "told once");
    let all = [0xa8, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0];
    assert_eq!(cd.fail(&all), ILLEGAL);
    let totals = cd.handle.statistics().totals();
    assert_eq!((totals.reads, totals.read_bytes), (2, 4 * 2048));
    assert_eq!(totals.errors, 2);
}

#[test]
fn pio_as_firmware_uses_it() {
    let (_file, disc) = disc(1 << 20);
    let cd = cd(Some(disc));
    let read = [0x28, 0, 0, 0, 0, 5, 0, 0, 2, 0];
    let events = cd.packet(&read, false, &[(DATA, 4096)]);
    assert_eq!(events, 3, "setup and register frames");
    assert_eq!(cd.rig.moved(PORT, 0), 4096);
    assert_eq!(cd.rig.get(DATA + 2048, 1), [7]);
    let setup = cd.rig.received(PORT, 0x20, 20);
    assert_eq!((setup[2], &setup[16..18]), (0x58, &[0, 8][..]));
    let register = cd.rig.received(PORT, 0x40, 20);
    assert_eq!((register[2], register[12]), (0x50, 3));
    // No data, no setup frame.
    assert_eq!(cd.packet(&[0], false, &[]), 1);
    // Less room than data.
    let events = cd.packet(&read, true, &[(DATA, 2048)]);
    assert_eq!(events, 1 | OVERFLOW);
    assert_eq!(cd.rig.moved(PORT, 0), 2048);
}

#[test]
fn a_read_larger_than_a_buffer() {
    let (_file, disc) = disc(1 << 20);
    let cd = cd(Some(disc));
    let all = cd.packet(&[0x28, 0, 0, 0, 0, 0, 0, 2, 0, 0], true, &[(DATA, 1 << 20)]);
    assert_eq!(all, 1);
    let bytes = cd.rig.get(DATA, 1 << 20);
    for (at, block) in bytes.chunks(2048).enumerate() {
        assert_eq!(block[..4], (at as u32 + 1).to_le_bytes());
    }
}

#[test]
fn tables_of_contents() {
    let (_file, disc) = disc(150 * 2048);
    let cd = cd(Some(disc));
    let toc = |msf: u8, format: u8, first: u8| {
        cd.ask(&[0x43, msf << 1, format, 0, 0, 0, first, 0x10, 0, 0])
    };
    let lba = [
        0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 0, 150,
    ];
    assert_eq!(toc(0, 0, 0), lba);
    assert_eq!(toc(0, 0, 1), lba);
    let msf = toc(1, 0, 0);
    assert_eq!(
        (&msf[8..12], &msf[16..20]),
        (&[0, 0, 2, 0][..], &[0, 0, 4, 0][..])
    );
    assert_eq!(
        toc(0, 0, 0xaa),
        [0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 0, 0, 150]
    );
    assert_eq!(toc(0, 1, 0), [0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0]);
    let raw = toc(1, 2, 0);
    assert_eq!((raw.len(), raw[1]), (4 + 4 * 11, 46));
    let points: Vec<u8> = raw[4..].chunks(11).map(|entry| entry[3]).collect();
    assert_eq!(points, [0xa0, 0xa1, 0xa2, 1]);
    assert_eq!(raw[4 + 22 + 8..4 + 33], [0, 4, 0]);
    // The format as ATAPI had it.
    assert_eq!(cd.ask(&[0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x40])[1], 10);
    assert_eq!(cd.ask(&[0x43, 0, 0, 0, 0, 0, 0, 0, 4, 0]), [0, 18, 1, 1]);
    assert_eq!(cd.fail(&[0x43, 0, 0, 0, 0, 0, 2, 0, 12, 0]), ILLEGAL);
    assert_eq!(cd.fail(&[0x43, 0, 5, 0, 0, 0, 0, 0, 12, 0]), ILLEGAL);
}

#[test]
fn abilities() {
    let (_file, medium) = disc(1 << 20);
    let cd = cd(Some(medium));
    let features = cd.ask(&[0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(features[..4], (features.len() as u32 - 4).to_be_bytes());
    assert_eq!(features[6..8], [0, 8], "a CD");
    let one = cd.ask(&[0x46, 2, 0, 3, 0, 0, 0, 1, 0, 0]);
    assert_eq!(one[8..], [0, 3, 3, 4, 0x39, 0, 0, 0]);
    let page = cd.ask(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!((page[1], page[8], page[9], page.len()), (26, 0x2a, 18, 28));
    assert_eq!(cd.ask(&[0x1a, 0, 0x2a, 0, 255, 0]).len(), 24);
    let all = cd.ask(&[0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!((all[8], all[16], all[28]), (1, 0x1a, 0x2a));
    let changeable = cd.ask(&[0x5a, 0, 0x6a, 0, 0, 0, 0, 1, 0, 0]);
    assert!(changeable[10..].iter().all(|byte| *byte == 0));
    assert_eq!(cd.fail(&[0x5a, 0, 0xea, 0, 0, 0, 0, 1, 0, 0]), ILLEGAL);
    assert_eq!(cd.sense(), [5, 0x39, 0]);
    assert_eq!(cd.fail(&[0x5a, 0, 0x05, 0, 0, 0, 0, 1, 0, 0]), ILLEGAL);
    let information = cd.ask(&[0x51, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!((information.len(), information[1]), (34, 32));
    let track = cd.ask(&[0x52, 1, 0, 0, 0, 1, 0, 0, 36, 0]);
    assert_eq!(track[24..28], 512_u32.to_be_bytes());
    assert_eq!(cd.fail(&[0x52, 1, 0, 0, 0, 2, 0, 0, 36, 0]), ILLEGAL);
    assert_eq!(cd.ask(&[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]).len(), 8);
    for packet in [&[0x2a_u8][..], &[0x55], &[0xff], &[0x42]] {
        assert_eq!(cd.fail(packet), ILLEGAL);
        assert_eq!(cd.sense(), [5, 0x20, 0]);
    }
    // A DVD.
    let (file, large) = image(1 << 30);
    drop(file);
    cd.handle.eject(false).unwrap();
    cd.handle.insert(large).unwrap();
    assert_eq!(cd.fail(&[0]), NOT_READY);
    assert_eq!(cd.fail(&[0]), UNIT_ATTENTION);
    let features = cd.ask(&[0x46, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(features[6..8], [0, 0x10]);
    let toc = cd.ask(&[0x43, 2, 0, 0, 0, 0, 0, 0, 20, 0]);
    assert_eq!(toc[16..20], [0, 116, 32, 38]);
}

#[test]
fn discs_come_and_go() {
    let cd = cd(None);
    assert_eq!(cd.fail(&[0]), NOT_READY);
    assert_eq!(cd.sense(), [2, 0x3a, 1]);
    assert_eq!(cd.event(), (0, 0));
    cd.handle.insert(disc(1 << 20).1).unwrap();
    assert_eq!(
        cd.handle.insert(disc(1 << 20).1),
        Err(InsertError::Occupied)
    );
    assert_eq!(cd.event(), (2, 2));
    assert_eq!(cd.event(), (0, 2));
    assert_eq!(cd.fail(&[0x25]), UNIT_ATTENTION);
    assert_eq!(cd.sense(), [6, 0x28, 0]);
    assert_eq!(cd.ask(&[0x25])[..4], 511_u32.to_be_bytes());
    // Another one, of which the driver hears even if it looked away.
    cd.handle.eject(false).unwrap();
    cd.handle.insert(disc(2 << 20).1).unwrap();
    assert_eq!(cd.fail(&[0]), NOT_READY);
    assert_eq!(cd.fail(&[0]), UNIT_ATTENTION);
    assert_eq!(cd.ask(&[0x25])[..4], 1023_u32.to_be_bytes());
    assert_eq!(cd.ask(&[0]), [0; 0]);
}

#[test]
fn the_driver_locks_and_ejects() {
    let cd = cd(Some(disc(1 << 20).1));
    let lock = [0x1e, 0, 0, 0, 1, 0];
    let unlock = [0x1e, 0, 0, 0, 0, 0];
    let eject = [0x1b, 0, 0, 0, 2, 0];
    let load = [0x1b, 0, 0, 0, 3, 0];
    cd.ask(&lock);
    let locked = Tray {
        disc: true,
        ejected: false,
        locked: true,
    };
    assert_eq!(cd.handle.tray(), locked);
    assert_eq!(cd.fail(&eject), ILLEGAL);
    assert_eq!(cd.sense(), [5, 0x53, 2]);
    assert_eq!(cd.handle.eject(false), Err(EjectError::Locked));
    assert_eq!(cd.event(), (1, 2), "asked to let go");
    cd.ask(&unlock);
    cd.ask(&eject);
    let open = Tray {
        disc: true,
        ejected: true,
        locked: false,
    };
    assert_eq!(cd.handle.tray(), open);
    assert_eq!(cd.fail(&[0]), NOT_READY);
    assert_eq!(cd.sense(), [2, 0x3a, 2]);
    assert_eq!(cd.event(), (3, 1));
    cd.ask(&load);
    assert_eq!(cd.event(), (2, 2));
    assert_eq!(cd.fail(&[0]), UNIT_ATTENTION);
    cd.ask(&[0]);
    // Into the open tray goes another disc.
    cd.ask(&eject);
    cd.handle.insert(disc(2 << 20).1).unwrap();
    assert_eq!(cd.fail(&[0x25]), UNIT_ATTENTION);
    assert_eq!(cd.ask(&[0x25])[..4], 1023_u32.to_be_bytes());
    // By force.
    cd.ask(&lock);
    cd.handle.eject(true).unwrap();
    assert!(!cd.handle.tray().disc && !cd.handle.tray().locked);
    cd.handle.eject(false).unwrap();
    assert_eq!(cd.fail(&[0x25]), NOT_READY);
}

#[test]
fn a_cut_image_is_a_bad_disc() {
    let (file, medium) = disc(1 << 20);
    let cd = cd(Some(medium));
    file.set_len(1 << 19).unwrap();
    assert_eq!(cd.fail(&[0x28, 0, 0, 0, 1, 0x80, 0, 0, 1, 0]), (0x51, 0x34));
    assert_eq!(cd.sense(), [3, 0x11, 0]);
    assert_eq!(cd.rig.complaints.lock().unwrap().len(), 1);
}

#[test]
fn packets_need_a_table_that_holds_them() {
    let cd = cd(Some(disc(1 << 20).1));
    let events = cd.rig.run(PORT, &frame(0xa0, 1, 0, 0), 0, &[(DATA, 512)]);
    assert_eq!(events, TASK_FILE_ERROR | 1);
    cd.rig.restart_port(PORT);
    assert_eq!(cd.ask(&[0]), [0; 0]);
    assert_eq!(cd.rig.port(PORT, at::SIG), 0xeb14_0101);
}

#[test]
fn an_event_without_room_waits() {
    let cd = cd(None);
    cd.handle.insert(disc(2048).1).unwrap();
    let header = cd.ask(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 4, 0]);
    assert_eq!(header, [0, 6, 4, 0x10]);
    assert_eq!(cd.event(), (2, 2));
    let none = cd.ask(&[0x4a, 1, 0, 0, 0x02, 0, 0, 0, 8, 0]);
    assert_eq!(none, [0, 2, 0x80, 0x10]);
    assert_eq!(cd.fail(&[0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8, 0]), ILLEGAL);
}
