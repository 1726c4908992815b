//! Drivers of the SATA controller.

use lodge_fuzz::ahci::{command, command_frame};
use lodge_fuzz::virtio::{DATA, writable};

use super::script::{Script, Seed};

const ATAPI: u64 = 1 << 5;
const WRITE: u64 = 1 << 6;
const QUEUED: u8 = 0x80;

/// Inputs for disk and CD-ROM drive.
pub fn seeds() -> Vec<Seed> {
    vec![
        ("ahci_disk", "commands", disk()),
        ("ahci_disk", "queued", queued()),
        ("ahci_disk", "registers", registers()),
        ("ahci_cdrom", "packets", cdrom()),
        ("ahci_cdrom", "disc", disc()),
        ("ahci_cdrom", "registers", registers()),
    ]
}

fn disk() -> Vec<u8> {
    let data = [writable(DATA, 512)];
    let two = [writable(DATA, 512), writable(DATA + 0x1000, 1536)];
    let plain = |code, lba, count| command(0, 5, &command_frame(code, 0, lba, count), &two);
    Script::after(&[0])
        // IDENTIFY, READ DMA EXT, READ DMA, READ SECTORS, FLUSH, READ VERIFY.
        .command(command(0, 5, &command_frame(0xec, 0, 0, 0), &data), 0)
        .command(plain(0x25, 4, 4), 0)
        .command(plain(0xc8, 0, 2), 0)
        .command(plain(0x20, 0, 4), 0)
        .command(command(0, 5, &command_frame(0xea, 0, 0, 0), &[]), 0)
        .command(plain(0x42, 0, 8), 0)
        // WRITE DMA EXT, WRITE DMA FUA EXT, WRITE SECTORS.
        .command(
            command(1, 5 | WRITE, &command_frame(0x35, 0, 8, 4), &two),
            0,
        )
        .command(
            command(1, 5 | WRITE, &command_frame(0x3d, 0, 8, 4), &two),
            0,
        )
        .command(
            command(1, 5 | WRITE, &command_frame(0x30, 0, 9, 1), &data),
            0,
        )
        // DATA SET MANAGEMENT: trim.
        .put(DATA as u32, &[16, 0, 0, 0, 0, 0, 8, 0])
        .command(
            command(2, 5 | WRITE, &command_frame(0x06, 1, 0, 1), &data),
            0,
        )
        // SET FEATURES, SET MULTIPLE, READ MULTIPLE, READ LOG EXT, SMART.
        .command(command(0, 5, &command_frame(0xef, 0x82, 0, 0), &[]), 0)
        .command(command(0, 5, &command_frame(0xc6, 0, 0, 8), &[]), 0)
        .command(plain(0x29, 0, 4), 0)
        .command(command(0, 5, &command_frame(0x2f, 0, 0x10, 1), &data), 0)
        .command(
            command(0, 5, &command_frame(0xb0, 0xd0, 0xc2_4f00, 1), &data),
            0,
        )
        .save_restore()
        .command(plain(0x25, 2047, 4), 0)
        .host(0, &[0; 8])
        .bytes()
}

fn queued() -> Vec<u8> {
    let data = [writable(DATA, 4096)];
    let frame = |code, slot: u16, lba| command_frame(code, 8, lba, slot << 3);
    Script::after(&[0])
        .command(command(3, 5, &frame(0x60, 3, 0), &data), QUEUED)
        .command(command(4, 5 | WRITE, &frame(0x61, 4, 8), &data), QUEUED)
        // Beyond the end, and the log that says so.
        .command(command(5, 5, &frame(0x60, 5, 1 << 40), &data), QUEUED)
        .write(1, 0x18, &0x10_u32.to_le_bytes())
        .write(1, 0x18, &0x11_u32.to_le_bytes())
        .command(command(0, 5, &command_frame(0x2f, 0, 0x10, 1), &data), 0)
        .bytes()
}

fn registers() -> Vec<u8> {
    let script = Script::after(&[0])
        .read(0, 0, 4)
        .read(0, 0x0c, 4)
        .read(0, 0x24, 4)
        .read(1, 0x24, 4)
        .read(1, 0x28, 4);
    // A soft reset by two frames, a link reset, and one of the controller.
    let mut control = command_frame(0, 0, 0, 0);
    control[1] = 0;
    control[15] = 4;
    let set = command(0, 5 | 1 << 8 | 1 << 10, &control, &[]);
    control[15] = 0;
    let clear = command(1, 5, &control, &[]);
    script
        .command(set, 0)
        .command(clear, 0)
        .write(1, 0x2c, &1_u32.to_le_bytes())
        .write(1, 0x2c, &0_u32.to_le_bytes())
        .write(0, 4, &0x8000_0001_u32.to_le_bytes())
        .write(0x80, 0x84, &[0xff; 4])
        .write(0x80, 4, &[2, 0])
        .power_cycle()
        .bytes()
}

/// A packet of up to 16 bytes with a place for the answer.
fn packet(bytes: &[u8], length: u32, dma: u16) -> lodge_fuzz::operation::Offer {
    let mut frame = command_frame(0xa0, dma, 0xfffe << 8, 0);
    frame.resize(0x40, 0);
    frame.extend(bytes);
    frame.resize(0x50, 0);
    command(0, 5 | ATAPI, &frame, &[writable(DATA, length)])
}

fn cdrom() -> Vec<u8> {
    let mut script = Script::after(&[0]).command(
        command(0, 5, &command_frame(0xa1, 0, 0, 0), &[writable(DATA, 512)]),
        0,
    );
    for (bytes, length) in [
        // TEST UNIT READY (the disc is new), REQUEST SENSE, INQUIRY, READ CAPACITY.
        (&[0_u8, 0, 0, 0, 0, 0][..], 0),
        (&[3, 0, 0, 0, 18, 0], 18),
        (&[0x12, 0, 0, 0, 36, 0], 36),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8),
        // READ(10), READ(12), READ CD.
        (&[0x28, 0, 0, 0, 0, 16, 0, 0, 2, 0], 4096),
        (&[0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 1], 2048),
        (&[0xbe, 0, 0, 0, 0, 0, 0, 0, 1, 0x10], 2048),
        // READ TOC, MODE SENSE(10), GET CONFIGURATION, GET EVENT STATUS, MECHANISM STATUS.
        (&[0x43, 2, 0, 0, 0, 0, 0, 0, 100], 100),
        (&[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 100], 100),
        (&[0x46, 0, 0, 0, 0, 0, 0, 0, 200], 200),
        (&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], 8),
        (&[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8], 8),
        // READ DISC INFORMATION, READ TRACK INFORMATION, READ DVD STRUCTURE.
        (&[0x51, 0, 0, 0, 0, 0, 0, 0, 34], 34),
        (&[0x52, 1, 0, 0, 0, 1, 0, 0, 36], 36),
        (&[0xad, 0, 0, 0, 0, 0, 0, 0, 8, 4], 2052),
    ] {
        script = script.command(packet(bytes, length, 1), 0);
    }
    script
        .command(packet(&[0x12, 0, 0, 0, 36, 0], 36, 0), 0)
        .save_restore()
        .command(packet(&[0x28, 0, 0, 0, 1, 0xff, 0, 0, 2, 0], 4096, 1), 0)
        .bytes()
}

fn disc() -> Vec<u8> {
    Script::after(&[0])
        // Locked, asked for by the host, let go, out, and a new one in.
        .command(packet(&[0x1e, 0, 0, 0, 1, 0], 0, 0), 0)
        .host(1, &[])
        .command(packet(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], 8, 1), 0)
        .command(packet(&[0x1e, 0, 0, 0, 0, 0], 0, 0), 0)
        .command(packet(&[0x1b, 0, 0, 0, 2, 0], 0, 0), 0)
        .host(2, &[])
        .command(packet(&[0, 0, 0, 0, 0, 0], 0, 0), 0)
        .host(0, &[])
        .command(packet(&[0x1b, 0, 0, 0, 3, 0], 0, 0), 0)
        .host(0x81, &[])
        .command(packet(&[0x28, 0, 0, 0, 0, 16, 0, 0, 2, 0], 4096, 1), 0)
        .bytes()
}
