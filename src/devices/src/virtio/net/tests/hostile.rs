//! Random rings.

use proptest::prelude::*;

use super::*;
use crate::virtio::test_driver::{INDIRECT, NEXT, Piece, WRITE};

/// Entries of each queue.
const ENTRIES: u16 = 16;

type Descriptor = (u64, u32, u16, u16);

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let address = prop_oneof![
        6 => BUFFERS..BUFFERS + 0x1000,
        // Rings that are data, and data that is rings.
        1 => 0..0x1000_u64,
        1 => any::<u64>(),
    ];
    let length = prop_oneof![
        4 => prop::sample::select(vec![1_u32, 12, 16, 60, 128, 1526, 65_565, 65_566]),
        1 => 0..100_u32,
        1 => any::<u32>(),
    ];
    let flags = prop_oneof![
        4 => prop::sample::select(vec![0, NEXT, WRITE, WRITE | NEXT, INDIRECT]),
        1 => any::<u16>(),
    ];
    (
        address,
        length,
        flags,
        prop_oneof![8 => 0..ENTRIES, 1 => any::<u16>()],
    )
}

fn fill(queue: &DriverQueue, descriptors: &[Descriptor]) {
    for (index, &(address, length, flags, next)) in (0..).zip(descriptors) {
        let piece = Piece {
            address,
            length,
            writable: false,
        };
        queue.put_descriptor(queue.descriptors, index, piece, flags, next);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever a driver puts in its rings, the device neither dies (its thread
    /// would take the test down with it) nor hangs (the queues come back).
    #[test]
    fn random_rings_do_no_harm(
        mergeable: bool,
        receive in prop::collection::vec(descriptor(), usize::from(ENTRIES)),
        transmit in prop::collection::vec(descriptor(), usize::from(ENTRIES)),
        heads in prop::collection::vec(
            (any::<bool>(), prop_oneof![9 => 0..ENTRIES, 1 => any::<u16>()]),
            1..24,
        ),
        frames in prop::collection::vec(1..1486_usize, 0..8),
    ) {
        let features = if mergeable { !0 } else { !(1 << abi::VIRTIO_NET_F_MRG_RXBUF) };
        let mut rig = Rig::new();
        rig.device.deactivate();
        rig.receive = DriverQueue::new(&rig.memory, 0, ENTRIES);
        rig.transmit = DriverQueue::new(&rig.memory, 0x8000, ENTRIES);
        fill(&rig.receive, &receive);
        fill(&rig.transmit, &transmit);
        let queues = [rig.receive.device_side(), rig.transmit.device_side()];
        rig.activate(features, queues);
        for (position, (for_receive, head)) in heads.iter().enumerate() {
            let queue = if *for_receive { &mut rig.receive } else { &mut rig.transmit };
            queue.make_available(*head);
            queue.kick();
            if let Some(length) = frames.get(position) {
                rig.wire.send(&frame(*length, 0));
            }
        }
        let queues = rig.device.deactivate();
        prop_assert_eq!(queues.len(), 2);
        if !rig.events.broken() {
            prop_assert_eq!(queues[1].next_avail(), queues[1].next_used());
        }
    }
}
