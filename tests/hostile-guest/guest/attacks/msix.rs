//! MSI-X: messages to anywhere, vectors that are not, tables written while they are used.

use crate::World;
use crate::io::Width;
use crate::ring::{Descriptor, WRITE};
use crate::virtio::{self, Device, MSIX_TABLE};

/// Addresses of messages: the local APICs with every way of delivery, and everything else.
const ADDRESSES: &[u64] = &[
    0,
    0xfee0_0000,
    0xfee0_000c,
    0xfeef_f000,
    0xfeef_fffc,
    0xfec0_0000,
    0x80_0000,
    0xb000_0000,
    0xffff_fffc,
    0xffff_ffff_fee0_0000,
    u64::MAX & !3,
];

/// Messages: vectors with fixed and lowest-priority delivery. NMI and INIT would end this program, not the monitor.
const DATA: &[u64] = &[0, 0x20, 0xff, 0x40ff, 0xc0ff, 0x0131, 0xffff_0030];

pub fn tables(world: &mut World) {
    for device in virtio::devices(&world.functions) {
        let Some(capability) = capability(&device) else {
            world.bad(format_args!("{} has no MSI-X", device.name()));
            continue;
        };
        let vectors = device.queues() + 1;
        for _ in 0..world.rounds * 3 {
            device.start();
            // On, off, and all masked, with every other bit.
            device.function.write(
                capability + 2,
                Width::Word,
                world.random.next() as u32 & 0xffff,
            );
            for vector in 0..vectors + 2 {
                let entry = MSIX_TABLE + 16 * u64::from(vector);
                let address = world.random.pick(ADDRESSES);
                device.set(entry, Width::Quad, address);
                device.set(entry + 8, Width::Double, world.random.pick(DATA));
                device.set(entry + 12, Width::Double, world.random.next() & 0xffff_fffd);
            }
            device.function.write(capability + 2, Width::Word, 0x8000);
            device.reset();
            start_with_vectors(&device, vectors);
            interrupt(&device);
        }
        device.function.write(capability + 2, Width::Word, 0);
        world.must_start(&device);
    }
}

fn capability(device: &Device) -> Option<u8> {
    let mut at = device.function.read(0x34, Width::Byte) as u8;
    for _ in 0..48 {
        if at == 0 {
            return None;
        }
        if device.function.read(at, Width::Byte) == 0x11 {
            return Some(at);
        }
        at = device.function.read(at + 1, Width::Byte) as u8;
    }
    None
}

fn start_with_vectors(device: &Device, vectors: u16) {
    if !device.negotiate(device.usual_features()) {
        return;
    }
    device.set(0x10, Width::Word, 0);
    for number in 0..device.queues() {
        let ring = crate::ring::Ring::of(number, device.queue_size(number));
        ring.clear();
        device.set(0x1a, Width::Word, u64::from(number % vectors));
        device.enable(number, ring.addresses());
    }
    device.set_status(15);
}

/// Makes it interrupt, for a buffer and for its own sake.
fn interrupt(device: &Device) {
    let ring = device.ring(0);
    ring.describe(
        0,
        Descriptor {
            address: ring.buffer(),
            length: 64,
            flags: WRITE,
            next: 0,
        },
    );
    ring.set_index(1);
    device.notify(0);
    device.status();
    ring.set_index(0x8000);
    device.notify(0);
    device.status();
}
