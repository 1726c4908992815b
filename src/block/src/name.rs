//! Names of files in a datastore.

use std::fmt;

/// Longest name in bytes; leaves room below the 255 of every Linux filesystem.
const MAX_BYTES: usize = 200;

/// A plain file name: ASCII letters, digits and `-`, `_`, `.`, `+`, starting
/// with a letter or digit, 1 to 200 bytes. So it is never a path, never hidden
/// and never the name of a temporary file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

/// A name that cannot be a [`FileName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a file name: use 1 to 200 letters, digits, '-', '_', '.' or '+', \
     starting with a letter or digit"
)]
pub struct NameError {
    /// What was given.
    pub name: String,
}

impl FileName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`NameError`] for anything but a plain name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        let bytes = name.as_bytes();
        let plain = bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.len() <= MAX_BYTES
            && bytes.iter().copied().all(allowed);
        if plain {
            Ok(Self(name.to_owned()))
        } else {
            // An error message is not the place for a megabyte somebody sent.
            Err(NameError {
                name: name.chars().take(MAX_BYTES).collect(),
            })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::str::FromStr for FileName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_plain_names_only() {
        for good in ["a", "disk0.raw", "Debian-12_x+y.img", "0"] {
            assert_eq!(FileName::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(MAX_BYTES + 1);
        let bad = [
            "", ".", "..", ".new-1", "a/b", "/a", "-a", "a b", "a\0", "ä", &long,
        ];
        for name in bad {
            assert!(FileName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn errors_stay_short() {
        let error = FileName::new(&"/".repeat(1 << 20)).unwrap_err();
        assert!(error.to_string().len() < 400);
    }
}
