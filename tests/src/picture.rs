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

    /// Its colours, and how many pixels have each.
    pub fn colours(&self) -> BTreeMap<[u8; 3], usize> {
        let mut colours = BTreeMap::new();
        for &pixel in &self.pixels {
            *colours.entry(pixel).or_default() += 1;
        }
        colours
    }
}
