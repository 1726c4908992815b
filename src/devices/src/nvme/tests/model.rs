//! A busy driver against a model of a disk.

use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

const BLOCKS: u64 = 2048;
/// Blocks and memory of one command, which no other of its batch touches.
const BLOCKS_EACH: u64 = 40;
const BYTES_EACH: u64 = 0x8000;
const BATCH: u64 = 30;

/// One command.
#[derive(Debug, Clone, Copy)]
struct Action {
    /// 1 write, 2 read, 8 zeroing.
    code: u8,
    queue: u16,
    /// At most [`BLOCKS_EACH`].
    blocks: u32,
    /// Of the data in its first page.
    offset: u64,
    through: bool,
    seed: u8,
}

fn action() -> impl Strategy<Value = Action> {
    let code = prop::sample::select(vec![1_u8, 1, 2, 2, 8]);
    let blocks = 1..=BLOCKS_EACH as u32;
    (
        code,
        1..=2_u16,
        blocks,
        0..1024_u64,
        any::<bool>(),
        any::<u8>(),
    )
        .prop_map(|(code, queue, blocks, words, through, seed)| Action {
            code,
            queue,
            blocks,
            offset: words * 4,
            through,
            seed,
        })
}

/// The command, with its data in place and the model as it will be.
fn prepare(rig: &Rig, number: u64, action: Action, model: &mut [u8]) -> [u8; 64] {
    let first = number * BLOCKS_EACH;
    let page = DATA + number * BYTES_EACH;
    let range = first as usize * 512..(first as usize + action.blocks as usize) * 512;
    match action.code {
        1 => {
            let bytes =
                (0..range.len()).map(|at| action.seed.wrapping_add(at as u8).wrapping_mul(31));
            let bytes: Vec<u8> = bytes.collect();
            rig.put(page + action.offset, &bytes);
            model[range].copy_from_slice(&bytes);
        }
        8 => model[range].fill(0),
        _ => {}
    }
    // As many pages as ever needed, in a list if there are more than two.
    let pages: Vec<u8> = (1..7)
        .flat_map(|next| (page + next * 4096).to_le_bytes())
        .collect();
    let list = LISTS + number * 64;
    rig.put(list, &pages);
    let two = action.offset + u64::from(action.blocks) * 512 <= 8192;
    let second = if two { page + 4096 } else { list };
    let mut bytes = transfer(
        action.code,
        first,
        action.blocks,
        [page + action.offset, second],
    );
    bytes[51] = u8::from(action.through) << 6;
    bytes
}

fn check(rig: &Rig, number: u64, action: Action, model: &[u8]) {
    if action.code != 2 {
        return;
    }
    let first = (number * BLOCKS_EACH) as usize * 512;
    let length = action.blocks as usize * 512;
    let read = rig.get(DATA + number * BYTES_EACH + action.offset, length);
    assert_eq!(read, model[first..first + length]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn disk_and_model_agree(
        batches in prop::collection::vec(prop::collection::vec(action(), 1..BATCH as usize), 1..6),
        shadow in any::<bool>(),
        pauses in any::<u8>(),
    ) {
        let (file, disk) = image(BLOCKS * 512);
        let rig = Rig::new(disk, disk_options());
        rig.enable();
        rig.create_pair(1, 40);
        if shadow {
            prop_assert_eq!(rig.admin(command(0x7c, 0, [0x20_0000, 0x20_1000], &[])), (OK, 0));
            rig.driver.lock().unwrap().shadow = Some((0x20_0000, 0x20_1000));
        }
        rig.create_pair(2, 40);
        let mut model = vec![0; BLOCKS as usize * 512];
        for (round, batch) in batches.iter().enumerate() {
            for (number, action) in (0..).zip(batch) {
                let bytes = prepare(&rig, number, *action, &mut model);
                rig.submit(action.queue, bytes);
            }
            if pauses & 1 << round != 0 {
                let mut function = rig.function.lock().unwrap();
                function.pause();
                let saved = function.save();
                function.restore(&saved).unwrap();
                function.resume();
            }
            for action in batch {
                prop_assert_eq!(rig.reap(action.queue).status, OK);
            }
            for (number, action) in (0..).zip(batch) {
                check(&rig, number, *action, &model);
            }
        }
        let mut content = vec![0; BLOCKS as usize * 512];
        file.read_exact_at(&mut content, 0).unwrap();
        prop_assert!(content == model);
    }
}
