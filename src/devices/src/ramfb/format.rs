//! Pixel formats, named by DRM codes (Linux, `include/uapi/drm/drm_fourcc.h`).
//!
//! DRM names a format by its bits from high to low in a little-endian word, so the bytes in
//! memory are the letters backwards.

/// A format that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `XR24` and `AR24`: blue, green, red, unused.
    Xrgb8888,
    /// `XB24` and `AB24`: red, green, blue, unused.
    Xbgr8888,
    /// `RG24`: blue, green, red.
    Rgb888,
    /// `BG24`: red, green, blue.
    Bgr888,
    /// `RG16`: five bits of red, six of green, five of blue.
    Rgb565,
}

impl Format {
    /// The format of a DRM code. Transparency shows nothing: there is nothing behind.
    pub fn from_fourcc(fourcc: u32) -> Option<Self> {
        match &fourcc.to_le_bytes() {
            b"XR24" | b"AR24" => Some(Self::Xrgb8888),
            b"XB24" | b"AB24" => Some(Self::Xbgr8888),
            b"RG24" => Some(Self::Rgb888),
            b"BG24" => Some(Self::Bgr888),
            b"RG16" => Some(Self::Rgb565),
            _ => None,
        }
    }

    /// Bytes of a pixel.
    pub fn bytes(self) -> u32 {
        match self {
            Self::Xrgb8888 | Self::Xbgr8888 => 4,
            Self::Rgb888 | Self::Bgr888 => 3,
            Self::Rgb565 => 2,
        }
    }

    /// Appends a row of pixels as 0x00RRGGBB.
    pub fn convert(self, row: &[u8], pixels: &mut Vec<u32>) {
        let rgb = |red: u8, green: u8, blue: u8| u32::from_be_bytes([0, red, green, blue]);
        match self {
            Self::Xrgb8888 => {
                let (row, _) = row.as_chunks();
                pixels.extend(
                    row.iter()
                        .map(|&[blue, green, red, _]| rgb(red, green, blue)),
                );
            }
            Self::Xbgr8888 => {
                let (row, _) = row.as_chunks();
                pixels.extend(
                    row.iter()
                        .map(|&[red, green, blue, _]| rgb(red, green, blue)),
                );
            }
            Self::Rgb888 => {
                let (row, _) = row.as_chunks();
                pixels.extend(row.iter().map(|&[blue, green, red]| rgb(red, green, blue)));
            }
            Self::Bgr888 => {
                let (row, _) = row.as_chunks();
                pixels.extend(row.iter().map(|&[red, green, blue]| rgb(red, green, blue)));
            }
            Self::Rgb565 => {
                let (row, _) = row.as_chunks();
                pixels.extend(row.iter().map(|&bytes| {
                    let word = u16::from_le_bytes(bytes);
                    let red = widen(word >> 11, 5);
                    let green = widen(word >> 5 & 0x3f, 6);
                    let blue = widen(word & 0x1f, 5);
                    rgb(red, green, blue)
                }));
            }
        }
    }
}

/// Stretches a colour of `bits` bits over eight, so that the brightest stays the brightest.
fn widen(colour: u16, bits: u32) -> u8 {
    (colour << (8 - bits) | colour >> (2 * bits - 8)) as u8
}
