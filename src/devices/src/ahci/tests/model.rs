//! A busy driver against a model of a disk.

use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;
use crate::ahci::port::bits::at;

const BLOCKS: u64 = 1280;

/// One command on blocks that no other command of its batch touches.
#[derive(Debug, Clone, Copy)]
struct Action {
    write: bool,
    /// At most 32.
    blocks: u16,
    /// Where the data is cut in two pieces, in bytes.
    cut: u32,
    seed: u8,
}

fn action() -> impl Strategy<Value = Action> {
    (any::<bool>(), 1..=32_u16, 0..8192_u32, any::<u8>()).prop_map(|(write, blocks, cut, seed)| {
        Action {
            write,
            blocks,
            cut: cut * 2,
            seed,
        }
    })
}

fn place(slot: u32) -> (u64, u64) {
    (u64::from(slot) * 40, DATA + u64::from(slot) * 0x4000)
}

/// Prepares a command in `slot`, queued or not.
fn prepare(rig: &Rig, slot: u32, action: Action, queued: bool, model: &mut [u8]) {
    let (lba, address) = place(slot);
    let length = u32::from(action.blocks) * 512;
    if action.write {
        let bytes: Vec<u8> = (0..length)
            .map(|at| action.seed.wrapping_add(at as u8).wrapping_mul(31))
            .collect();
        rig.put(address, &bytes);
        let start = lba as usize * 512;
        model[start..start + bytes.len()].copy_from_slice(&bytes);
    }
    let pieces = if action.cut == 0 || action.cut >= length {
        vec![(address, length)]
    } else {
        let rest = (address + u64::from(action.cut), length - action.cut);
        vec![(address, action.cut), rest]
    };
    let flags = if action.write { WRITES } else { 0 };
    let frame = match (queued, action.write) {
        (true, true) => queued_frame(0x61, slot, lba, action.blocks),
        (true, false) => queued_frame(0x60, slot, lba, action.blocks),
        (false, true) => frame(0x35, 0, lba, action.blocks),
        (false, false) => frame(0x24, 0, lba, action.blocks),
    };
    rig.prepare(0, slot, &frame, flags, &pieces);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn behaves_like_a_disk(
        batches in prop::collection::vec(
            (prop::collection::vec(action(), 1..32), any::<bool>(), any::<bool>()),
            1..10,
        ),
    ) {
        let (rig, _, file) = disk_rig(BLOCKS * 512);
        let mut model = vec![0_u8; (BLOCKS * 512) as usize];
        for (actions, queued, pause) in &batches {
            let mut slots = 0;
            for (slot, action) in (0_u32..).zip(actions) {
                prepare(&rig, slot, *action, *queued, &mut model);
                slots |= 1 << slot;
            }
            if *queued {
                rig.set_port(0, at::SACT, slots);
            }
            rig.issue(0, slots);
            if *pause {
                let mut function = rig.function.lock().unwrap();
                function.pause();
                let saved = function.save();
                function.restore(&saved).unwrap();
                prop_assert_eq!(function.save(), saved);
                function.resume();
            }
            rig.until("a batch", || rig.port(0, at::CI) | rig.port(0, at::SACT) == 0);
            prop_assert_eq!(rig.task(0), (0x50, 0));
            for (slot, action) in (0_u32..).zip(actions) {
                prop_assert_eq!(rig.moved(0, slot), u32::from(action.blocks) * 512);
                let (lba, address) = place(slot);
                let start = (lba * 512) as usize;
                let length = usize::from(action.blocks) * 512;
                let read = rig.get(address, length);
                prop_assert!(read == model[start..start + length]);
            }
        }
        let mut content = vec![0; model.len()];
        file.read_exact_at(&mut content, 0).unwrap();
        prop_assert!(content == model);
    }
}
