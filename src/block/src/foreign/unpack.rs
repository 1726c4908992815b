//! Unpacking of compressed clusters and grains.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DParameter;

/// How something is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Deflate without a header (RFC 1951).
    Deflate,
    /// Deflate with zlib's header (RFC 1950).
    Zlib,
    /// A frame of Zstandard (RFC 8878).
    Zstd,
}

/// Largest window of a frame, as a power of two: clusters are no larger than 2 MiB, and so need no larger window.
const ZSTD_WINDOW: u32 = 22;

/// Unpacks one piece after the other, with the memory of the first.
#[derive(Default)]
pub(super) struct Unpacker {
    inflate: Option<Decompress>,
    zstd: Option<Decoder<'static>>,
}

impl Unpacker {
    /// Unpacks the beginning of `input` until its end or until `output` is full, and returns how much came out;
    /// `None` when `input` is damaged. What is behind the compressed data is not looked at.
    pub(super) fn unpack(
        &mut self,
        packing: Packing,
        input: &[u8],
        output: &mut [u8],
    ) -> Option<usize> {
        match packing {
            Packing::Deflate => self.inflate(false, input, output),
            Packing::Zlib => self.inflate(true, input, output),
            Packing::Zstd => self.zstd(input, output),
        }
    }

    fn inflate(&mut self, header: bool, input: &[u8], output: &mut [u8]) -> Option<usize> {
        let state = self.inflate.get_or_insert_with(|| Decompress::new(header));
        state.reset(header);
        let status = state
            .decompress(input, output, FlushDecompress::Finish)
            .ok()?;
        let count = usize::try_from(state.total_out()).ok()?;
        (status == Status::StreamEnd || count == output.len()).then_some(count)
    }

    fn zstd(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        if self.zstd.is_none() {
            let mut decoder = Decoder::new().ok()?;
            decoder
                .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))
                .ok()?;
            self.zstd = Some(decoder);
        }
        let decoder = self.zstd.as_mut()?;
        decoder.reinit().ok()?;
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(output);
        loop {
            let before = (from.pos(), to.pos());
            let left = decoder.run(&mut from, &mut to).ok()?;
            let full = to.pos() == to.capacity();
            // Zero: the frame has ended.
            if left == 0 || full {
                return Some(to.pos());
            }
            if before == (from.pos(), to.pos()) {
                return None;
            }
        }
    }
}
