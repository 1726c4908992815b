//! What is sent to a host: a file, or the address of one that it fetches by itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

/// One or the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A file of this machine.
    File(PathBuf),
    /// What the host fetches.
    Url(String),
}

impl Content {
    /// The path of the one or the other, whose last part is a name.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(file) => file,
            Self::Url(url) => Path::new(url.split(['?', '#']).next().unwrap_or(url)),
        }
    }

    /// Takes what begins like a URL for one; a file of such a name can be given with `./` before it.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().map(Self::from)
    }
}

impl From<OsString> for Content {
    fn from(text: OsString) -> Self {
        let url = text.to_str().filter(|text| {
            let text = text.to_ascii_lowercase();
            text.starts_with("https://") || text.starts_with("http://")
        });
        match url {
            Some(url) => Self::Url(url.to_owned()),
            None => Self::File(text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_files() {
        for (text, is_url) in [
            ("https://example.org/a.qcow2", true),
            ("HTTP://10.0.0.1/a", true),
            ("./https://a", false),
            ("https", false),
            ("a.qcow2", false),
        ] {
            let content = Content::from(OsString::from(text));
            assert_eq!(matches!(content, Content::Url(_)), is_url, "{text}");
        }
        let signed = Content::from(OsString::from("https://example.org/x/web.ova?key=/a"));
        assert_eq!(signed.path().file_name().unwrap(), "web.ova");
    }
}
