//! Requests no disk has (virtio 1.2, 5.2.6): sectors beyond the end and around 2^64, unknown types, headers in pieces.

use crate::World;
use crate::io::{Width, store};
use crate::ring::{Descriptor, NEXT, WRITE};
use crate::virtio::{self, BLOCK, Device, Outcome};

const TYPES: &[u64] = &[0, 1, 4, 8, 11, 13, 14, 2, 3, 5, 0x100, 0xffff_ffff];
const SECTORS: &[u64] = &[
    0,
    1,
    2046,
    2047,
    2048,
    1 << 31,
    1 << 55,
    (1 << 55) - 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];
const LENGTHS: &[u32] = &[0, 1, 511, 512, 513, 4096, 0x8000, 0x40_0000];

pub fn requests(world: &mut World) {
    for device in virtio::devices(&world.functions).filter(|device| device.kind == BLOCK) {
        world.must_start(&device);
        for &kind in TYPES {
            for &sector in SECTORS {
                if !world.thorough() && world.random.below(2) == 0 {
                    continue;
                }
                let length = world.random.pick(LENGTHS);
                if request(&device, [kind, sector], length, world.random.below(4))
                    == Outcome::Silent
                {
                    world.bad(format_args!(
                        "blk: no answer to type {kind} at {sector:#x}, {length} bytes"
                    ));
                }

                world.must_start(&device);
            }
        }
    }
}

/// One request: `shape` says how header, data and status are cut into buffers.
fn request(device: &Device, [kind, sector]: [u64; 2], length: u32, shape: u64) -> Outcome {
    let ring = device.ring(0);
    let header = ring.buffer();
    store(header, Width::Quad, kind);
    store(header + 8, Width::Quad, sector);
    // For discards: a range.
    store(header + 0x100, Width::Quad, sector);
    store(header + 0x108, Width::Quad, 0xffff_ffff | 3 << 32);
    let direction = if matches!(kind, 0 | 8) { WRITE } else { 0 };
    let head = |length, next| Descriptor {
        address: header,
        length,
        flags: NEXT,
        next,
    };
    let data = |next| Descriptor {
        address: header + 0x100,
        length,
        flags: NEXT | direction,
        next,
    };
    let status = Descriptor {
        address: header + 0x20,
        length: 1,
        flags: WRITE,
        next: 0,
    };
    match shape {
        0 | 1 => {
            ring.describe(0, head(16, 1));
            ring.describe(1, data(2));
            ring.describe(2, status);
        }
        2 => {
            ring.describe(0, head(3, 1));
            ring.describe(
                1,
                Descriptor {
                    address: header + 3,
                    ..head(13, 2)
                },
            );
            ring.describe(2, data(3));
            ring.describe(3, status);
        }
        // No room for the status.
        _ => {
            ring.describe(0, head(16, 1));
            ring.describe(
                1,
                Descriptor {
                    flags: direction,
                    ..data(0)
                },
            );
        }
    }
    ring.put(0, 0);
    ring.set_index(1);
    device.notify(0);
    device.outcome(&ring)
}
