//! Pixel formats (RFC 6143, 7.4).

use crate::Violation;

/// How a viewer wants its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PixelFormat {
    bits_per_pixel: u8,
    depth: u8,
    big_endian: bool,
    /// Of red, green and blue.
    max: [u16; 3],
    /// Of red, green and blue.
    shift: [u8; 3],
}

/// Length of a format in messages.
pub(crate) const FORMAT_BYTES: usize = 16;

impl PixelFormat {
    /// The format of viewers that set none: 0x00RRGGBB, little endian.
    pub const NATIVE: Self = Self {
        bits_per_pixel: 32,
        depth: 24,
        big_endian: false,
        max: [255; 3],
        shift: [16, 8, 0],
    };

    /// Reads a format, which must be one with true colours. The depth is only told: the maxima say which bits count.
    pub fn parse(bytes: &[u8; FORMAT_BYTES]) -> Result<Self, Violation> {
        let [bits_per_pixel, depth, big_endian, true_colour, rest @ ..] = *bytes;
        let [r0, r1, g0, g1, b0, b1, red, green, blue, _, _, _] = rest;
        let format = Self {
            bits_per_pixel,
            depth,
            big_endian: big_endian != 0,
            max: [[r0, r1], [g0, g1], [b0, b1]].map(u16::from_be_bytes),
            shift: [red, green, blue],
        };
        if !matches!(bits_per_pixel, 8 | 16 | 32) {
            return Err(Violation::Format("pixels have 8, 16 or 32 bits"));
        }
        if true_colour == 0 {
            return Err(Violation::Format("colour maps are not supported"));
        }
        for (max, shift) in format.max.into_iter().zip(format.shift) {
            // One less than a power of two.
            if max == 0 || max & max.wrapping_add(1) != 0 {
                return Err(Violation::Format("a colour's maximum is all ones"));
            }
            if max.count_ones() + u32::from(shift) > u32::from(bits_per_pixel) {
                return Err(Violation::Format("a colour lies outside of the pixel"));
            }
        }
        Ok(format)
    }

    /// The format as messages hold it.
    pub fn to_bytes(self) -> [u8; FORMAT_BYTES] {
        let [[r0, r1], [g0, g1], [b0, b1]] = self.max.map(u16::to_be_bytes);
        let [red, green, blue] = self.shift;
        let big_endian = u8::from(self.big_endian);
        let (bits, depth) = (self.bits_per_pixel, self.depth);
        [
            bits, depth, big_endian, 1, r0, r1, g0, g1, b0, b1, red, green, blue, 0, 0, 0,
        ]
    }
}

/// Turns 0x00RRGGBB into a viewer's pixels.
pub(crate) struct Pixels {
    /// What each value of red, green and blue contributes.
    tables: [[u32; 256]; 3],
    bytes: usize,
    big_endian: bool,
    /// Which bytes of a pixel make a CPIXEL.
    compact: (usize, usize),
}

impl Pixels {
    /// The pixels of a format.
    pub fn new(format: &PixelFormat) -> Self {
        let mut tables = [[0; 256]; 3];
        for (table, (max, shift)) in tables
            .iter_mut()
            .zip(format.max.into_iter().zip(format.shift))
        {
            for (value, entry) in (0..).zip(table) {
                *entry = ((value * u32::from(max) + 127) / 255) << shift;
            }
        }
        Self {
            tables,
            bytes: usize::from(format.bits_per_pixel / 8),
            big_endian: format.big_endian,
            compact: compact(format),
        }
    }

    /// Appends a PIXEL.
    pub fn put(&self, colour: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.wire(colour)[..self.bytes]);
    }

    /// Appends a CPIXEL, the shorter pixel of ZRLE.
    pub fn put_compact(&self, colour: u32, out: &mut Vec<u8>) {
        let (start, end) = self.compact;
        out.extend_from_slice(&self.wire(colour)[start..end]);
    }

    /// A pixel in the order in which it is sent, in the first `bytes`.
    fn wire(&self, colour: u32) -> [u8; 4] {
        let [_, red, green, blue] = colour.to_be_bytes().map(usize::from);
        let value = self.tables[0][red] | self.tables[1][green] | self.tables[2][blue];
        match (self.big_endian, self.bytes) {
            (false, _) => value.to_le_bytes(),
            (true, 4) => value.to_be_bytes(),
            (true, bytes) => (value << (32 - 8 * bytes)).to_be_bytes(),
        }
    }
}

/// Which bytes of a pixel are sent by ZRLE (RFC 6143, 7.7.5): three of four where the colours lie in three.
///
/// The depth that a viewer gives does not count, as it does not in other servers: what it should be follows from the maxima.
fn compact(format: &PixelFormat) -> (usize, usize) {
    let bytes = usize::from(format.bits_per_pixel / 8);
    if bytes < 4 {
        return (0, bytes);
    }
    let colours = format.max.into_iter().zip(format.shift);
    let used = colours.fold(0, |bits, (max, shift)| bits | u32::from(max) << shift);
    let (low, high) = (used & 0xff00_0000 == 0, used & 0xff == 0);
    match (low, high, format.big_endian) {
        (true, _, false) | (_, true, true) => (0, 3),
        (true, _, true) | (_, true, false) => (1, 4),
        (false, false, _) => (0, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(bits: u8, big: bool, max: [u16; 3], shift: [u8; 3]) -> PixelFormat {
        PixelFormat {
            bits_per_pixel: bits,
            depth: 24,
            big_endian: big,
            max,
            shift,
        }
    }

    fn put(format: &PixelFormat, colour: u32) -> (Vec<u8>, Vec<u8>) {
        let pixels = Pixels::new(format);
        let (mut whole, mut compact) = (Vec::new(), Vec::new());
        pixels.put(colour, &mut whole);
        pixels.put_compact(colour, &mut compact);
        (whole, compact)
    }

    #[test]
    fn pixels_are_as_the_viewer_wants_them() {
        let (all, five_six_five) = ([255; 3], [31, 63, 31]);
        for (format, whole, compact) in [
            (PixelFormat::NATIVE, &[3, 2, 1, 0][..], &[3, 2, 1][..]),
            (format(32, true, all, [16, 8, 0]), &[0, 1, 2, 3], &[1, 2, 3]),
            (
                format(32, false, all, [0, 8, 16]),
                &[1, 2, 3, 0],
                &[1, 2, 3],
            ),
            (
                format(32, true, all, [24, 16, 8]),
                &[1, 2, 3, 0],
                &[1, 2, 3],
            ),
            (
                format(32, false, all, [24, 16, 8]),
                &[0, 3, 2, 1],
                &[3, 2, 1],
            ),
            (
                format(32, false, all, [24, 8, 0]),
                &[3, 2, 0, 1],
                &[3, 2, 0, 1],
            ),
        ] {
            assert_eq!(put(&format, 0x01_02_03), (whole.to_vec(), compact.to_vec()));
        }
        for (big, white, green) in [
            (false, [0xff, 0xff], [0xe0, 0x07]),
            (true, [0xff, 0xff], [0x07, 0xe0]),
        ] {
            let format = format(16, big, five_six_five, [11, 5, 0]);
            assert_eq!(put(&format, 0xff_ff_ff).0, white);
            assert_eq!(put(&format, 0x00_ff_00), (green.to_vec(), green.to_vec()));
        }
        let small = format(8, true, [7, 7, 3], [0, 3, 6]);
        assert_eq!(put(&small, 0xff_00_ff), (vec![0xc7], vec![0xc7]));
        assert_eq!(put(&small, 0x7f_7f_7f).0, [0b01_011_011]);
    }

    #[test]
    fn formats_survive_their_messages() {
        for format in [PixelFormat::NATIVE, format(8, true, [7, 7, 3], [0, 3, 6])] {
            assert_eq!(PixelFormat::parse(&format.to_bytes()).unwrap(), format);
        }
    }

    #[test]
    fn impossible_formats_are_refused() {
        let good = PixelFormat::NATIVE.to_bytes();
        // Bits, true colour, maximum of red, and its shift.
        for (place, value) in [
            (0, 0),
            (0, 24),
            (0, 64),
            (3, 0),
            (5, 0),
            (5, 254),
            (4, 2),
            (10, 25),
            (10, 255),
        ] {
            let mut bytes = good;
            bytes[place] = value;
            assert!(PixelFormat::parse(&bytes).is_err(), "{place}: {value}");
        }
        // 16 bits of a colour may be there: more, from any place on, may not.
        let mut bytes = good;
        bytes[4..6].copy_from_slice(&[0xff, 0xff]);
        assert!(PixelFormat::parse(&bytes).is_ok());
        bytes[10] = 17;
        assert!(PixelFormat::parse(&bytes).is_err());
    }
}
