//! Attributes of netlink messages (RFC 3549, section 2.2): numbered values, which may hold attributes themselves.

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLA_TYPE_MASK, NlasIterator};

/// The body of a request: the header that its kind begins with, and attributes.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    /// A body that begins with this header.
    pub(super) fn new(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    /// Adds an attribute with a value in the form that the kernel wants it in.
    #[must_use]
    pub(super) fn with(self, kind: u16, value: impl AsRef<[u8]>) -> Self {
        self.append(kind, value.as_ref().to_vec())
    }

    /// Adds an attribute with a number in the machine's byte order.
    #[must_use]
    pub(super) fn with_u32(self, kind: u16, value: u32) -> Self {
        self.append(kind, value.to_ne_bytes().to_vec())
    }

    /// Adds an attribute with text.
    #[must_use]
    pub(super) fn with_text(self, kind: u16, text: &str) -> Self {
        let terminated = text.bytes().chain([0]).collect();
        self.append(kind, terminated)
    }

    /// Adds an attribute that holds attributes.
    #[must_use]
    pub(super) fn with_nested(self, kind: u16, inner: Self) -> Self {
        self.append(kind | NLA_F_NESTED, inner.0)
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn append(mut self, kind: u16, value: Vec<u8>) -> Self {
        let attribute = DefaultNla::new(kind, value);
        let begin = self.0.len();
        self.0.resize(begin + attribute.buffer_len(), 0);
        attribute.emit(&mut self.0[begin..]);
        self
    }
}

/// Attributes that the kernel sent.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes in these bytes.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The value of the first attribute of that kind.
    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        // What follows a malformed one cannot be told apart.
        let sound = NlasIterator::new(self.0).map_while(Result::ok);
        let mut of_kind = sound.filter(|attribute| attribute.kind() & NLA_TYPE_MASK == kind);
        of_kind.next().map(|attribute| {
            let value = attribute.into_inner();
            let length = usize::from(u16::from_ne_bytes([value[0], value[1]]));
            &value[netlink_packet_core::NLA_HEADER_SIZE..length]
        })
    }

    /// A number in the machine's byte order.
    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// Text, without the zero at its end.
    pub(super) fn text(self, kind: u16) -> Option<String> {
        let value = self.get(kind)?;
        let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// The attributes inside of one.
    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_written_can_be_read() {
        let inner = Body::default().with_text(1, "bridge").with_u32(2, 7);
        let body = Body::new(&[9; 4])
            .with(3, [1, 2, 3])
            .with_nested(18, inner)
            .with_u32(4, 1500);
        assert_eq!(body.bytes().len() % 4, 0);
        let read = Attributes::new(&body.bytes()[4..]);
        assert_eq!(read.get(3), Some(&[1, 2, 3][..]));
        assert_eq!(read.u32(4), Some(1500));
        assert_eq!(read.u32(3), None, "three bytes are no number");
        let inner = read.nested(18).unwrap();
        assert_eq!(inner.text(1).as_deref(), Some("bridge"));
        assert_eq!(inner.u32(2), Some(7));
        assert!(read.get(5).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_searched(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0_u16..8) {
            let _ = Attributes::new(&bytes).text(kind);
            let _ = Attributes::new(&bytes).u32(kind);
        }
    }
}
