//! The lz4 tool's legacy format, in which Linux packs its kernels: blocks of 8 MiB.

use std::io::{self, BufRead, Read};

/// The format's magic number.
pub const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

const BLOCK: usize = 8 << 20;

/// Unpacks as it is read, a block at a time.
pub struct Lz4Legacy<R> {
    packed: R,
    /// The present block, packed.
    input: Vec<u8>,
    /// The present block, and how much of it there is and has been taken.
    output: Vec<u8>,
    filled: usize,
    taken: usize,
    total: u64,
    ended: bool,
}

impl<R: Read> Lz4Legacy<R> {
    /// Unpacks what `packed` gives.
    pub fn new(packed: R) -> Self {
        Self {
            packed,
            input: Vec::new(),
            output: Vec::new(),
            filled: 0,
            taken: 0,
            total: 0,
            ended: false,
        }
    }

    /// Unpacks the next block, or finds the end.
    ///
    /// The format has no end mark, and Linux appends the unpacked size: a
    /// short read, or a block size beyond the possible, is the end.
    fn next_block(&mut self) -> io::Result<()> {
        let mut word = MAGIC;
        while word == MAGIC {
            if !read_word(&mut self.packed, &mut word)? {
                self.ended = true;
                return Ok(());
            }
        }
        let length = u32::from_le_bytes(word);
        let most = lz4_flex::block::get_maximum_output_size(BLOCK);
        if length == 0 || length as usize > most {
            self.ended = true;
            return Ok(());
        }
        self.input.clear();
        let mut block = self.packed.by_ref().take(length.into());
        if block.read_to_end(&mut self.input)? < length as usize {
            self.ended = true;
            let appended_size = self.input.is_empty() && u64::from(length) == self.total;
            return if appended_size {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        self.output.resize(BLOCK, 0);
        self.filled = lz4_flex::block::decompress_into(&self.input, &mut self.output)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.taken = 0;
        self.total += self.filled as u64;
        Ok(())
    }
}

impl<R: Read> BufRead for Lz4Legacy<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.taken == self.filled && !self.ended {
            self.next_block()?;
        }
        Ok(&self.output[self.taken..self.filled])
    }

    fn consume(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.filled);
    }
}

impl<R: Read> Read for Lz4Legacy<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
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
