//! Unpacking compressed kernels on the host, where it is faster than in the guest.

use std::io::{self, Read};

use super::KernelError;

/// Largest kernel that is unpacked, in bytes.
pub const MAX_UNPACKED: u64 = 1 << 30;

/// The magic number of the lz4 tool's "legacy" format, which Linux uses.
const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Block size of that format.
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

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
            (&LZ4_LEGACY, Compression::Lz4Legacy),
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
}

/// Unpacks `packed`, at most `limit` bytes and [`MAX_UNPACKED`]. What follows
/// the compressed data is ignored.
///
/// # Errors
/// When the data is damaged, too long, or in a compression not unpacked here.
pub fn unpack(
    compression: Compression,
    packed: impl Read,
    limit: u64,
) -> Result<Vec<u8>, KernelError> {
    let limit = limit.min(MAX_UNPACKED);
    let result = match compression {
        Compression::Gzip => collect(flate2::read::GzDecoder::new(packed), limit),
        Compression::Zstd => zstd::stream::read::Decoder::new(packed)
            .and_then(|decoder| collect(decoder.single_frame(), limit)),
        Compression::Lz4Frame => collect(lz4_flex::frame::FrameDecoder::new(packed), limit),
        Compression::Lz4Legacy => unpack_lz4_legacy(packed, limit),
        Compression::Unsupported(name) => {
            return Err(KernelError::Compression(name));
        }
    };
    result.map_err(|error| {
        if error.kind() == io::ErrorKind::FileTooLarge {
            KernelError::UnpacksTooLarge(limit)
        } else {
            KernelError::Damaged(format!("its compressed data: {error}"))
        }
    })
}

fn collect(decoder: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    decoder.take(limit + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(unpacked)
}

fn unpack_lz4_legacy(mut packed: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut word = [0; 4];
    packed.read_exact(&mut word)?;
    let mut unpacked: Vec<u8> = Vec::new();
    let mut block = Vec::new();
    loop {
        // The format has no end mark, and Linux appends the unpacked size: a
        // short read or a block size beyond the possible is the end.
        if !read_word(&mut packed, &mut word)? {
            return Ok(unpacked);
        }
        let length = u32::from_le_bytes(word) as usize;
        if word == LZ4_LEGACY {
            continue;
        }
        if length == 0 || length > lz4_flex::block::get_maximum_output_size(LZ4_LEGACY_BLOCK) {
            return Ok(unpacked);
        }
        block.clear();
        let got = packed
            .by_ref()
            .take(length as u64)
            .read_to_end(&mut block)?;
        if got < length {
            let appended_size = got == 0 && length == unpacked.len();
            return if appended_size {
                Ok(unpacked)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let start = unpacked.len();
        unpacked.resize(start + LZ4_LEGACY_BLOCK, 0);
        let size = lz4_flex::block::decompress_into(&block, &mut unpacked[start..])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        unpacked.truncate(start + size);
        if unpacked.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

/// Reads four bytes; tells whether there were that many.
fn read_word(source: &mut impl Read, word: &mut [u8; 4]) -> io::Result<bool> {
    match source.read_exact(word) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
