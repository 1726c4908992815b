//! Hostile kernels: whatever the file holds, loading ends, and with an error or a kernel.

use std::io::Write;

use proptest::prelude::*;
use vm_memory::Bytes;

use super::*;
use crate::memory;

const MEMORY: u64 = 32 << 20;

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn boot(kernel: &[u8], initrd: Option<&[u8]>) -> Result<(GuestMemory, Entry), BootError> {
    let memory = memory::reserve(MEMORY).unwrap();
    let boot = DirectBoot {
        kernel: file(kernel),
        initrd: initrd.map(file),
        cmdline: "quiet".to_owned(),
    };
    let entry = load(&memory, &boot, 0xe_0000)?.entry;
    Ok((memory, entry))
}

/// An ELF kernel of two segments and a PVH note; code is 0xcc.
fn elf() -> Vec<u8> {
    let mut file = vec![0; 0x3000];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(24, &0x10_0000_u64.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &3_u16.to_le_bytes());
    for (slot, kind, fields) in [
        (0, 1_u32, [0x1000_u64, 0x10_0000, 0x10_0000, 0x1800, 0x4000]),
        (1, 1, [0x2800, 0x20_0000, 0x20_0000, 0x100, 0x100]),
        (2, 4, [0x200, 0, 0, 20, 20]),
    ] {
        let at = 64 + slot * 56;
        put(at, &kind.to_le_bytes());
        for (index, field) in fields.iter().enumerate() {
            put(at + 8 + index * 8, &field.to_le_bytes());
        }
    }
    put(0x200, &4_u32.to_le_bytes());
    put(0x204, &4_u32.to_le_bytes());
    put(0x208, &18_u32.to_le_bytes());
    put(0x20c, b"Xen\0");
    put(0x210, &0x10_0010_u32.to_le_bytes());
    file[0x1000..].fill(0xcc);
    file
}

/// A bzImage around `payload`.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024 + 0x400];
    file.extend(payload);
    file.resize(file.len().next_multiple_of(16), 0);
    let paragraphs = (file.len() - 1024) as u32 / 16;
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &paragraphs.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &1_u16.to_le_bytes());
    put(0x248, &0x400_u32.to_le_bytes());
    put(0x24c, &(payload.len() as u32).to_le_bytes());
    put(0x258, &0x10_0000_u64.to_le_bytes());
    put(0x260, &0x10_0000_u32.to_le_bytes());
    file
}

fn lz4_legacy(content: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
    let block = lz4_flex::block::compress(content);
    packed.extend((block.len() as u32).to_le_bytes());
    packed.extend(block);
    packed.extend((content.len() as u32).to_le_bytes());
    packed
}

#[test]
fn an_elf_kernel_lies_where_it_says() {
    let (memory, entry) = boot(&elf(), Some(b"disk")).unwrap();
    assert_eq!(entry, Entry::Pvh(0x10_0010));
    let byte = |at| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
    assert_eq!(
        [byte(0x10_0000), byte(0x10_17ff), byte(0x10_1800)],
        [0xcc, 0xcc, 0]
    );
    assert_eq!(
        [byte(0x20_0000), byte(0x20_00ff), byte(0x20_0100)],
        [0xcc, 0xcc, 0]
    );
    let start: u32 = memory
        .read_obj(GuestAddress(crate::layout::PVH_START_INFO))
        .unwrap();
    assert_eq!(start, 0x336e_c578);
    let ramdisk: [u8; 4] = memory.read_obj(GuestAddress(MEMORY - 4096)).unwrap();
    assert_eq!(&ramdisk, b"disk");
}

#[test]
fn the_payload_of_a_bzimage_is_unpacked_here() {
    for payload in [lz4_legacy(&elf()), zstd::bulk::compress(&elf(), 1).unwrap()] {
        let (_, entry) = boot(&bzimage(&payload), None).unwrap();
        assert_eq!(entry, Entry::Pvh(0x10_0010));
    }
    let (_, entry) = boot(&bzimage(b"\xfd7zXZ\0 and so on"), None).unwrap();
    assert_eq!(entry, Entry::Linux64(0x10_0200));
}

#[test]
fn a_bzimage_cut_short_says_so() {
    let image = bzimage(&lz4_legacy(&elf()));
    for length in [0x300, 1024, 1500, image.len() - 16] {
        let error = boot(&image[..length], None).err().unwrap();
        assert_eq!(error.kind(), LaunchError::Kernel, "{error}");
    }
}

#[test]
fn the_memory_map_covers_memory_and_no_more() {
    for bytes in [64 << 20, 0xb000_0000_u64, 6 << 30] {
        let memory = memory::reserve(bytes).unwrap();
        let map = memory_map::ranges(&memory);
        for pair in map.windows(2) {
            assert!(pair[0].base + pair[0].length <= pair[1].base, "{pair:?}");
        }
        let usable: u64 = map
            .iter()
            .filter(|range| range.kind == memory_map::USABLE)
            .map(|range| range.length)
            .sum();
        let page = crate::layout::GENERATION_ID;
        let reserved = |range: &memory_map::Range| {
            let inside = range.base <= page && page < range.base + range.length;
            inside && range.kind == memory_map::RESERVED
        };
        assert!(map.iter().any(reserved));
        // All but the kilobyte under 640 KiB and the legacy hole.
        let legacy = crate::layout::ABOVE_1M - CONVENTIONAL_END;
        assert_eq!(usable, bytes - legacy);
    }
}

/// Overwrites a few places, most often in the headers.
fn mutations() -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
    let place = prop_oneof![0..0x300_usize, 0..0x4000_usize];
    let interesting = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<u32>().prop_map(|word| word.to_le_bytes().to_vec()),
        any::<u64>().prop_map(|word| word.to_le_bytes().to_vec()),
        Just(vec![0xff; 8]),
        Just(vec![0; 8]),
        (0..64_u32).prop_map(|shift| (1_u64 << shift).to_le_bytes().to_vec()),
    ];
    prop::collection::vec((place, interesting), 1..6)
}

fn mutate(mut image: Vec<u8>, mutations: &[(usize, Vec<u8>)], length: usize) -> Vec<u8> {
    for (at, bytes) in mutations {
        for (index, byte) in bytes.iter().enumerate() {
            if let Some(place) = image.get_mut(at + index) {
                *place = *byte;
            }
        }
    }
    image.truncate(length);
    image
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutated_elf_kernels_end_in_an_answer(changes in mutations(), length in 0..0x6000_usize) {
        let _ = boot(&mutate(elf(), &changes, length), Some(b"disk"));
    }

    #[test]
    fn mutated_bzimages_end_in_an_answer(changes in mutations(), length in 0..0x6000_usize) {
        let _ = boot(&mutate(bzimage(&lz4_legacy(&elf())), &changes, length), None);
        let _ = boot(&mutate(bzimage(b"\xfd7zXZ\0 and so on"), &changes, length), None);
    }

    #[test]
    fn anything_at_all_ends_in_an_answer(content in prop::collection::vec(any::<u8>(), 0..5000)) {
        let _ = boot(&content, None);
    }
}

proptest! {
    // Unpacking is slow without optimisation.
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn damaged_compressed_data_ends_in_an_answer(changes in mutations()) {
        let _ = boot(&mutate(lz4_legacy(&elf()), &changes, usize::MAX), None);
        let _ = boot(&mutate(zstd::bulk::compress(&elf(), 1).unwrap(), &changes, usize::MAX), None);
    }
}
