//! What is told is all that differs, on whatever filesystem the tests run.

use std::os::unix::fs::FileExt as _;

use nix::fcntl::{FallocateFlags, fallocate};

use super::*;

const SIZE: u64 = 4 << 20;

fn file(size: u64, data: &[(u64, u64, u8)]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    for &(at, length, byte) in data {
        file.write_all_at(&vec![byte; length as usize], at).unwrap();
    }
    file
}

fn all(mut changes: Changes<'_>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    while let Some(range) = changes.next().unwrap() {
        assert!(range.start < range.end, "{range:?}");
        assert!(
            ranges.last().is_none_or(|last| last.end <= range.start),
            "{range:?} after {ranges:?}"
        );
        ranges.push(range);
    }
    ranges
}

/// What is in no range is equal.
fn assert_complete(base: &File, now: &File, ranges: &[Range<u64>]) {
    for at in (0..SIZE + PIECE).step_by(512) {
        if ranges.iter().any(|range| range.contains(&at)) {
            continue;
        }
        let mut sectors = [[0; 512]; 2];
        read_padded(base, at, &mut sectors[0]).unwrap();
        read_padded(now, at, &mut sectors[1]).unwrap();
        assert_eq!(sectors[0], sectors[1], "at {at:#x}, not in {ranges:?}");
    }
}

#[test]
fn contents_are_compared() {
    let base = file(
        SIZE,
        &[(0, 8192, 1), (1 << 20, 1 << 18, 2), (3 << 20, 4096, 3)],
    );
    let now = file(
        SIZE,
        &[(0, 8192, 1), (1 << 20, 1 << 18, 2), (2 << 20, 4096, 4)],
    );
    now.write_all_at(&[9], (1 << 20) + 70_000).unwrap();
    let ranges = all(Changes::by_contents(&base, &now).unwrap());
    let piece = |at: u64| at / PIECE * PIECE..at / PIECE * PIECE + PIECE;
    let expected = [(1 << 20) + 70_000, 2 << 20, 3 << 20].map(piece);
    assert_eq!(ranges, expected);
    assert_complete(&base, &now, &ranges);
    assert_eq!(all(Changes::by_contents(&base, &base).unwrap()), []);
}

#[test]
fn a_copy_at_another_place_is_no_change() {
    let data = [(0, 8192, 1), (1 << 20, 1 << 18, 2)];
    let (base, now) = (file(SIZE, &data), file(SIZE, &data));
    let ranges = all(Changes::between(&base, &now).unwrap());
    // Where extents are shared, what is at another place is taken to be another.
    assert_eq!(ranges.is_empty(), !shares_extents(&now), "{ranges:?}");
}

#[test]
fn nothing_that_differs_is_left_out() {
    let data = [(4096, 8192, 1), (1 << 20, 1 << 18, 2), (3 << 20, 4096, 3)];
    for (base, now) in [
        (file(SIZE, &data), file(SIZE, &data[1..])),
        (file(SIZE, &data[1..]), file(SIZE, &data)),
        (file(SIZE, &[]), file(SIZE, &data)),
        (file(SIZE, &data), file(SIZE, &[])),
        // A disk that has grown, and one that is as it was before that.
        (file(1 << 20, &data[..1]), file(SIZE, &data)),
        (file(SIZE, &data), file(1 << 20, &data[..1])),
    ] {
        for changes in [
            Changes::between(&base, &now),
            Changes::by_contents(&base, &now),
        ] {
            assert_complete(&base, &now, &all(changes.unwrap()));
        }
    }
}

#[test]
fn what_is_at_the_same_place_is_the_same() {
    let one = file(SIZE, &[(0, 1 << 20, 1), (2 << 20, 8192, 2)]);
    assert_eq!(all(Changes::between(&one, &one).unwrap()), []);
    // Allocated and not written to is a hole.
    let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let reserved = file(SIZE, &[]);
    if fallocate(&reserved, keep, 0, 1 << 20).is_ok() {
        let empty = file(SIZE, &[]);
        assert_eq!(all(Changes::between(&empty, &reserved).unwrap()), []);
    }
}
