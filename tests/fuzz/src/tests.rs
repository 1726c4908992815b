//! Every target survives its corpus.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::TARGETS;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            path.file_stem().unwrap().to_string_lossy().into_owned()
        })
        .collect()
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("fuzz_targets")), targets);
    assert_eq!(names(&folder("corpus")), targets);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for target in targets {
        assert!(
            manifest.contains(&format!("name = \"{target}\"")),
            "{target}"
        );
    }
}

#[test]
fn inputs_of_the_corpus_do_no_harm() {
    for (name, target) in TARGETS {
        let mut tried = 0;
        for entry in fs::read_dir(folder("corpus").join(name)).unwrap() {
            target(&fs::read(entry.unwrap().path()).unwrap());
            tried += 1;
        }
        assert!(tried > 0, "{name} has no inputs");
    }
}

/// Cheap numbers that repeat.
struct Numbers(u64);

impl Numbers {
    fn new() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }
}

#[test]
fn inputs_like_those_of_the_corpus_do_no_harm() {
    const CHANGED: usize = 100;
    let mut numbers = Numbers::new();
    for (name, target) in TARGETS {
        for entry in fs::read_dir(folder("corpus").join(name)).unwrap() {
            let seed = fs::read(entry.unwrap().path()).unwrap();
            for round in 0..CHANGED {
                let mut bytes = seed.clone();
                // A few bytes, and now and then the end is missing.
                for _ in 0..=round {
                    let at = numbers.next() as usize % bytes.len();
                    bytes[at] = numbers.next() as u8;
                }
                if round % 4 == 3 {
                    bytes.truncate(numbers.next() as usize % seed.len());
                }
                target(&bytes);
            }
        }
    }
}

#[test]
fn any_bytes_do_no_harm() {
    let mut numbers = Numbers::new();
    for (_, target) in TARGETS {
        for length in [0, 1, 7, 100, 400] {
            let bytes: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
            target(&bytes);
        }
    }
}
