//! A busy driver against a model of a disk.

use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

const SECTORS: u64 = 512;

/// One request on sectors that no other request of its batch touches.
#[derive(Debug, Clone, Copy)]
struct Action {
    kind: u32,
    /// Sectors, at most 32.
    sectors: u64,
    /// Where the data is cut in two descriptors, in bytes.
    cut: u32,
    seed: u8,
    indirect: bool,
}

fn action() -> impl Strategy<Value = Action> {
    (
        prop::sample::select(vec![IN, IN, OUT, OUT, OUT, DISCARD, WRITE_ZEROES]),
        1..=32_u64,
        0..16384_u32,
        any::<u8>(),
        any::<bool>(),
    )
        .prop_map(|(kind, sectors, cut, seed, indirect)| Action {
            kind,
            sectors,
            cut,
            seed,
            indirect,
        })
}

fn pieces(action: Action, address: u64) -> Vec<Piece> {
    let length = action.sectors as u32 * 512;
    let direction = if action.kind == IN {
        writable
    } else {
        readable
    };
    if action.cut == 0 || action.cut >= length {
        return vec![direction(address, length)];
    }
    vec![
        direction(address, action.cut),
        direction(address + u64::from(action.cut), length - action.cut),
    ]
}

/// Offers one request at `sector`; its data lies at `address`.
fn offer(rig: &mut Rig, slot: u64, sector: u64, action: Action, model: &mut [u8]) {
    let address = DATA + slot * 0x4000;
    let range = (sector * 512) as usize..((sector + action.sectors) * 512) as usize;
    let data = match action.kind {
        IN => pieces(action, address),
        OUT => {
            let bytes: Vec<u8> = (0..range.len())
                .map(|at| action.seed.wrapping_add(at as u8).wrapping_mul(31))
                .collect();
            rig.put(address, &bytes);
            model[range].copy_from_slice(&bytes);
            pieces(action, address)
        }
        _ => {
            rig.put(address, &sector.to_le_bytes());
            rig.put(address + 8, &(action.sectors as u32).to_le_bytes());
            let unmap = u32::from(action.kind == WRITE_ZEROES && action.seed & 1 != 0);
            rig.put(address + 12, &unmap.to_le_bytes());
            model[range].fill(0);
            vec![readable(address, 16)]
        }
    };
    let header_sector = if matches!(action.kind, IN | OUT) {
        sector
    } else {
        0
    };
    let chain = rig.chain(slot, action.kind, header_sector, &data);
    if action.indirect {
        rig.queue.offer_indirect(TABLES + slot * 128, &chain)
    } else {
        rig.queue.offer(&chain)
    }
    .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn behaves_like_a_disk(
        batches in prop::collection::vec(
            (prop::collection::vec(action(), 1..12), any::<bool>()),
            1..12,
        ),
    ) {
        let mut rig = Rig::with(SECTORS * 512, options(), 64);
        let mut model = vec![0_u8; (SECTORS * 512) as usize];
        for (actions, pause) in &batches {
            // Slot by slot side by side: requests of a batch may be done in any order.
            for (slot, action) in (0_u64..).zip(actions) {
                offer(&mut rig, slot, slot * 40, *action, &mut model);
            }
            rig.queue.kick();
            if *pause {
                let queue = rig.device.deactivate().pop().unwrap();
                let queue = rig.queue.activation(queue);
                rig.activate(queue);
            }
            for _ in actions {
                rig.queue.wait_used();
            }
            for (slot, action) in (0_u64..).zip(actions) {
                prop_assert_eq!(rig.status(slot), OK);
                if action.kind == IN {
                    let start = (slot * 40 * 512) as usize;
                    let length = (action.sectors * 512) as usize;
                    let read = rig.get(DATA + slot * 0x4000, length);
                    prop_assert!(read == model[start..start + length]);
                }
            }
        }
        let mut content = vec![0; model.len()];
        rig.file.read_exact_at(&mut content, 0).unwrap();
        prop_assert!(content == model);
    }
}
