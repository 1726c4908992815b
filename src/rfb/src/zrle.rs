//! ZRLE (RFC 6143, 7.7.6): tiles of 64 by 64 pixels in one zlib stream.
//!
//! Of the ways to write a tile down three are used: one colour, a palette of up to sixteen, and all pixels. Screens of text
//! consist of the first two, and what runs of equal pixels would save in the third, zlib saves as well.

use flate2::{Compress, Compression, FlushCompress};

use crate::encoding::Block;
use crate::format::Pixels;

/// Width and height of a tile.
pub(crate) const TILE: usize = 64;

/// Most colours of a palette whose pixels are packed.
const PALETTE: usize = 16;

/// Subencodings: a palette has the number of its colours.
const RAW: u8 = 0;
const SOLID: u8 = 1;

/// Room that the compressor is given at a time.
const PIECE: usize = 4 << 10;

/// The stream.
pub(crate) struct Zrle {
    stream: Compress,
    plain: Vec<u8>,
}

impl Default for Zrle {
    fn default() -> Self {
        Self {
            stream: Compress::new(Compression::fast(), true),
            plain: Vec::new(),
        }
    }
}

impl Zrle {
    /// Appends a rectangle at most [`TILE`] rows high: length and data.
    pub fn encode(&mut self, pixels: &Pixels, block: Block<'_>, out: &mut Vec<u8>) {
        self.plain.clear();
        for tile in block.split(TILE) {
            put_tile(pixels, tile, &mut self.plain);
        }
        let length = out.len();
        out.extend([0; 4]);
        self.compress(out);
        let data = out.len() - length - 4;
        // A rectangle has a few MiB at most.
        out[length..length + 4].copy_from_slice(&(data as u32).to_be_bytes());
    }

    /// Appends all that was plain, flushed so that the viewer can read it.
    fn compress(&mut self, out: &mut Vec<u8>) {
        let before = self.stream.total_in();
        loop {
            out.reserve(PIECE);
            let taken = (self.stream.total_in() - before) as usize;
            let rest = &self.plain[taken..];
            let room = out.capacity() - out.len();
            let made = self.stream.total_out();
            // Fails only on a stream that was finished, which this never is.
            let _ = self.stream.compress_vec(rest, out, FlushCompress::Sync);
            let made = (self.stream.total_out() - made) as usize;
            // There is more to come as long as it takes all the room there is.
            if made < room {
                return;
            }
        }
    }
}

fn put_tile(pixels: &Pixels, tile: Block<'_>, out: &mut Vec<u8>) {
    let palette = Palette::of(tile);
    match palette.as_ref().map(Palette::colours) {
        None => {
            out.push(RAW);
            for colour in tile.rows().flatten() {
                pixels.put_compact(*colour, out);
            }
        }
        Some(&[colour]) => {
            out.push(SOLID);
            pixels.put_compact(colour, out);
        }
        Some(colours) => {
            out.push(colours.len() as u8);
            for colour in colours {
                pixels.put_compact(*colour, out);
            }
            for row in tile.rows() {
                put_packed(colours, row, out);
            }
        }
    }
}

/// Appends a row as numbers in the palette, packed from the high bits on; each row begins with a byte of its own.
fn put_packed(colours: &[u32], row: &[u32], out: &mut Vec<u8>) {
    let bits = match colours.len() {
        0..=2 => 1,
        3..=4 => 2,
        _ => 4,
    };
    for group in row.chunks(8 / bits) {
        let mut byte = 0;
        for (place, colour) in (1..).zip(group) {
            let index = colours.iter().position(|known| known == colour);
            byte |= index.unwrap_or(0) << (8 - bits * place);
        }
        out.push(byte as u8);
    }
}

/// The colours of a tile, in the order in which they come.
struct Palette {
    colours: [u32; PALETTE],
    count: usize,
}

impl Palette {
    /// `None` when there are too many.
    fn of(tile: Block<'_>) -> Option<Self> {
        let mut palette = Self {
            colours: [0; PALETTE],
            count: 0,
        };
        let mut last = None;
        for &colour in tile.rows().flatten() {
            // Mostly it is the same as its neighbour.
            if last != Some(colour) {
                palette.add(colour)?;
                last = Some(colour);
            }
        }
        Some(palette)
    }

    fn add(&mut self, colour: u32) -> Option<()> {
        if !self.colours().contains(&colour) {
            *self.colours.get_mut(self.count)? = colour;
            self.count += 1;
        }
        Some(())
    }

    fn colours(&self) -> &[u32] {
        &self.colours[..self.count]
    }
}
