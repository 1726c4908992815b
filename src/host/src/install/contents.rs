//! What an image says of itself: the file `boot/contents`.

use std::collections::BTreeMap;

/// Largest such file.
pub(super) const LARGEST: u64 = 16 << 10;

/// Longest version.
const LONGEST_VERSION: usize = 64;

/// Version of an image, and the checksums of what is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Version of Lodge.
    pub version: String,
    /// SHA-256 of files, by their path on the image without a slash at the beginning.
    pub(super) files: BTreeMap<String, [u8; 32]>,
}

impl Contents {
    /// Files that an image cannot do without.
    pub(super) const NEEDED: [&str; 6] = [
        "boot/vmlinuz",
        "boot/initrd.zst",
        "boot/grub/options.cfg",
        "boot/disk/boot.img",
        "boot/disk/core.img",
        "boot/disk/esp.img.zst",
    ];

    /// Reads lines `version VERSION` and `sha256 CHECKSUM PATH`.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut version = None;
        let mut files = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("version"), Some(word), None) if is_version(word) => {
                    version = Some(word.to_owned());
                }
                (Some("sha256"), Some(checksum), Some(path)) if is_path(path) => {
                    let checksum = parse_checksum(checksum)
                        .ok_or_else(|| format!("{path} has no proper checksum"))?;
                    files.insert(path.to_owned(), checksum);
                }
                _ => return Err("its list of contents is not understood".to_owned()),
            }
        }
        if let Some(missing) = Self::NEEDED.iter().find(|path| !files.contains_key(**path)) {
            return Err(format!("{missing} is missing"));
        }
        let version = version.ok_or("it does not say its version")?;
        Ok(Self { version, files })
    }
}

fn is_version(word: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    !word.is_empty() && word.len() <= LONGEST_VERSION && word.chars().all(fits)
}

/// A path that stays on the image.
fn is_path(path: &str) -> bool {
    path.starts_with("boot/") && path.split('/').all(|part| !part.is_empty() && part != "..")
}

fn parse_checksum(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut checksum = [0; 32];
    for (byte, at) in checksum.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> String {
        let mut text = "version 0.1.0\n".to_owned();
        for path in Contents::NEEDED {
            text += &format!("sha256 {} {path}\n", "0a".repeat(32));
        }
        text
    }

    #[test]
    fn versions_and_checksums() {
        let contents = Contents::parse(&good()).unwrap();
        assert_eq!(contents.version, "0.1.0");
        assert_eq!(contents.files["boot/vmlinuz"], [10; 32]);
    }

    #[test]
    fn what_is_not_right_is_named() {
        let wrong = |from: &str, to: &str| Contents::parse(&good().replace(from, to)).unwrap_err();
        assert!(wrong("version 0.1.0\n", "").contains("version"));
        assert!(wrong("0.1.0", "0.1.0\u{1b}[2J").contains("not understood"));
        assert!(wrong("boot/vmlinuz", "boot/other").contains("boot/vmlinuz is missing"));
        assert!(wrong("boot/vmlinuz", "../vmlinuz").contains("not understood"));
        assert!(wrong("boot/vmlinuz", "boot/../../x").contains("not understood"));
        assert!(wrong("0a0a", "0a0").contains("no proper checksum"));
        assert!(wrong("0a0a", "+a0a").contains("no proper checksum"));
        assert!(Contents::parse("").is_err());
    }
}
