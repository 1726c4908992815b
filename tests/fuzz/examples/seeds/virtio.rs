//! Drivers of virtio devices.

use lodge_fuzz::virtio::{DATA, block_header, readable, writable};

use super::script::{Script, Seed};

/// All features, and queues of 16 entries.
const EVERYTHING: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 4];
/// No feature that may be left out, and queues of 2 entries.
const LEAST: [u8; 5] = [0, 0, 0, 0, 1];
/// The device as it is after power-on.
const UNTOUCHED: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x84];

/// Inputs for all devices.
pub fn seeds() -> Vec<Seed> {
    vec![
        ("virtio_rng", "requests", rng()),
        ("virtio_rng", "by_registers", by_registers()),
        ("virtio_console", "text", console()),
        ("virtio_blk", "requests", block(&EVERYTHING)),
        ("virtio_blk", "least", block(&LEAST)),
        ("virtio_blk", "ranges", ranges()),
        ("virtio_net", "packets", network()),
        ("virtio_net", "commands", commands()),
        ("virtio_balloon", "pages", balloon()),
        ("virtio_vsock", "events", vsock()),
        ("virtqueue", "chains", chains(false)),
        ("virtqueue", "indirect", chains(true)),
    ]
}

fn rng() -> Vec<u8> {
    Script::after(&EVERYTHING)
        .request(0, &[writable(DATA, 64)])
        .offer(0, false, &[writable(DATA, 8), writable(DATA + 0x7_0000, 8)])
        .offer(0, true, &[writable(DATA + 0x100, 5)])
        .ring(0)
        .save_restore()
        .request(0, &[writable(DATA, 1)])
        .bytes()
}

/// A driver's set-up register by register, with the device's answers read.
fn by_registers() -> Vec<u8> {
    let mut script = Script::after(&UNTOUCHED);
    for status in [0, 1, 3] {
        script = script.write(0, 0x14, &[status]);
    }
    for (half, accepted) in [(0_u32, 0x3000_0000_u32), (1, 1)] {
        script = script
            .write(0, 0, &half.to_le_bytes())
            .read(0, 4, 4)
            .write(0, 8, &half.to_le_bytes())
            .write(0, 0xc, &accepted.to_le_bytes());
    }
    script = script
        .write(0, 0x14, &[11])
        .read(0, 0x14, 1)
        .write(0, 0x16, &[0, 0])
        .write(0, 0x18, &[8, 0])
        .write(0, 0x1a, &[1, 0]);
    for (offset, address) in [(0x20, 0x2000_u64), (0x28, 0x3000), (0x30, 0x4000)] {
        script = script.write(0, offset, &address.to_le_bytes());
    }
    script
        .write(0, 0x1c, &[1, 0])
        .write(0, 0x14, &[15])
        // Message 1, unmasked.
        .write(4, 16, &0xfee0_0000_u64.to_le_bytes())
        .write(4, 24, &0x4021_u64.to_le_bytes())
        .write(6, 0x98, &[0, 0x80])
        // A descriptor of 64 bytes to write, and its entry in the available ring.
        .put(0x2000, &[0, 0, 1, 0, 0, 0, 0, 0, 64, 0, 0, 0, 2, 0, 0, 0])
        .put(0x3000, &[0, 0, 1, 0, 0, 0])
        .write(3, 0, &[0, 0])
        .read(1, 0, 1)
        .write(0, 0x14, &[0])
        .bytes()
}

fn console() -> Vec<u8> {
    Script::after(&EVERYTHING)
        .request(0, &[writable(DATA, 64)])
        .request(1, &[readable(DATA + 0x100, b"login: ")])
        .host(0, b"root\n")
        .offer(0, true, &[writable(DATA, 3), writable(DATA + 8, 1)])
        .ring(0)
        .save_restore()
        .host(0, b"more than there is room for")
        .bytes()
}

fn block(head: &[u8]) -> Vec<u8> {
    let status = writable(DATA + 0x4000, 1);
    let request = |kind, sector| readable(DATA, &block_header(kind, sector));
    let data = [7; 255];
    Script::after(head)
        // Read, write, flush, identity, and what there is not.
        .request(
            0,
            &[request(0, 0), writable(DATA + 0x1000, 512), status.clone()],
        )
        .put(0x1_2000, &data)
        .request(
            1,
            &[
                request(1, 2),
                lodge_fuzz::operation::Piece {
                    length: 1024,
                    ..readable(DATA + 0x2000, &data)
                },
                status.clone(),
            ],
        )
        .request(0, &[request(4, 0), status.clone()])
        .request(
            0,
            &[request(8, 0), writable(DATA + 0x1000, 20), status.clone()],
        )
        .request(0, &[request(99, 0), status.clone()])
        .request(
            0,
            &[request(0, 2047), writable(DATA + 0x1000, 1024), status],
        )
        .save_restore()
        .host(0, &[0; 8])
        .bytes()
}

fn ranges() -> Vec<u8> {
    let status = writable(DATA + 0x4000, 1);
    let range = |sector: u64, sectors: u32, flags: u32| {
        let mut bytes = sector.to_le_bytes().to_vec();
        bytes.extend(sectors.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        readable(DATA + 0x100, &bytes)
    };
    let request = |kind| readable(DATA, &block_header(kind, 0));
    Script::after(&EVERYTHING)
        .offer(0, true, &[request(11), range(8, 8, 0), status.clone()])
        .offer(0, true, &[request(13), range(0, 16, 1), status.clone()])
        .offer(0, false, &[request(13), range(16, 16, 0), status])
        .ring(0)
        .bytes()
}

/// Commands to a network device with two pairs of queues, and packets in between.
fn commands() -> Vec<u8> {
    let command = |bytes: &[u8]| [readable(DATA, bytes), writable(DATA + 0x1000, 1)];
    let mut packet = vec![0; 12 + 80];
    packet[12..18].fill(0xff);
    // One address of its own, and two of groups.
    let tables = [
        &[1, 0][..],
        &[1, 0, 0, 0, 0x52, 0x54, 0, 9, 9, 9],
        &[2, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1, 0x33, 0x33, 0, 0, 0, 1],
    ];
    Script::after(&EVERYTHING)
        .offer(0, false, &[writable(DATA + 0x2000, 1526)])
        .request(4, &command(&[4, 0, 2, 0]))
        .request(3, &[readable(DATA, &packet)])
        .request(4, &command(&[0, 0, 0]))
        .request(4, &command(&tables.concat()))
        .request(4, &command(&[1, 1, 0x52, 0x54, 0, 9, 9, 8]))
        .offer(
            4,
            true,
            &[
                readable(DATA, &[0]),
                readable(DATA + 0x100, &[1, 1]),
                writable(DATA + 0x1000, 1),
            ],
        )
        .ring(4)
        .host(0, &packet)
        .host(1, &packet)
        .save_restore()
        .host(0, &packet)
        .request(4, &command(&[4, 0, 1, 0]))
        .bytes()
}

fn network() -> Vec<u8> {
    let packet = |gso: u8| {
        let mut packet = vec![0; 12 + 80];
        packet[1] = gso;
        packet[12..18].fill(0xff);
        packet
    };
    Script::after(&EVERYTHING)
        .offer(0, false, &[writable(DATA + 0x1000, 1526)])
        .offer(
            0,
            true,
            &[writable(DATA + 0x2000, 100), writable(DATA + 0x3000, 2000)],
        )
        .ring(0)
        .request(1, &[readable(DATA, &packet(0))])
        .offer(
            1,
            true,
            &[
                readable(DATA, &packet(0)[..12]),
                readable(DATA + 0x100, &packet(1)[12..]),
            ],
        )
        .ring(1)
        .host(0, &packet(0))
        .host(0, &[40; 100])
        .save_restore()
        .host(0, &[255; 255])
        .request(0, &[writable(DATA + 0x1000, 32768)])
        .bytes()
}

fn balloon() -> Vec<u8> {
    let pages = |pages: &[u32]| {
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        readable(DATA, &bytes)
    };
    Script::after(&EVERYTHING)
        .host(0, &0x1_0000_u64.to_le_bytes())
        .read(2, 0, 8)
        .request(0, &[pages(&[0x20, 0x21, 0x22, 0x40])])
        .write(2, 4, &[4, 0, 0, 0])
        .request(1, &[pages(&[0x40])])
        .write(2, 4, &[3, 0, 0, 0])
        // Statistics: two of ten bytes, given when they are asked for.
        .request(
            2,
            &[readable(
                DATA + 0x200,
                &[4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0, 0],
            )],
        )
        .host(1, &[])
        .save_restore()
        .request(4, &[writable(0x5_0000, 0x2000), writable(0x7_8000, 0x8000)])
        .bytes()
}

fn vsock() -> Vec<u8> {
    Script::after(&EVERYTHING)
        .read(2, 0, 8)
        .save_restore()
        .request(2, &[writable(DATA, 4)])
        .offer(2, true, &[writable(DATA, 2), writable(DATA + 2, 2)])
        .ring(2)
        .save_restore()
        .request(1, &[readable(DATA, &[0; 44])])
        .bytes()
}

/// Rings of 8 entries with three chains in them, at the beginning of the input.
fn chains(indirect: bool) -> Vec<u8> {
    let mut bytes = vec![3, 0, 0, 0xff, 0];
    bytes[1] = 40;
    let mut descriptor = |address: u64, length: u32, flags: u16, next: u16| {
        bytes.extend(address.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
    };
    if indirect {
        descriptor(0x1200, 32, 4, 0);
    } else {
        descriptor(0x8000, 16, 1, 1);
    }
    descriptor(0x9000, 512, 3, 2);
    descriptor(0x7_fff0, 0x20, 2, 0);
    descriptor(0x8000, 64, 1, 4);
    descriptor(0xa000, 64, 2, 0);
    for _ in 5..8 {
        descriptor(0, 0, 2, 0);
    }
    // The available ring, whose index is 3 beyond where the device is.
    for word in [0_u16, 43, 0, 3, 5] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.resize(5 + 0x200, 0);
    if indirect {
        for (address, flags) in [(0x8000_u64, 1_u16), (0x9000, 2)] {
            bytes.extend(address.to_le_bytes());
            bytes.extend(16_u32.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(1_u16.to_le_bytes());
        }
    }
    bytes
}
