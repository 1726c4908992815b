//! Numbers and bytes out of an input, in order, until there are no more.

/// What is left of an input.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// The whole.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Exactly `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(bytes)
    }

    /// A byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// Two bytes, little-endian, as all the following.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A byte that counts, and as many bytes.
    pub fn counted(&mut self) -> Option<&'a [u8]> {
        let count = self.u8()?;
        self.bytes(count.into())
    }

    /// Everything left.
    pub fn rest(self) -> &'a [u8] {
        self.bytes
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_without_taking_a_part() {
        let mut input = Input::new(&[1, 2, 3, 2, 9, 8, 7]);
        assert_eq!(input.u16(), Some(0x201));
        assert_eq!(input.u64(), None);
        assert_eq!(input.u8(), Some(3));
        assert_eq!(input.counted(), Some(&[9, 8][..]));
        assert_eq!(input.u16(), None);
        assert_eq!(input.rest(), [7]);
    }
}
