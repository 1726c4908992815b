//! How rectangles are encoded, and what else a viewer says it understands (RFC 6143, 7.7 and 7.8).

use crate::format::Pixels;
use crate::zrle::Zrle;

/// Encodings of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Raw,
    Zrle,
}

/// Pseudo-encoding DesktopSize.
pub(crate) const DESKTOP_SIZE: i32 = -223;
/// Pseudo-encoding QEMU Extended Key Event.
pub(crate) const QEMU_KEYS: i32 = -258;

impl Encoding {
    /// The first of a viewer's encodings that is known here. Raw needs not be listed.
    pub fn choose(listed: &[i32]) -> Self {
        let known = listed.iter().find_map(|&number| match number {
            0 => Some(Self::Raw),
            16 => Some(Self::Zrle),
            _ => None,
        });
        known.unwrap_or(Self::Raw)
    }

    pub fn number(self) -> i32 {
        match self {
            Self::Raw => 0,
            Self::Zrle => 16,
        }
    }
}

/// Pixels of a rectangle, in rows of a wider one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    pub pixels: &'a [u32],
    /// Pixels from a row to the next.
    pub stride: usize,
    pub left: usize,
    pub width: usize,
}

impl<'a> Block<'a> {
    pub fn rows(self) -> impl Iterator<Item = &'a [u32]> {
        let rows = self.pixels.chunks_exact(self.stride);
        rows.map(move |row| &row[self.left..self.left + self.width])
    }

    /// Its columns, `width` at a time.
    pub fn split(self, width: usize) -> impl Iterator<Item = Self> {
        (0..self.width).step_by(width).map(move |x| Self {
            left: self.left + x,
            width: width.min(self.width - x),
            ..self
        })
    }
}

/// Encodes rectangles for one viewer.
#[derive(Default)]
pub(crate) struct Encoder {
    /// The viewer's end remembers what came before, so there is one for the whole session.
    zrle: Zrle,
}

impl Encoder {
    /// Appends the data of a rectangle at most 64 rows high.
    pub fn encode(
        &mut self,
        encoding: Encoding,
        pixels: &Pixels,
        block: Block<'_>,
        out: &mut Vec<u8>,
    ) {
        match encoding {
            Encoding::Raw => {
                for colour in block.rows().flatten() {
                    pixels.put(*colour, out);
                }
            }
            Encoding::Zrle => self.zrle.encode(pixels, block, out),
        }
    }
}
