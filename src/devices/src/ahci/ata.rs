//! What both kinds of drive have in common: register bits and the identity (ACS-3, 7.12 and 7.13).

/// Status register.
pub(super) mod status {
    pub const ERR: u8 = 1 << 0;
    pub const DRQ: u8 = 1 << 3;
    pub const DSC: u8 = 1 << 4;
    pub const DRDY: u8 = 1 << 6;
    pub const BSY: u8 = 1 << 7;
    /// At rest.
    pub const READY: u8 = DRDY | DSC;
    /// After a command that failed.
    pub const FAILED: u8 = READY | ERR;
    /// While data moves.
    pub const DATA: u8 = READY | DRQ;
}

/// Error register.
pub(super) mod error {
    pub const ABORTED: u8 = 1 << 2;
    pub const NO_ADDRESS: u8 = 1 << 4;
    pub const UNCORRECTABLE: u8 = 1 << 6;
    /// After a reset: diagnostics passed.
    pub const PASSED: u8 = 1;
}

/// Bytes of an identity.
pub(super) const IDENTITY_BYTES: usize = 512;

/// An identity being made, in words.
pub(super) struct Identity([u16; IDENTITY_BYTES / 2]);

impl Identity {
    pub fn new() -> Self {
        Self([0; IDENTITY_BYTES / 2])
    }

    pub fn set(&mut self, words: &[(usize, u16)]) {
        for &(at, value) in words {
            self.0[at] = value;
        }
    }

    /// Puts the low `words` words of `value`, lowest first.
    pub fn number(&mut self, at: usize, words: usize, value: u64) {
        for word in 0..words {
            self.0[at + word] = (value >> (16 * word)) as u16;
        }
    }

    /// Text padded with blanks, the first character of each word in its high byte. What is
    /// not printable becomes a blank.
    pub fn text(&mut self, at: usize, words: usize, text: &str) {
        let printable = |byte: u8| {
            if (0x20..0x7f).contains(&byte) {
                byte
            } else {
                b' '
            }
        };
        let mut bytes = text.bytes().map(printable).chain(std::iter::repeat(b' '));
        for word in &mut self.0[at..at + words] {
            let mut next = || bytes.next().unwrap_or(b' ');
            *word = u16::from_be_bytes([next(), next()]);
        }
    }

    /// The finished identity with its checksum (word 255).
    pub fn finish(mut self) -> [u8; IDENTITY_BYTES] {
        self.0[255] = 0x00a5;
        let mut bytes = [0; IDENTITY_BYTES];
        for (pair, word) in bytes.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&word.to_le_bytes());
        }
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[IDENTITY_BYTES - 1] = sum.wrapping_neg();
        bytes
    }
}
