//! What a configuration means, and whether it can be shown.

use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};

use super::format::Format;
use crate::GuestMemory;

/// Length of the configuration.
pub const CONFIG_BYTES: usize = 28;
/// Most pixels of a row, and most rows.
pub const MAX_SIDE: u32 = 8192;
/// Most bytes of a picture with four a pixel: what a guest can make its host copy.
pub const MAX_PIXEL_BYTES: u64 = 64 << 20;

/// A configuration that can be shown: every row is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode {
    address: u64,
    format: Format,
    pub width: u32,
    pub height: u32,
    /// Bytes from a row to the next.
    stride: u64,
}

impl Mode {
    /// Understands a configuration, or refuses it. The flags mean nothing so far.
    pub fn parse(bytes: &[u8; CONFIG_BYTES], memory: &GuestMemory) -> Option<Self> {
        let (address, rest) = bytes.split_first_chunk()?;
        let ([fourcc, _flags, width, height, stride], _) = rest.as_chunks() else {
            return None;
        };
        let mode = Self {
            address: u64::from_be_bytes(*address),
            format: Format::from_fourcc(u32::from_be_bytes(*fourcc))?,
            width: u32::from_be_bytes(*width),
            height: u32::from_be_bytes(*height),
            stride: u64::from(u32::from_be_bytes(*stride)),
        };
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&mode.width) || !sides.contains(&mode.height) {
            return None;
        }
        if u64::from(mode.width) * u64::from(mode.height) * 4 > MAX_PIXEL_BYTES {
            return None;
        }
        mode.with_stride()?.in_memory(memory)
    }

    fn row_bytes(&self) -> u64 {
        u64::from(self.width) * u64::from(self.format.bytes())
    }

    /// No stride means rows without gaps.
    fn with_stride(self) -> Option<Self> {
        match self.stride {
            0 => Some(Self {
                stride: self.row_bytes(),
                ..self
            }),
            stride => (stride >= self.row_bytes()).then_some(self),
        }
    }

    /// The last row need not be padded.
    fn in_memory(self, memory: &GuestMemory) -> Option<Self> {
        let gaps = self.stride * u64::from(self.height - 1);
        let length = gaps + self.row_bytes();
        self.address.checked_add(length)?;
        let length = usize::try_from(length).ok()?;
        let address = GuestAddress(self.address);
        memory
            .check_range(address, length, Permissions::Read)
            .then_some(self)
    }

    /// The rows, each as 0x00RRGGBB. There are as many as the picture is high, as long as memory stays
    /// what it was when the configuration was checked.
    pub fn rows(&self, memory: &GuestMemory) -> impl Iterator<Item = Vec<u32>> {
        (0..self.height).map_while(move |y| {
            let mut pixels = Vec::with_capacity(self.width as usize);
            self.row(memory, y, &mut pixels)?;
            Some(pixels)
        })
    }

    /// Appends the pixels of row `y`, if there is one.
    pub fn row(&self, memory: &GuestMemory, y: u32, pixels: &mut Vec<u32>) -> Option<()> {
        if y >= self.height {
            return None;
        }
        let mut row = vec![0; self.row_bytes() as usize];
        let address = self.address.checked_add(u64::from(y) * self.stride)?;
        memory.read_slice(&mut row, GuestAddress(address)).ok()?;
        self.format.convert(&row, pixels);
        Some(())
    }
}
