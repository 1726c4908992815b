//! Images made by `qemu-img` with each of its options become the raw files they were made from.

mod export;
mod hostile;
mod qcow2;
mod refused;
mod vhd;
mod vmdk;

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;
use crate::format::detect_file;

/// What images are made in and of.
struct Workshop {
    directory: tempfile::TempDir,
}

/// Numbers without order that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// A disk of `size` bytes with what cannot be compressed, what can, long and short runs of zeroes, and something at the end.
fn content(size: usize) -> Vec<u8> {
    let mut disk = vec![0; size];
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut at = 0;
    for round in 0.. {
        let length = 1 + numbers.next() as usize % 200_000;
        let end = (at + length).min(size);
        match round % 4 {
            0 => {
                let bytes = numbers.bytes(end - at);
                disk[at..end].copy_from_slice(&bytes);
            }
            1 => {
                let line = format!("line {round} of a file that can be compressed\n");
                let text = line.bytes().cycle();
                disk[at..end]
                    .iter_mut()
                    .zip(text)
                    .for_each(|(to, from)| *to = from);
            }
            // One written sector among zeroes.
            2 if at + 512 <= end => disk[at..at + 512].fill(0x5a),
            _ => {}
        }
        at = end;
        if at == size {
            break;
        }
    }
    disk[size - 3..].copy_from_slice(b"end");
    disk
}

impl Workshop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A raw disk with something on it.
    fn raw(&self, size: usize) -> Vec<u8> {
        let disk = content(size);
        std::fs::write(self.path("raw"), &disk).unwrap();
        disk
    }

    /// Runs a tool of QEMU in the folder.
    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
    }

    /// Converts `raw` to `image`.
    fn make(&self, arguments: &[&str]) {
        let mut all = vec!["convert", "-t", "unsafe", "-f", "raw"];
        all.extend(arguments);
        all.extend(["raw", "image"]);
        self.run("qemu-img", &all);
    }

    fn open(&self, name: &str) -> Result<(File, Box<dyn Image>), ImageError> {
        let file = File::open(self.path(name)).unwrap();
        let format = detect_file(&file).unwrap().format;
        let image = open(Part::whole(&file).unwrap(), format)?;
        Ok((file, image))
    }

    fn refusal(&self, name: &str) -> ImageError {
        match self.open(name) {
            Ok((_, image)) => panic!("{} was taken", image.describe()),
            Err(error) => error,
        }
    }

    /// Carries `image` over.
    fn convert(&self) -> Result<(Vec<u8>, Converted), ConvertError> {
        let (from, mut image) = self.open("image")?;
        let to = File::create(self.path("out")).unwrap();
        let done = convert(
            image.as_mut(),
            Part::whole(&from).unwrap(),
            &to,
            2,
            &mut |_| ControlFlow::Continue(()),
        )?;
        Ok((std::fs::read(self.path("out")).unwrap(), done))
    }

    /// Writes the changes in `image` to a copy of `base`, which is `raw` then.
    #[track_caller]
    fn apply(&self, image: &str, base: &str) {
        let from = File::open(self.path(image)).unwrap();
        let mut changes = open_changes(Part::whole(&from).unwrap()).unwrap();
        self.run("cp", &["--sparse=always", base, "out"]);
        let to = File::options()
            .read(true)
            .write(true)
            .open(self.path("out"))
            .unwrap();
        let part = Part::whole(&from).unwrap();
        apply(changes.as_mut(), part, &to, 2, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        self.run(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "raw", "out", "raw"],
        );
        let length = |name: &str| std::fs::metadata(self.path(name)).unwrap().len();
        assert_eq!(length("out"), length("raw"));
    }

    /// `image` has the content of `disk`, and zeroes behind if it is larger.
    #[track_caller]
    fn assert_is(&self, disk: &[u8], what: &str) {
        let (found, done) = self
            .convert()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(found.len() >= disk.len(), "{what}: {} bytes", found.len());
        assert_eq!(done.size, found.len() as u64);
        // Slices are compared at once, which tests are not optimised for otherwise.
        let same = found[..disk.len()] == *disk;
        let differs = || found.iter().zip(disk).position(|(a, b)| a != b);
        assert!(same, "{what}: first difference at {:?}", differs());
        let rest = &found[disk.len()..];
        assert!(rest.chunks(4096).all(is_zero), "{what}: the rest");
        assert_sparse(&self.path("out"), &found, what);
    }
}

fn is_zero(block: &[u8]) -> bool {
    [0; 4096].starts_with(block)
}

/// The file takes no more than what is not zero, and what a filesystem needs to say where that is.
fn assert_sparse(path: &Path, content: &[u8], what: &str) {
    let blocks = content.chunks(4096);
    let used = blocks.filter(|block| !is_zero(block)).count() as u64;
    let allocated = std::fs::metadata(path).unwrap().blocks() * 512;
    let most = used * 4096 + (256 << 10);
    assert!(allocated <= most, "{what}: {allocated} bytes, not {most}");
}

#[test]
fn stops_when_told_to() {
    let workshop = Workshop::new();
    workshop.raw(8 << 20);
    workshop.make(&["-O", "qcow2"]);
    let (from, mut image) = workshop.open("image").unwrap();
    let to = File::create(workshop.path("out")).unwrap();
    let mut told = 0;
    let ended = convert(
        image.as_mut(),
        Part::whole(&from).unwrap(),
        &to,
        2,
        &mut |now| {
            assert_eq!(now.size, 8 << 20);
            told += 1;
            if told == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    );
    let cancelled = matches!(
        ended,
        Err(ConvertError::Copy(crate::copy::CopyError::Cancelled))
    );
    assert!(cancelled && told == 3, "{ended:?}");
}

#[test]
fn tells_how_far_it_is() {
    let workshop = Workshop::new();
    workshop.raw(8 << 20);
    workshop.make(&["-O", "qcow2", "-c"]);
    let (from, mut image) = workshop.open("image").unwrap();
    let to = File::create(workshop.path("out")).unwrap();
    let mut last = 0;
    convert(
        image.as_mut(),
        Part::whole(&from).unwrap(),
        &to,
        2,
        &mut |now| {
            assert!(now.position >= last && now.position <= now.size);
            last = now.position;
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    assert_eq!(last, 8 << 20);
}
