//! The card's non-volatile memory (82574 datasheet, 6.1), read by EERD (10.2.2.4) and never written.

use super::{DEVICE_ID, VENDOR_ID};

const WORDS: usize = 64;
/// All words together sum up to this.
const SUM: u16 = 0xbaba;

const EERD_START: u32 = 1 << 0;
const EERD_DONE: u32 = 1 << 1;

/// The words.
pub(super) struct Nvm([u16; WORDS]);

impl Nvm {
    /// That of a card with this address.
    pub fn new(mac: [u8; 6]) -> Self {
        let mut words = [0; WORDS];
        for (word, pair) in words.iter_mut().zip(mac.chunks_exact(2)) {
            *word = u16::from_le_bytes([pair[0], pair[1]]);
        }
        // Lights as drivers like them (6.1.1.3).
        words[0x04] = 0xf746;
        // No number of a printed board.
        words[0x08] = 0xffff;
        words[0x09] = 0xffff;
        words[0x0c] = VENDOR_ID;
        words[0x0d] = DEVICE_ID;
        words[0x0e] = VENDOR_ID;
        let sum = words
            .iter()
            .fold(0_u16, |sum, word| sum.wrapping_add(*word));
        words[WORDS - 1] = SUM.wrapping_sub(sum);
        Self(words)
    }

    /// What EERD reads after `value` was written to it.
    pub fn read(&self, value: u32) -> u32 {
        if value & EERD_START == 0 {
            return value & 0xfffc | EERD_DONE;
        }
        let index = (value >> 2 & 0x3fff) as usize;
        let word = self.0.get(index).copied().unwrap_or(0);
        u32::from(word) << 16 | value & 0xfffc | EERD_DONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_address_and_adds_up() {
        let nvm = Nvm::new([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(nvm.read(EERD_START), 0x5452_0002);
        assert_eq!(nvm.read(EERD_START | 2 << 2), 0x5634_000a);
        let words = (0..WORDS as u32).map(|word| (nvm.read(EERD_START | word << 2) >> 16) as u16);
        assert_eq!(words.fold(0, u16::wrapping_add), SUM);
        assert_eq!(
            nvm.read(EERD_START | 0x3fff << 2) >> 16,
            0,
            "beyond the end"
        );
    }
}
