//! One update on its way to the viewer: which rectangles it has is said first, and each is made when there is room for it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::Picture;
use crate::encoding::{Block, Encoder, Encoding};
use crate::format::Pixels;
use crate::tiles::Tiles;

/// A rectangle to be made: tiles side by side.
pub(crate) struct Run {
    pub band: usize,
    pub across: Range<u16>,
}

/// What is left of an update. Pixels are those of the moment in which they are encoded.
pub(crate) struct Update<P> {
    pub picture: P,
    pub runs: VecDeque<Run>,
    /// As they were when the update began, whatever the viewer wants next.
    pub pixels: Arc<Pixels>,
    pub encoding: Encoding,
}

/// The rows of pixels that were read last.
#[derive(Default)]
pub(crate) struct Rows {
    pixels: Vec<u32>,
}

impl Rows {
    /// Reads rows of a picture, cut or filled up with black to `width`.
    pub fn read(&mut self, picture: &impl Picture, rows: Range<u16>, width: u16) -> &[u32] {
        let width = usize::from(width);
        self.pixels.clear();
        for (number, y) in (1..).zip(rows) {
            if y < picture.size().1 {
                picture.row(y, &mut self.pixels);
            }
            self.pixels.resize(number * width, 0);
        }
        &self.pixels
    }
}

impl<P: Picture> Update<P> {
    /// Appends the next rectangle, if there is one.
    pub fn make(
        &mut self,
        tiles: &mut Tiles,
        width: u16,
        rows: &mut Rows,
        encoder: &mut Encoder,
        out: &mut Vec<u8>,
    ) {
        let Some(Run { band, across }) = self.runs.pop_front() else {
            return;
        };
        let down = tiles.rows(band);
        let pixels = rows.read(&self.picture, down.clone(), width);
        put_rectangle(across.clone(), down, self.encoding.number(), out);
        let block = Block {
            pixels,
            stride: usize::from(width),
            left: usize::from(across.start),
            width: across.len(),
        };
        encoder.encode(self.encoding, &self.pixels, block, out);
        tiles.sent(band, across, pixels);
    }
}

/// Appends the header of an update (RFC 6143, 7.6.1).
pub(crate) fn put_header(rectangles: u16, out: &mut Vec<u8>) {
    out.extend([0, 0]);
    out.extend(rectangles.to_be_bytes());
}

/// Appends the header of a rectangle.
pub(crate) fn put_rectangle(
    across: Range<u16>,
    down: Range<u16>,
    encoding: i32,
    out: &mut Vec<u8>,
) {
    let sides = [
        across.start,
        down.start,
        across.end - across.start,
        down.end - down.start,
    ];
    for side in sides {
        out.extend(side.to_be_bytes());
    }
    out.extend(encoding.to_be_bytes());
}
