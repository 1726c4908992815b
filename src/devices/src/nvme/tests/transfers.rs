//! Physical region pages: where data may be, and where not.

use std::os::unix::fs::FileExt;

use super::*;

const PAGE: u64 = 4096;

/// Writes a list and tells its address.
fn list(rig: &Rig, at: u64, entries: &[u64]) -> u64 {
    let bytes: Vec<u8> = entries
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect();
    rig.put(at, &bytes);
    at
}

/// A read of so many blocks into these pages.
fn read(rig: &Rig, blocks: u32, data: [u64; 2]) -> u16 {
    rig.data(transfer(2, 0, blocks, data))
}

fn numbered(file: &File) {
    for block in 0..SIZE / 512 {
        file.write_all_at(&(block as u32 + 1).to_le_bytes(), block * 512)
            .unwrap();
    }
}

/// Whether block `block` of the image is at `address`.
fn is_at(rig: &Rig, block: u32, address: u64) -> bool {
    rig.get(address, 4) == (block + 1).to_le_bytes()
}

#[test]
fn one_and_two_pages() {
    let (rig, file) = ready();
    numbered(&file);
    assert_eq!(
        read(&rig, 8, [DATA, u64::MAX]),
        OK,
        "the second is not looked at"
    );
    assert!(is_at(&rig, 7, DATA + 7 * 512));
    assert_eq!(read(&rig, 1, [DATA + PAGE - 512, 1]), OK);
    assert_eq!(read(&rig, 8, [DATA + 3584, HIGH]), OK);
    assert!(is_at(&rig, 0, DATA + 3584) && is_at(&rig, 1, HIGH) && is_at(&rig, 7, HIGH + 6 * 512));
    assert_eq!(read(&rig, 16, [DATA, HIGH]), OK);
    assert!(is_at(&rig, 8, HIGH) && is_at(&rig, 15, HIGH + 7 * 512));
    // A multiple of 4 is enough, however the host likes it.
    assert_eq!(read(&rig, 8, [DATA + 4, HIGH]), OK);
    assert!(is_at(&rig, 0, DATA + 4) && is_at(&rig, 7, DATA + 4 + 7 * 512));
}

#[test]
fn lists() {
    let (rig, file) = ready();
    numbered(&file);
    let pages = [HIGH, DATA + 4 * PAGE, DATA + 5 * PAGE, DATA + 2 * PAGE];
    let at = list(&rig, LISTS + 8, &pages);
    assert_eq!(read(&rig, 40, [DATA, at]), OK);
    for (number, page) in [DATA].iter().chain(&pages).enumerate() {
        assert!(is_at(&rig, number as u32 * 8, *page));
        assert!(is_at(&rig, number as u32 * 8 + 7, *page + 7 * 512));
    }
    // The last entry of a page, when it is enough.
    let at = list(&rig, LISTS + PAGE - 16, &[HIGH + PAGE, HIGH + 8 * PAGE]);
    assert_eq!(read(&rig, 24, [DATA, at]), OK);
    assert!(is_at(&rig, 16, HIGH + 8 * PAGE));
    // And when it is not: it says where the list goes on.
    let next = list(&rig, LISTS + 4 * PAGE, &[HIGH + 2 * PAGE, HIGH + 3 * PAGE]);
    let at = list(&rig, LISTS + PAGE - 16, &[HIGH + PAGE, next]);
    assert_eq!(read(&rig, 32, [DATA, at]), OK);
    assert!(is_at(&rig, 16, HIGH + 2 * PAGE) && is_at(&rig, 24, HIGH + 3 * PAGE));
    // Nothing but that.
    let at = list(&rig, LISTS + PAGE - 8, &[next]);
    assert_eq!(read(&rig, 24, [DATA, at]), OK);
    assert!(is_at(&rig, 8, HIGH + 2 * PAGE) && is_at(&rig, 16, HIGH + 3 * PAGE));
}

#[test]
fn the_largest_transfer() {
    let (rig, file) = ready();
    numbered(&file);
    let pages: Vec<u64> = (1..=512).map(|page| DATA + page * PAGE).collect();
    let at = list(&rig, LISTS, &pages);
    assert_eq!(read(&rig, 4096, [DATA, at]), OK);
    for block in 0..4096 {
        assert!(is_at(&rig, block, DATA + u64::from(block) * 512));
    }
    // Not at the beginning of a page: 512 more pages, and a list that ends with the last of them.
    assert_eq!(read(&rig, 4096, [DATA + 512, at]), OK);
    for block in 0..4096 {
        assert!(is_at(&rig, block, DATA + 512 + u64::from(block) * 512));
    }
    // Every other page, so that nothing can be put together.
    let pages: Vec<u64> = (0..511)
        .map(|page| DATA + (page * 2 % 1000) * PAGE)
        .collect();
    let at = list(&rig, LISTS, &pages);
    assert_eq!(read(&rig, 4096, [DATA, at]), OK);
    assert_eq!(rig.handle.statistics().totals().read_bytes, 3 << 21);
}

#[test]
fn offsets_that_cannot_be() {
    let (rig, _file) = ready();
    for offset in [1, 2, 3, 511, 4095] {
        assert_eq!(read(&rig, 1, [DATA + offset, 0]), PRP_OFFSET);
    }
    for offset in [4, 8, 512, 4092] {
        assert_eq!(read(&rig, 16, [DATA, DATA + PAGE + offset]), PRP_OFFSET);
    }
    for offset in [1, 4, 12, 4092] {
        assert_eq!(read(&rig, 24, [DATA, LISTS + offset]), PRP_OFFSET);
    }
    let at = list(&rig, LISTS, &[HIGH, HIGH + 512]);
    assert_eq!(read(&rig, 24, [DATA, at]), PRP_OFFSET);
    let at = list(&rig, LISTS + PAGE - 8, &[LISTS + 8]);
    assert_eq!(
        read(&rig, 24, [DATA, at]),
        PRP_OFFSET,
        "a list that goes on inside a page"
    );
    let totals = rig.handle.statistics().totals();
    assert_eq!((totals.reads, totals.errors), (0, 15));
}

#[test]
fn memory_that_is_not_there() {
    let (rig, _file) = ready();
    let last = u64::MAX - 4095;
    for address in [
        MEMORY,
        HIGH - 4096,
        HIGH + HIGH_BYTES,
        BASE,
        0xfee0_0000,
        last,
    ] {
        for code in [1, 2] {
            assert_eq!(rig.data(transfer(code, 0, 1, [address, 0])), DATA_TRANSFER);
            assert_eq!(
                rig.data(transfer(code, 0, 16, [DATA, address])),
                DATA_TRANSFER
            );
            assert_eq!(
                rig.data(transfer(code, 0, 24, [DATA, address])),
                DATA_TRANSFER
            );
            let at = list(&rig, LISTS, &[DATA, address]);
            assert_eq!(rig.data(transfer(code, 0, 24, [DATA, at])), DATA_TRANSFER);
            let at = list(&rig, LISTS + PAGE - 8, &[address]);
            assert_eq!(rig.data(transfer(code, 0, 24, [DATA, at])), DATA_TRANSFER);
        }
    }
    // Pages on both sides of a hole follow each other only in the list.
    assert_eq!(read(&rig, 16, [MEMORY - PAGE, MEMORY]), DATA_TRANSFER);
    assert_eq!(read(&rig, 16, [last, 0]), DATA_TRANSFER);
    assert_eq!(read(&rig, 16, [MEMORY - PAGE, HIGH]), OK);
}

#[test]
fn lists_that_lead_to_themselves_end() {
    let (rig, _file) = ready();
    // A page full of links to itself is a page full of data, its own.
    let at = list(&rig, LISTS, &[LISTS; 512]);
    assert_eq!(read(&rig, 24, [DATA, at]), OK);
    for first in [LISTS, LISTS + PAGE - 8] {
        list(&rig, LISTS, &[LISTS; 512]);
        assert_eq!(rig.data(transfer(1, 0, 4096, [DATA + 512, first])), OK);
    }
    // Data over its own list, and over the ring: the driver's loss.
    list(&rig, LISTS, &[LISTS; 512]);
    assert_eq!(read(&rig, 4096, [DATA, LISTS]), OK);
    assert_eq!(read(&rig, 8, [submission_ring(1), 0]), OK);
}
