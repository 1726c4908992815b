//! A picture of a guest's screen, from the monitor's raw pixels to PNG.
//!
//! A monitor may be hostile: it gets a file whose length is fixed, so that nothing it does makes the file shorter or longer
//! than what is read of it here.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use lodge_vmm_proto::MAX_SCREEN;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes of a pixel as the monitor writes it: blue, green, red, 0.
const PIXEL: usize = 4;

/// Size of a picture in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    width: u32,
    height: u32,
}

impl Size {
    /// The size, if a picture may have it.
    pub(super) fn new(width: u32, height: u32) -> Option<Self> {
        let pixels = u64::from(width).checked_mul(height.into())?;
        let bytes = pixels.checked_mul(PIXEL as u64)?;
        (1..=MAX_SCREEN)
            .contains(&bytes)
            .then_some(Self { width, height })
    }
}

/// A file in memory for the largest picture. It takes up no more than what is written to it.
pub(super) fn file() -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create("screen", flags)?);
    file.set_len(MAX_SCREEN)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// The picture at the start of `file` as PNG. Read row by row, and never mapped: it may change meanwhile.
pub(super) fn encode(file: &File, size: Size) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.width, size.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    let mut stream = writer.stream_writer()?;
    let length = size.width as usize * PIXEL;
    let mut row = vec![0; length];
    let mut colours = Vec::with_capacity(size.width as usize * 3);
    for number in 0..u64::from(size.height) {
        file.read_exact_at(&mut row, number * length as u64)?;
        colours.clear();
        let (pixels, _) = row.as_chunks::<PIXEL>();
        colours.extend(
            pixels
                .iter()
                .flat_map(|&[blue, green, red, _]| [red, green, blue]),
        );
        stream.write_all(&colours)?;
    }
    stream.finish()?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(png: &[u8]) -> (u32, u32, Vec<u8>) {
        let decoder = png::Decoder::new(io::Cursor::new(png));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgb);
        (info.width, info.height, pixels)
    }

    #[test]
    fn colours_and_sizes_survive() {
        let file = file().unwrap();
        let pixels = [0x33, 0x22, 0x11, 0, 0xcc, 0xbb, 0xaa, 0xff];
        file.write_all_at(&pixels, 0).unwrap();
        let png = encode(&file, Size::new(2, 2).unwrap()).unwrap();
        let expected = [0x11, 0x22, 0x33, 0xaa, 0xbb, 0xcc, 0, 0, 0, 0, 0, 0];
        assert_eq!(decode(&png), (2, 2, expected.to_vec()));
    }

    #[test]
    fn the_file_keeps_its_length() {
        let file = file().unwrap();
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(MAX_SCREEN + 1).is_err());
        assert!(file.write_all_at(&[1], MAX_SCREEN).is_err());
        assert_eq!(file.metadata().unwrap().len(), MAX_SCREEN);
        // A monitor that wrote nothing at all.
        let size = Size::new(1024, 768).unwrap();
        assert!(encode(&file, size).unwrap().len() < 1 << 16);
    }

    #[test]
    fn sizes_are_bounded() {
        for (width, height) in [
            (0, 1),
            (1, 0),
            (4096, 4097),
            (u32::MAX, u32::MAX),
            (u32::MAX, 1),
        ] {
            assert_eq!(Size::new(width, height), None, "{width}x{height}");
        }
    }
}
