//! A small ISO 9660 image (ECMA-119) with Joliet names: one directory of files. The same files give the same bytes.

/// Bytes of a sector.
const SECTOR: usize = 2048;

/// Where everything is, in sectors. The system area comes first.
mod at {
    pub(super) const PRIMARY: usize = 16;
    pub(super) const JOLIET: usize = 17;
    pub(super) const TERMINATOR: usize = 18;
    /// Path tables, little-endian, of the primary volume and of Joliet; the big-endian ones come right after.
    pub(super) const PRIMARY_PATHS: usize = 19;
    pub(super) const JOLIET_PATHS: usize = 21;
    pub(super) const PRIMARY_ROOT: usize = 23;
    pub(super) const JOLIET_ROOT: usize = 24;
    pub(super) const FILES: usize = 25;
}

/// Images have a multiple of so many sectors.
const SECTORS: usize = 64;

/// Bytes of a path table of the root alone.
const PATHS_BYTES: usize = 10;

/// 1 January 2000, 00:00 UTC, as directories have it (9.1.5).
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];

/// No date, as volume descriptors have it (8.4.26.1).
const NO_DATE: [u8; 17] = *b"0000000000000000\0";

const IS_DIRECTORY: u8 = 1 << 1;

/// A file.
pub(super) struct Entry {
    name: &'static str,
    content: Vec<u8>,
}

impl Entry {
    /// A file with a name of small letters and hyphens, at most 28.
    pub(super) fn new(name: &'static str, content: &str) -> Self {
        Self {
            name,
            content: content.as_bytes().to_vec(),
        }
    }
}

/// How names are written.
#[derive(Clone, Copy)]
enum Names {
    /// Capital letters and underscores, for systems that know no better (7.5).
    Plain,
    /// As they are, in UCS-2.
    Joliet,
}

impl Names {
    fn file(self, name: &str) -> Vec<u8> {
        match self {
            Self::Plain => {
                let plain = name.to_ascii_uppercase().replace('-', "_");
                format!("{plain}.;1").into_bytes()
            }
            Self::Joliet => ucs2(&format!("{name};1")),
        }
    }

    /// A text of a volume descriptor, filled up with blanks.
    fn text(self, text: &str, length: usize) -> Vec<u8> {
        match self {
            Self::Plain => format!("{text:length$}").into_bytes(),
            // Fields of odd length have a zero behind the last blank.
            Self::Joliet => {
                let mut bytes = ucs2(&format!("{text:0$}", length / 2));
                bytes.resize(length, 0);
                bytes
            }
        }
    }
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A number in both byte orders (7.3.3).
fn both32(number: usize) -> [u8; 8] {
    // An image is a few sectors of a few KiB.
    let number = number as u32;
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The same of 16 bits (7.2.3).
fn both16(number: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (number.to_le_bytes(), number.to_be_bytes());
    [a, b, c, d]
}

/// The image. `label` is of capital letters, at most 16.
pub(super) fn image(label: &str, mut files: Vec<Entry>) -> Vec<u8> {
    // Both kinds of names sort alike.
    files.sort_by_key(|file| file.name);
    let mut sector = at::FILES;
    let mut placed = Vec::new();
    for file in &files {
        placed.push((file, sector));
        sector += file.content.len().div_ceil(SECTOR);
    }
    // Another instance's disc, which a guest may go on with after a clone, is not of another size.
    let sectors = sector.next_multiple_of(SECTORS);
    let mut image = Image(vec![0; sectors * SECTOR]);
    for (names, descriptor, paths, root) in [
        (
            Names::Plain,
            at::PRIMARY,
            at::PRIMARY_PATHS,
            at::PRIMARY_ROOT,
        ),
        (Names::Joliet, at::JOLIET, at::JOLIET_PATHS, at::JOLIET_ROOT),
    ] {
        image.put(descriptor, &volume(names, label, sectors, paths, root));
        image.put(
            paths,
            &path_table((root as u32).to_le_bytes(), 1_u16.to_le_bytes()),
        );
        image.put(
            paths + 1,
            &path_table((root as u32).to_be_bytes(), 1_u16.to_be_bytes()),
        );
        image.put(root, &directory(names, root, &placed));
    }
    image.put(at::TERMINATOR, b"\xffCD001\x01");
    for (file, sector) in placed {
        image.put(sector, &file.content);
    }
    image.0
}

struct Image(Vec<u8>);

impl Image {
    fn put(&mut self, sector: usize, bytes: &[u8]) {
        let at = sector * SECTOR;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// A volume descriptor (8.4, 8.5).
fn volume(names: Names, label: &str, sectors: usize, paths: usize, root: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SECTOR);
    bytes.push(match names {
        Names::Plain => 1,
        Names::Joliet => 2,
    });
    bytes.extend(b"CD001\x01\0");
    bytes.extend(names.text("", 32));
    bytes.extend(names.text(label, 32));
    bytes.extend([0; 8]);
    bytes.extend(both32(sectors));
    let mut escapes = [0; 32];
    if let Names::Joliet = names {
        // UCS-2, level 3.
        escapes[..3].copy_from_slice(b"%/E");
    }
    bytes.extend(escapes);
    // Volumes of the set, and which of them this is.
    bytes.extend(both16(1));
    bytes.extend(both16(1));
    bytes.extend(both16(SECTOR as u16));
    bytes.extend(both32(PATHS_BYTES));
    bytes.extend((paths as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((paths as u32 + 1).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(record(&[0], root, SECTOR, IS_DIRECTORY));
    // Volume set, publisher, preparer, application; files about copyright, abstract and bibliography.
    for length in [128, 128, 128, 128, 37, 37, 37] {
        bytes.extend(names.text("", length));
    }
    for _ in 0..4 {
        bytes.extend(NO_DATE);
    }
    bytes.push(1);
    bytes
}

/// A path table with the root alone (9.4).
fn path_table(root: [u8; 4], parent: [u8; 2]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend(root);
    bytes.extend(parent);
    bytes.extend([0, 0]);
    bytes
}

fn directory(names: Names, root: usize, files: &[(&Entry, usize)]) -> Vec<u8> {
    let mut bytes = record(&[0], root, SECTOR, IS_DIRECTORY);
    bytes.extend(record(&[1], root, SECTOR, IS_DIRECTORY));
    for (file, sector) in files {
        let name = names.file(file.name);
        bytes.extend(record(&name, *sector, file.content.len(), 0));
    }
    bytes
}

/// A directory record (9.1).
fn record(name: &[u8], sector: usize, length: usize, flags: u8) -> Vec<u8> {
    let size = (33 + name.len()).next_multiple_of(2);
    let mut bytes = Vec::with_capacity(size);
    // Names are short.
    bytes.extend([size as u8, 0]);
    bytes.extend(both32(sector));
    bytes.extend(both32(length));
    bytes.extend(DATE);
    bytes.extend([flags, 0, 0]);
    bytes.extend(both16(1));
    bytes.push(name.len() as u8);
    bytes.extend(name);
    bytes.resize(size, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn another_program_reads_what_was_written() {
        let long = "0123456789abcdef".repeat(400);
        let files = [
            ("user-data", "#cloud-config\n"),
            ("meta-data", long.as_str()),
            ("network-config", ""),
        ];
        let entries = files.map(|(name, content)| Entry::new(name, content));
        let image = image("CIDATA", entries.into());
        assert_eq!(image.len() % SECTOR, 0);
        let directory = tempfile::tempdir().unwrap();
        let disc = directory.path().join("disc.iso");
        std::fs::write(&disc, &image).unwrap();
        for names in ["any", "norock", "nojoliet"] {
            let found = directory.path().join(names);
            let output = Command::new("xorriso")
                .args(["-abort_on", "WARNING", "-read_fs", names, "-indev"])
                .arg(&disc)
                .args(["-toc", "-osirrox", "on", "-extract", "/"])
                .arg(&found)
                .output()
                .expect("xorriso, of the Debian package of that name");
            let text =
                String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{text}");
            assert!(text.contains("CIDATA"), "{text}");
            for (name, content) in files {
                let name = match names {
                    "nojoliet" => name.to_ascii_uppercase().replace('-', "_"),
                    _ => name.to_owned(),
                };
                let read = std::fs::read_to_string(found.join(&name));
                assert_eq!(read.unwrap(), content, "{names}: {name}");
            }
        }
    }
}
