//! What a viewer has on its screen, tile by tile, without keeping the picture.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use crate::area::Area;
use crate::encoding::Block;
use crate::zrle::TILE;

/// Checksums of the tiles that were sent. Should two pictures of a tile have the same, which a guest can arrange for itself,
/// the viewer sees the older one until the next change.
pub(crate) struct Tiles {
    width: u16,
    height: u16,
    sent: Vec<Option<u64>>,
}

impl Tiles {
    /// Of a screen nothing of which was sent.
    pub fn new(width: u16, height: u16) -> Self {
        let count = columns(width) * columns(height);
        Self {
            width,
            height,
            sent: vec![None; count],
        }
    }

    /// The rows of tiles that an area touches.
    pub fn bands(&self, area: Area) -> Range<usize> {
        touched(area.top, area.bottom, self.height)
    }

    /// The rows of pixels in a row of tiles.
    pub fn rows(&self, band: usize) -> Range<u16> {
        let height = usize::from(self.height);
        let rows = band * TILE..((band + 1) * TILE).min(height);
        // Within the height.
        rows.start as u16..rows.end as u16
    }

    /// Forgets what an area looks like, so that it is sent again.
    pub fn forget(&mut self, area: Area) {
        let across = touched(area.left, area.right, self.width);
        for band in self.bands(area) {
            self.band(band)[across.clone()].fill(None);
        }
    }

    /// Where a row of tiles differs from what was sent, as runs of pixels across. `pixels` are its rows.
    pub fn changed(&mut self, band: usize, area: Area, pixels: &[u32]) -> Vec<Range<u16>> {
        let mut runs: Vec<Range<u16>> = Vec::new();
        let width = self.width;
        let across = touched(area.left, area.right, width);
        let sent = self.band(band);
        for (tile, range) in tiles(0..width).enumerate() {
            if !across.contains(&tile) || sent[tile] == Some(checksum(pixels, width, range.clone()))
            {
                continue;
            }
            match runs.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => runs.push(range),
            }
        }
        runs
    }

    /// Notes that a run was sent, which begins and ends as tiles do.
    pub fn sent(&mut self, band: usize, run: Range<u16>, pixels: &[u32]) {
        let width = self.width;
        let first = usize::from(run.start) / TILE;
        for (tile, range) in tiles(run).enumerate() {
            self.band(band)[first + tile] = Some(checksum(pixels, width, range));
        }
    }

    fn band(&mut self, band: usize) -> &mut [Option<u64>] {
        let columns = columns(self.width);
        &mut self.sent[band * columns..(band + 1) * columns]
    }
}

/// Tiles along an edge.
fn columns(pixels: u16) -> usize {
    usize::from(pixels).div_ceil(TILE)
}

/// Tiles along an edge that an interval touches.
fn touched(from: u16, to: u16, edge: u16) -> Range<usize> {
    let (from, to) = (from.min(edge), to.min(edge));
    if from >= to {
        return 0..0;
    }
    usize::from(from) / TILE..columns(to)
}

/// The pixels across each tile of a run.
fn tiles(run: Range<u16>) -> impl Iterator<Item = Range<u16>> {
    let end = run.end;
    run.step_by(TILE)
        .map(move |x| x..x.saturating_add(TILE as u16).min(end))
}

fn checksum(pixels: &[u32], stride: u16, across: Range<u16>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let block = Block {
        pixels,
        stride: usize::from(stride),
        left: usize::from(across.start),
        width: across.len(),
    };
    for row in block.rows() {
        row.hash(&mut hasher);
    }
    hasher.finish()
}
