//! Screenshots.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A picture of a guest's screen.
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Red, green and blue of each pixel, row by row.
    pub pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// Reads a PNG file.
    ///
    /// # Errors
    /// When it is none, or not one in 24 bits.
    pub fn read(path: &Path) -> Result<Self> {
        let file = BufReader::new(File::open(path)?);
        let mut reader = png::Decoder::new(file).read_info()?;
        let size = reader.output_buffer_size().context("too large")?;
        let mut bytes = vec![0; size];
        let frame = reader.next_frame(&mut bytes)?;
        ensure!(
            frame.color_type == png::ColorType::Rgb && frame.bit_depth == png::BitDepth::Eight,
            "{:?} in {:?} bits",
            frame.color_type,
            frame.bit_depth
        );
        let pixels = bytes[..frame.buffer_size()].chunks_exact(3);
        Ok(Self {
            width: frame.width,
            height: frame.height,
            pixels: pixels.map(|p| [p[0], p[1], p[2]]).collect(),
        })
    }

    /// Reads a PPM file (P6) with 255 values of each colour.
    ///
    /// # Errors
    /// When it is none.
    pub fn read_ppm(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)?;
        // Kind, width, height, highest value; a single white space ends the last.
        let mut fields = bytes.splitn(4, u8::is_ascii_whitespace);
        let mut field = || {
            fields
                .next()
                .and_then(|field| std::str::from_utf8(field).ok())
        };
        ensure!(field() == Some("P6"), "no PPM");
        let [width, height] =
            [field(), field()].map(|side| side.and_then(|side| side.parse().ok()));
        let (width, height): (u32, u32) = width.zip(height).context("no size")?;
        let pixels = fields.next().and_then(|rest| rest.strip_prefix(b"255\n"));
        let pixels = pixels.context("not 255 values of each colour")?;
        ensure!(
            pixels.len() == 3 * width as usize * height as usize,
            "cut off"
        );
        Ok(Self {
            width,
            height,
            pixels: pixels.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect(),
        })
    }

    /// Its colours, and how many pixels have each.
    pub fn colours(&self) -> BTreeMap<[u8; 3], usize> {
        let mut colours = BTreeMap::new();
        for &pixel in &self.pixels {
            *colours.entry(pixel).or_default() += 1;
        }
        colours
    }
}
