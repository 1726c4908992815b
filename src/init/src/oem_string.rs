//! OEM strings in the machine's SMBIOS tables (DMTF DSP0134, type 11): how a hypervisor or a management processor can
//! hand over a seed without a volume.

use std::fs;
use std::path::Path;

/// The string that is a seed begins with this; the rest is the text of `seed.toml`.
const PREFIX: &str = "lodge.seed:";

/// The seed in the SMBIOS tables, if there is one.
pub(crate) fn seed() -> Option<String> {
    let tables = fs::read_dir("/sys/firmware/dmi/entries").ok()?;
    let oem = tables
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("11-"));
    oem.filter_map(|entry| find(&fs::read(entry.path().join(Path::new("raw"))).ok()?))
        .next()
}

/// A structure: type, length of the fixed part, handle, then strings, each ended by a NUL.
fn find(structure: &[u8]) -> Option<String> {
    let fixed = usize::from(*structure.get(1)?);
    let strings = structure.get(fixed..)?;
    strings
        .split(|b| *b == 0)
        .filter_map(|string| std::str::from_utf8(string).ok())
        .find_map(|string| string.strip_prefix(PREFIX))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn among_other_strings() {
        let structure = b"\x0b\x05\x00\x01\x02other\0lodge.seed:hostname = 'a'\n\0\0";
        assert_eq!(find(structure).as_deref(), Some("hostname = 'a'\n"));
        assert_eq!(find(b"\x0b\x05\x00\x01\x01other\0\0"), None);
        assert_eq!(find(b"\x0b\xff\x00"), None);
        assert_eq!(find(b""), None);
    }
}
