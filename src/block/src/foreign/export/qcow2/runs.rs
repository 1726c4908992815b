//! Which clusters of a disk are in its image.

use std::fs::File;

use super::{CLUSTER, PER_TABLE};
use crate::changes::Changes;
use crate::copy::CopyError;
use crate::foreign::export::Disk;

/// Clusters of the disk one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub first: u64,
    pub count: u64,
    /// They read as zeroes, whatever the image is read upon.
    pub zeroes: bool,
}

/// Where the disk has data, in whole clusters.
pub(super) fn of_data(disk: &Disk) -> Result<Vec<Run>, CopyError> {
    let mut runs = Vec::new();
    let mut position = 0;
    while let Some((start, end)) = disk.next_data(position)? {
        let end = end.div_ceil(CLUSTER);
        add(&mut runs, start / CLUSTER, end, false);
        position = end * CLUSTER;
    }
    Ok(runs)
}

/// Where the disk is another than `base`, in whole clusters.
pub(super) fn of_changes(disk: &Disk, base: &File) -> Result<Vec<Run>, CopyError> {
    let mut runs = Vec::new();
    let mut changes = Changes::between(base, &disk.file)?;
    let (mut done, last) = (0, disk.size.div_ceil(CLUSTER));
    while let Some(range) = changes.next()? {
        let first = (range.start / CLUSTER).max(done);
        let end = range.end.div_ceil(CLUSTER).min(last);
        if first < end {
            add_with_holes(&mut runs, disk, first, end)?;
            done = end;
        }
    }
    Ok(runs)
}

/// Adds clusters of which some may be holes.
fn add_with_holes(
    runs: &mut Vec<Run>,
    disk: &Disk,
    mut first: u64,
    end: u64,
) -> Result<(), CopyError> {
    while first < end {
        let data = disk.next_data(first * CLUSTER)?;
        let data = data.map(|(start, stop)| (start / CLUSTER, stop.div_ceil(CLUSTER)));
        let (start, stop) = data.unwrap_or((end, end));
        add(runs, first, start.min(end), true);
        add(runs, start.max(first), stop.min(end), false);
        first = stop.min(end);
    }
    Ok(())
}

/// Adds the clusters from `first` to before `end`, if there are any. They come behind all others, or touch the last.
fn add(runs: &mut Vec<Run>, first: u64, end: u64, zeroes: bool) {
    if first >= end {
        return;
    }
    match runs.last_mut() {
        Some(last) if last.zeroes == zeroes && last.first + last.count >= first => {
            last.count = end - last.first;
        }
        _ => runs.push(Run {
            first,
            count: end - first,
            zeroes,
        }),
    }
}

/// Entries of the first level that have a table, in order.
pub(super) fn indices(runs: &[Run]) -> impl Iterator<Item = u64> {
    let mut next = 0;
    runs.iter().flat_map(move |run| {
        let first = (run.first / PER_TABLE).max(next);
        let end = (run.first + run.count).div_ceil(PER_TABLE);
        next = next.max(end);
        first..end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_counted_once() {
        let run = |first, count| Run {
            first,
            count,
            zeroes: first == 5,
        };
        let runs = [
            run(0, 1),
            run(5, PER_TABLE),
            run(3 * PER_TABLE, 1),
            run(3 * PER_TABLE + 7, 1),
        ];
        assert_eq!(indices(&runs).collect::<Vec<_>>(), [0, 1, 3]);
    }

    #[test]
    fn neighbours_of_one_kind_are_one_run() {
        let mut runs = Vec::new();
        for (first, end, zeroes) in [
            (0, 0, false),
            (0, 2, false),
            (1, 3, false),
            (3, 4, false),
            (4, 5, true),
            (5, 7, true),
            (8, 9, true),
        ] {
            add(&mut runs, first, end, zeroes);
        }
        let found: Vec<_> = runs
            .iter()
            .map(|run| (run.first, run.count, run.zeroes))
            .collect();
        assert_eq!(found, [(0, 4, false), (4, 3, true), (8, 1, true)]);
    }
}
