//! A qcow2 of version 3 whose tables come before its data (QEMU, docs/interop/qcow2.txt).

mod runs;

use std::fs::File;

use self::runs::{Run, indices};
use super::{Backing, CHUNK, Disk, Export};
use crate::copy::CopyError;

const BITS: u32 = 16;
const CLUSTER: u64 = 1 << BITS;

/// Entries of a table of either level, and of the refcount table.
const PER_TABLE: u64 = CLUSTER / 8;

/// Counts of 16 bits in a refcount block.
const PER_BLOCK: u64 = CLUSTER / 2;

/// An entry's cluster has one user.
const COPIED: u64 = 1 << 63;

/// An entry without a cluster, which reads as zeroes whatever is below.
const ZEROES: u64 = 1;

/// Where the header's extensions begin, and the one that tells the backing file's format.
const EXTENSIONS: usize = 104;
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// The file in clusters: header, refcount table and blocks, first level, second level, data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    refcount_table: u64,
    refcount_blocks: u64,
    l1: u64,
    l2: u64,
    data: u64,
    end: u64,
}

pub(super) struct Qcow2 {
    disk: Disk,
    backing: Option<Backing>,
    runs: Vec<Run>,
    layout: Layout,
    /// The next cluster of the file.
    next: u64,
    /// The next tables of the second level, and data: indices of their runs, and clusters of data before.
    tables: Cursor,
    data: Cursor,
}

/// A place among the runs.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    run: usize,
    /// Clusters of the run that are done.
    within: u64,
    /// Clusters of data that are done.
    done: u64,
}

impl Qcow2 {
    pub(super) fn new(disk: Disk) -> Result<Self, CopyError> {
        let runs = runs::of_data(&disk)?;
        Ok(Self::of(disk, runs, None))
    }

    /// Of what is another than in `base`.
    pub(super) fn changes(
        disk: Disk,
        base: &File,
        backing: Option<Backing>,
    ) -> Result<Self, CopyError> {
        let runs = runs::of_changes(&disk, base)?;
        Ok(Self::of(disk, runs, backing))
    }

    fn of(disk: Disk, runs: Vec<Run>, backing: Option<Backing>) -> Self {
        Self {
            layout: layout(disk.size, &runs),
            disk,
            backing,
            runs,
            next: 0,
            tables: Cursor::default(),
            data: Cursor::default(),
        }
    }

    fn cluster(&mut self, number: u64, cluster: &mut [u8]) -> Result<(), CopyError> {
        let layout = self.layout;
        if number == 0 {
            header(self.disk.size, layout, self.backing.as_ref(), cluster);
        } else if number < layout.refcount_blocks {
            let blocks = layout.l1 - layout.refcount_blocks;
            let first = (number - layout.refcount_table) * PER_TABLE;
            let entries = (first..blocks).map(|block| (layout.refcount_blocks + block) * CLUSTER);
            fill(cluster, entries);
        } else if number < layout.l1 {
            let first = (number - layout.refcount_blocks) * PER_BLOCK;
            let used = layout.end.saturating_sub(first).min(PER_BLOCK);
            let (counts, _) = cluster.as_chunks_mut::<2>();
            counts[..used as usize].fill(1_u16.to_be_bytes());
        } else if number < layout.l2 {
            self.first_level((number - layout.l1) * PER_TABLE, cluster);
        } else if number < layout.data {
            self.second_level(cluster);
        } else {
            return self.next_data(cluster);
        }
        Ok(())
    }

    /// The part of the first level that begins with entry `first`.
    fn first_level(&self, first: u64, cluster: &mut [u8]) {
        let (entries, _) = cluster.as_chunks_mut::<8>();
        for (table, index) in indices(&self.runs).enumerate() {
            let Some(entry) = index.checked_sub(first) else {
                continue;
            };
            let Some(entry) = entries.get_mut(entry as usize) else {
                break;
            };
            let at = (self.layout.l2 + table as u64) * CLUSTER;
            *entry = (at | COPIED).to_be_bytes();
        }
    }

    /// The next table of the second level.
    fn second_level(&mut self, cluster: &mut [u8]) {
        let (entries, _) = cluster.as_chunks_mut::<8>();
        let mut index = None;
        while let Some(run) = self.runs.get(self.tables.run) {
            let place = run.first + self.tables.within;
            if *index.get_or_insert(place / PER_TABLE) != place / PER_TABLE {
                return;
            }
            let entry = match run.zeroes {
                true => ZEROES,
                false => ((self.layout.data + self.tables.done) * CLUSTER) | COPIED,
            };
            entries[(place % PER_TABLE) as usize] = entry.to_be_bytes();
            self.tables.advance(run);
        }
    }

    fn next_data(&mut self, cluster: &mut [u8]) -> Result<(), CopyError> {
        while self.runs.get(self.data.run).is_some_and(|run| run.zeroes) {
            self.data.run += 1;
        }
        let Some(run) = self.runs.get(self.data.run) else {
            return Ok(());
        };
        let at = (run.first + self.data.within) * CLUSTER;
        self.data.advance(run);
        self.disk.read(at, cluster)
    }
}

impl Cursor {
    fn advance(&mut self, run: &Run) {
        self.done += u64::from(!run.zeroes);
        self.within += 1;
        if self.within == run.count {
            self.within = 0;
            self.run += 1;
        }
    }
}

impl Export for Qcow2 {
    fn length(&self) -> Option<u64> {
        Some(self.layout.end * CLUSTER)
    }

    fn position(&self) -> u64 {
        match self.runs.get(self.data.run) {
            Some(run) => (run.first + self.data.within) * CLUSTER,
            None => self.disk.size,
        }
    }

    fn next_piece(&mut self, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        for _ in 0..CHUNK as u64 / CLUSTER {
            if self.next == self.layout.end {
                break;
            }
            let start = buffer.len();
            buffer.resize(start + CLUSTER as usize, 0);
            self.cluster(self.next, &mut buffer[start..])?;
            self.next += 1;
        }
        Ok(())
    }
}

fn layout(size: u64, runs: &[Run]) -> Layout {
    let data = runs.iter().filter(|run| !run.zeroes);
    let data: u64 = data.map(|run| run.count).sum();
    let tables = indices(runs).count() as u64;
    let first_level = size.div_ceil(CLUSTER * PER_TABLE).div_ceil(PER_TABLE);
    let others = 1 + first_level + tables + data;
    // Refcount blocks count themselves and their table as well.
    let (mut blocks, mut table) = (1, 1);
    loop {
        let needed = (others + blocks + table).div_ceil(PER_BLOCK);
        let needed_table = needed.div_ceil(PER_TABLE);
        if (needed, needed_table) == (blocks, table) {
            break;
        }
        (blocks, table) = (needed.max(blocks), needed_table.max(table));
    }
    let refcount_blocks = 1 + table;
    let l1 = refcount_blocks + blocks;
    let l2 = l1 + first_level;
    Layout {
        refcount_table: 1,
        refcount_blocks,
        l1,
        l2,
        data: l2 + tables,
        end: l2 + tables + data,
    }
}

fn fill(cluster: &mut [u8], entries: impl Iterator<Item = u64>) {
    let (places, _) = cluster.as_chunks_mut::<8>();
    for (place, entry) in places.iter_mut().zip(entries) {
        *place = entry.to_be_bytes();
    }
}

fn header(size: u64, layout: Layout, backing: Option<&Backing>, cluster: &mut [u8]) {
    let mut put = |at: usize, bytes: &[u8]| cluster[at..at + bytes.len()].copy_from_slice(bytes);
    let refcount_clusters = layout.refcount_blocks - layout.refcount_table;
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &BITS.to_be_bytes());
    put(24, &size.to_be_bytes());
    let entries = size.div_ceil(CLUSTER * PER_TABLE);
    put(36, &(entries as u32).to_be_bytes());
    put(40, &(layout.l1 * CLUSTER).to_be_bytes());
    put(48, &(layout.refcount_table * CLUSTER).to_be_bytes());
    put(56, &(refcount_clusters as u32).to_be_bytes());
    // Refcounts of 2^4 bits.
    put(96, &4_u32.to_be_bytes());
    put(100, &(EXTENSIONS as u32).to_be_bytes());
    // What follows is zero: the end of the header's extensions.
    let Some(Backing { name, qcow2 }) = backing else {
        return;
    };
    let format: &[u8] = if *qcow2 { b"qcow2" } else { b"raw" };
    put(EXTENSIONS, &BACKING_FORMAT.to_be_bytes());
    put(EXTENSIONS + 4, &(format.len() as u32).to_be_bytes());
    put(EXTENSIONS + 8, format);
    // Behind it and the end of the extensions, eight bytes each.
    let place = EXTENSIONS + 24;
    put(8, &(place as u64).to_be_bytes());
    put(16, &(name.len() as u32).to_be_bytes());
    put(place, name.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_counts_itself() {
        let runs = |count| {
            [Run {
                first: 0,
                count,
                zeroes: false,
            }]
        };
        for count in [
            0,
            1,
            PER_BLOCK - 6,
            PER_BLOCK - 5,
            PER_BLOCK,
            1 << 28,
            1 << 30,
        ] {
            let layout = layout((count + 1) * CLUSTER, &runs(count));
            let blocks = layout.l1 - layout.refcount_blocks;
            assert!(blocks * PER_BLOCK >= layout.end, "{count}: {layout:?}");
            let table = layout.refcount_blocks - layout.refcount_table;
            assert!(table * PER_TABLE >= blocks, "{count}: {layout:?}");
        }
    }
}
