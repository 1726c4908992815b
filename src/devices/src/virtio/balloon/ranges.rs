//! The pages of one request, in order and without overlaps.

use std::ops::Range;

use super::PAGE;

/// Most bytes discarded in one call: some milliseconds of the host kernel's work.
const PIECE: u64 = 32 << 20;

/// Ranges of guest-physical memory. Reuse it to save allocations.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    list: Vec<Range<u64>>,
}

impl Ranges {
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Adds the whole pages of a range; what is left over at its ends stays with the guest.
    pub fn add(&mut self, range: Range<u64>) {
        let start = range.start.next_multiple_of(PAGE);
        let end = range.end / PAGE * PAGE;
        if start < end {
            self.list.push(start..end);
        }
    }

    /// All pages once, in few and yet not too large pieces. Neighbours become one piece: a driver
    /// names single pages, the host frees runs.
    pub fn pieces(&mut self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.list.sort_unstable_by_key(|range| range.start);
        self.list.dedup_by(|next, before| {
            let touches = next.start <= before.end;
            if touches {
                before.end = before.end.max(next.end);
            }
            touches
        });
        self.list.iter().flat_map(|range| {
            let end = range.end;
            range
                .clone()
                .step_by(PIECE as usize)
                .map(move |start| start..end.min(start + PIECE))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First address and end of each piece.
    fn pieces(list: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut ranges = Ranges::default();
        for &(start, end) in list {
            ranges.add(start..end);
        }
        ranges
            .pieces()
            .map(|piece| (piece.start, piece.end))
            .collect()
    }

    #[test]
    fn neighbours_become_one() {
        let page = |number: u64| (number * PAGE, (number + 1) * PAGE);
        assert_eq!(
            pieces(&[page(5), page(3), page(4), page(4), page(9)]),
            [(3 * PAGE, 6 * PAGE), page(9)]
        );
        assert_eq!(
            pieces(&[(0, 8 * PAGE), page(2), page(7), page(8)]),
            [(0, 9 * PAGE)]
        );
        assert!(pieces(&[]).is_empty());
    }

    #[test]
    fn only_whole_pages_count() {
        let parts = [(1, PAGE), (PAGE - 1, PAGE + 1), (PAGE, 2 * PAGE - 1)];
        assert!(pieces(&parts).is_empty());
        assert_eq!(pieces(&[(1, 3 * PAGE + 5)]), [(PAGE, 3 * PAGE)]);
    }

    #[test]
    fn much_is_cut_in_pieces() {
        let all = pieces(&[(PAGE, PAGE + 2 * PIECE + PAGE)]);
        assert_eq!(all.len(), 3);
        assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert_eq!((all[0].0, all[2].1), (PAGE, PAGE + 2 * PIECE + PAGE));
    }
}
