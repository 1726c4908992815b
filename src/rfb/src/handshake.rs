//! The beginning of a session (RFC 6143, 7.1 to 7.3).

use crate::Violation;

/// What the server says first.
pub(crate) const GREETING: &[u8; VERSION_BYTES] = b"RFB 003.008\n";

pub(crate) const VERSION_BYTES: usize = 12;

/// The one security type: none.
const NONE: u8 = 1;

/// Versions with a handshake of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V3_3,
    V3_7,
    V3_8,
}

impl Version {
    /// The version that a viewer speaks. Later ones speak the last that is known here, and unknown ones in between
    /// the first, as the RFC wants it.
    pub fn parse(bytes: &[u8; VERSION_BYTES]) -> Result<Self, Violation> {
        let [b'R', b'F', b'B', b' ', a, b, c, b'.', d, e, f, b'\n'] = *bytes else {
            return Err(Violation::Version);
        };
        let number = |digits: [u8; 3]| {
            let digits =
                digits.map(|digit| digit.is_ascii_digit().then(|| u16::from(digit - b'0')));
            let [Some(a), Some(b), Some(c)] = digits else {
                return Err(Violation::Version);
            };
            Ok(100 * a + 10 * b + c)
        };
        match (number([a, b, c])?, number([d, e, f])?) {
            (0..=2, _) => Err(Violation::Version),
            (3, 7) => Ok(Self::V3_7),
            (3, 0..=6) => Ok(Self::V3_3),
            (3, _) | (4.., _) => Ok(Self::V3_8),
        }
    }

    /// What the server says about security once it knows the version.
    pub fn security(self) -> &'static [u8] {
        match self {
            // The server decides.
            Self::V3_3 => &[0, 0, 0, NONE],
            // The viewer chooses, of one.
            Self::V3_7 | Self::V3_8 => &[1, NONE],
        }
    }

    /// What the server says to a viewer's choice.
    pub fn chosen(self, security: u8) -> Result<&'static [u8], Violation> {
        match (security, self) {
            (NONE, Self::V3_8) => Ok(&[0; 4]),
            (NONE, _) => Ok(&[]),
            (other, _) => Err(Violation::Security(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_known_by_their_numbers() {
        for (text, version) in [
            (b"RFB 003.003\n", Version::V3_3),
            (b"RFB 003.005\n", Version::V3_3),
            (b"RFB 003.007\n", Version::V3_7),
            (b"RFB 003.008\n", Version::V3_8),
            (b"RFB 003.889\n", Version::V3_8),
            (b"RFB 004.001\n", Version::V3_8),
        ] {
            assert_eq!(Version::parse(text), Ok(version));
        }
        for text in [
            b"RFB 002.002\n",
            b"RFB 003.0 8\n",
            b"RFB-003.008\n",
            b"RFB 003.008\r",
            b"GET / HTTP/1",
        ] {
            assert_eq!(Version::parse(text), Err(Violation::Version));
        }
    }
}
