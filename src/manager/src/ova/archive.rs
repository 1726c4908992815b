//! The archive of an OVA: a tar file with descriptor, manifest and disks.

use std::fs::File;
use std::io;

use lodge_block::foreign::Part;
use sha2::{Digest, Sha256};

/// A header and the unit of everything.
pub(crate) const BLOCK: u64 = 512;

/// Most files of an archive.
const MOST: usize = 200;

/// Longest text that is read whole: descriptor or manifest.
const LONGEST: u64 = 4 << 20;

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    start: u64,
    length: u64,
}

impl Entry {
    /// Where it lies.
    pub(crate) fn part<'a>(&self, archive: &'a File) -> Part<'a> {
        Part {
            file: archive,
            start: self.start,
            length: self.length,
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// All of a small text.
    pub(crate) fn text(&self, archive: &File) -> Result<String, String> {
        if self.length > LONGEST {
            return Err(format!("\"{}\" is too long", self.name));
        }
        let mut bytes = vec![0; self.length as usize];
        read(self.part(archive), 0, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| format!("\"{}\" is no text in UTF-8", self.name))
    }

    /// Its checksum by the manifest's method; `None` where that is not known.
    pub(crate) fn checksum(&self, archive: &File, method: &str) -> Result<Option<String>, String> {
        match method {
            "SHA256" => {
                let mut hash = Sha256::new();
                self.each(archive, |piece| hash.update(piece))?;
                Ok(Some(crate::sessions::hex(&hash.finalize())))
            }
            "SHA1" => {
                let mut hash = <sha1::Sha1 as sha1::Digest>::new();
                self.each(archive, |piece| sha1::Digest::update(&mut hash, piece))?;
                let sum = sha1::Digest::finalize(hash);
                Ok(Some(crate::sessions::hex(&sum)))
            }
            _ => Ok(None),
        }
    }

    fn each(&self, archive: &File, mut take: impl FnMut(&[u8])) -> Result<(), String> {
        let mut piece = vec![0; 1 << 20];
        let mut done = 0;
        while done < self.length {
            let count = (self.length - done).min(piece.len() as u64) as usize;
            read(self.part(archive), done, &mut piece[..count])?;
            take(&piece[..count]);
            done += count as u64;
        }
        Ok(())
    }
}

fn read(part: Part<'_>, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
    let whole = part.read(offset, buffer).and_then(|count| {
        if count == buffer.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    });
    whole.map_err(|error| format!("reading the archive failed: {error}"))
}

/// The regular files of an archive, by their last names: nothing is unpacked, so where they would lie does not matter.
pub(crate) fn entries(archive: &File) -> Result<Vec<Entry>, String> {
    let whole = Part::whole(archive).map_err(|error| error.to_string())?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = 0;
    while at + BLOCK <= whole.length {
        let mut header = [0; BLOCK as usize];
        read(whole, at, &mut header)?;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if &header[257..262] != b"ustar" || !is_whole(&header) {
            return Err(format!(
                "there is no file where one should begin, at byte {at}"
            ));
        }
        let length = number(&header[124..136])
            .filter(|length| *length <= whole.length - at - BLOCK)
            .ok_or_else(|| "it is cut short".to_owned())?;
        let start = at + BLOCK;
        if matches!(header[156], 0 | b'0') {
            let name = header[..100].split(|byte| *byte == 0).next();
            let name = String::from_utf8_lossy(name.unwrap_or_default());
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            entries.push(Entry {
                name,
                start,
                length,
            });
        }
        if entries.len() > MOST {
            return Err(format!("it has more than {MOST} files"));
        }
        at = start.saturating_add(length.next_multiple_of(BLOCK));
    }
    Ok(entries)
}

/// Octal, or the binary of files of 8 GiB and more.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let (high, low) = field.split_last_chunk::<8>()?;
        let fits = high[0] == 0x80 && high[1..].iter().all(|byte| *byte == 0);
        return fits.then(|| u64::from_be_bytes(*low));
    }
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

/// The header of a file of an archive, in the format of POSIX (ustar). Of a longer name the end is left out.
pub(crate) fn header(name: &str, length: u64) -> Vec<u8> {
    let mut header = vec![0; BLOCK as usize];
    let name = &name.as_bytes()[..name.len().min(99)];
    header[..name.len()].copy_from_slice(name);
    for (at, value) in [
        (100, "0000644\0"),
        (108, "0000000\0"),
        (116, "0000000\0"),
        (136, "00000000000\0"),
        (148, "        "),
        (156, "0"),
        (257, "ustar\x0000"),
    ] {
        header[at..at + value.len()].copy_from_slice(value.as_bytes());
    }
    if length < 8 << 30 {
        header[124..136].copy_from_slice(format!("{length:011o}\0").as_bytes());
    } else {
        header[124] = 0x80;
        header[128..136].copy_from_slice(&length.to_be_bytes());
    }
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// The sum of all bytes, those of the sum itself as spaces.
fn is_whole(header: &[u8; BLOCK as usize]) -> bool {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let expected = sum(header) - sum(&header[148..156]) + 8 * u64::from(b' ');
    number(&header[148..156]) == Some(expected)
}

/// `SHA256(disk.vmdk)= 0123…`: method, file and sum.
pub(crate) fn manifest(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    text.lines().filter_map(|line| {
        let (method, rest) = line.split_once('(')?;
        let (file, sum) = rest.rsplit_once(')')?;
        Some((
            method.trim(),
            file,
            sum.trim_start_matches(['=', ' ']).trim(),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"00000001750\0"), Some(1000));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(2 << 32));
        assert_eq!(number(b"\xff\xff\xff\xff\0\0\0\x02\0\0\0\0"), None);
        assert_eq!(number(b"9"), None);
    }

    #[test]
    fn headers_are_read_again() {
        for length in [0, 1000, (8 << 30) - 1, 8 << 30, 5 << 40] {
            let header = header("web-disk0.vmdk", length);
            assert_eq!(number(&header[124..136]), Some(length));
            assert!(is_whole(&header.try_into().unwrap()), "{length}");
        }
        assert_eq!(header(&"x".repeat(200), 1)[100..104], *b"0000");
    }

    #[test]
    fn what_is_no_archive_is_told() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 2048]).unwrap();
        assert!(entries(&file).unwrap_err().contains("at byte 0"));
    }

    #[test]
    fn manifests_are_read() {
        let text = "SHA256(a b.ovf)= 12ab\nSHA1(disk(1).vmdk)=cd\nnothing\n";
        let lines: Vec<_> = manifest(text).collect();
        assert_eq!(
            lines,
            [
                ("SHA256", "a b.ovf", "12ab"),
                ("SHA1", "disk(1).vmdk", "cd")
            ]
        );
    }
}
