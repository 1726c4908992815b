//! Unpacking compressed kernels on the host, where it is faster than in the guest.

use std::io::{BufRead, BufReader, Read};

use super::KernelError;
use super::lz4_legacy::{self, Lz4Legacy};

/// Largest kernel file that is unpacked, in bytes.
pub const MAX_UNPACKED: u64 = 1 << 30;

/// How much is unpacked at a time.
const PIECE: usize = 128 << 10;

/// A compression that a kernel may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The lz4 tool's legacy format.
    Lz4Legacy,
    /// The lz4 frame format.
    Lz4Frame,
    /// Known, but not unpacked here.
    Unsupported(&'static str),
}

impl Compression {
    /// Recognises a compression by its magic number.
    pub fn detect(head: &[u8]) -> Option<Self> {
        const MAGIC: &[(&[u8], Compression)] = &[
            (&[0x1f, 0x8b, 0x08], Compression::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&lz4_legacy::MAGIC, Compression::Lz4Legacy),
            (&[0x04, 0x22, 0x4d, 0x18], Compression::Lz4Frame),
            (b"\xfd7zXZ\0", Compression::Unsupported("xz")),
            (b"BZh", Compression::Unsupported("bzip2")),
            (&[0x5d, 0x00, 0x00], Compression::Unsupported("lzma")),
            (b"\x89LZO", Compression::Unsupported("lzo")),
        ];
        MAGIC
            .iter()
            .find(|(magic, _)| head.starts_with(magic))
            .map(|&(_, compression)| compression)
    }

    /// Unpacks `packed` as it is read. What follows the compressed data is ignored.
    ///
    /// # Errors
    /// When the compression is not unpacked here.
    pub fn unpack<'a>(self, packed: impl Read + 'a) -> Result<Box<dyn BufRead + 'a>, KernelError> {
        Ok(match self {
            Self::Gzip => buffered(flate2::read::GzDecoder::new(packed)),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(packed);
                buffered(decoder.map_err(KernelError::Read)?.single_frame())
            }
            Self::Lz4Frame => buffered(lz4_flex::frame::FrameDecoder::new(packed)),
            Self::Lz4Legacy => Box::new(Lz4Legacy::new(BufReader::with_capacity(PIECE, packed))),
            Self::Unsupported(name) => return Err(KernelError::Compression(name)),
        })
    }
}

fn buffered<'a>(decoder: impl Read + 'a) -> Box<dyn BufRead + 'a> {
    Box::new(BufReader::with_capacity(PIECE, decoder))
}
