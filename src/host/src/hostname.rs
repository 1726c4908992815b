//! The host's name: what is a name, and the file that keeps a chosen one from one boot to the next.

use std::fs;
use std::io;
use std::path::Path;

use crate::private_file::{private_dir, write_private};

/// Where the file is, seen from the folder with all of Lodge's data.
pub const FILE: &str = "state/hostname";

/// What the kernel keeps (64 bytes), less its terminator.
const MAX: usize = 63;

/// A name in its usual form, by RFC 1123.
///
/// # Errors
/// Says for a person why `name` is none.
pub fn normalize(name: &str) -> Result<String, String> {
    let name = name.to_ascii_lowercase();
    if name.len() > MAX {
        let length = name.len();
        return Err(format!(
            "a host name has at most {MAX} characters, this one has {length}"
        ));
    }
    let address = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if address || !name.split('.').all(is_label) {
        return Err(format!(
            "'{name}' is not a host name; use letters, digits and hyphens, like \"alpha\" or \"alpha.example.org\""
        ));
    }
    Ok(name)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The name that was chosen last, if any. A damaged file is none.
pub fn stored(data_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(data_dir.join(FILE)).ok()?;
    normalize(text.trim()).ok()
}

/// Keeps a name for the boots to come: it is on the disk when this returns.
///
/// # Errors
/// From the filesystem; the old name stays.
pub fn store(data_dir: &Path, name: &str) -> io::Result<()> {
    let path = data_dir.join(FILE);
    if let Some(directory) = path.parent() {
        private_dir(directory)?;
    }
    write_private(&path, format!("{name}\n").as_bytes())
}

/// Has the kernel use a name from now on.
///
/// # Errors
/// From `sethostname(2)`.
pub fn set(name: &str) -> io::Result<()> {
    Ok(nix::unistd::sethostname(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(stored(dir.path()), None);
        for name in ["alpha", "beta.example.org"] {
            store(dir.path(), name).unwrap();
            assert_eq!(stored(dir.path()).as_deref(), Some(name));
        }
        fs::write(dir.path().join(FILE), b"\0\0\0\0").unwrap();
        assert_eq!(stored(dir.path()), None);
    }
}
