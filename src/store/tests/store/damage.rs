//! Damaged files: what can be repaired is, and what cannot is restored from the last export.

use std::fs;
use std::path::{Path, PathBuf};

use lodge_store::{Batch, Opened, Precondition, SledStore, Store};

use crate::table::{Item, item, items, open};

fn fill(directory: &Path, keys: std::ops::Range<u64>) {
    let store = open(directory);
    for number in keys {
        let mut batch = Batch::new();
        batch
            .put(format!("{number:03}"), &item(number), Precondition::Any)
            .unwrap();
        store.commit_blocking(batch).unwrap();
    }
    store.close();
}

fn sled_files(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    fs::read_dir(directory.join("sled"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(prefix)
        })
        .collect()
}

fn numbers(store: &SledStore) -> Vec<u64> {
    items(store).into_iter().map(|(_, number)| number).collect()
}

/// sled itself, which does not wait for its lock as we do.
fn open_sled(directory: &Path) -> sled::Db {
    sled::Config::new()
        .path(directory.join("sled"))
        .segment_size(2 << 20)
        .open()
        .unwrap()
}

#[test]
fn what_was_closed_can_be_opened_by_another_at_once() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..50 {
        fill(directory.path(), round..round + 1);
        let path = directory.path().join("sled/db");
        fs::File::open(path).unwrap().try_lock().unwrap();
    }
    open_sled(directory.path());
}

#[test]
fn an_unfinished_snapshot_of_sled_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..20);
    fs::write(
        directory
            .path()
            .join("sled/snap.00000000000000FF.generating"),
        b"",
    )
    .unwrap();
    let store = open(directory.path());
    assert_eq!(numbers(&store), (0..20).collect::<Vec<_>>());
}

#[test]
fn damaged_snapshots_of_sled_lose_nothing() {
    for content in [&b""[..], b"garbage, and more than a header of it"] {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path(), 0..20);
        let snapshots = sled_files(directory.path(), "snap.");
        let path = snapshots
            .first()
            .cloned()
            .unwrap_or_else(|| directory.path().join("sled/snap.00000000000000FF"));
        fs::write(path, content).unwrap();
        let Opened { store, warnings } = SledStore::open(directory.path()).unwrap();
        assert_eq!(numbers(&store), (0..20).collect::<Vec<_>>(), "{warnings:?}");
    }
}

#[test]
fn a_store_beyond_repair_is_restored_from_the_last_export() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..10);
    let store = open(directory.path());
    let before = store.snapshot().revision();
    store.export().unwrap();
    store.close();
    fill(directory.path(), 10..12);
    fs::write(directory.path().join("sled/conf"), b"no configuration").unwrap();
    let Opened { store, warnings } = SledStore::open(directory.path()).unwrap();
    assert_eq!(numbers(&store), (0..10).collect::<Vec<_>>());
    assert!(
        warnings[0].contains("restored from"),
        "a person is told: {warnings:?}"
    );
    assert!(
        store.snapshot().revision() > before + 2,
        "no revision twice"
    );
    store.close();
    assert_eq!(numbers(&open(directory.path())).len(), 10, "and it stays");
    let kept = fs::read_dir(directory.path())
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("damaged-store")
        })
        .count();
    assert_eq!(kept, 1, "the damaged files are kept");
}

#[test]
fn an_incomplete_export_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..5);
    let store = open(directory.path());
    store.export().unwrap();
    store.close();
    fill(directory.path(), 5..6);
    let store = open(directory.path());
    let newest = store.export().unwrap();
    store.close();
    let text = fs::read(&newest).unwrap();
    for broken in [
        text[..text.len() - 5].to_vec(),
        text.to_ascii_uppercase(),
        Vec::new(),
    ] {
        fs::write(&newest, broken).unwrap();
        fs::write(directory.path().join("sled/conf"), b"no configuration").unwrap();
        let Opened { store, warnings } = SledStore::open(directory.path()).unwrap();
        assert_eq!(numbers(&store), (0..5).collect::<Vec<_>>(), "{warnings:?}");
    }
}

#[test]
fn losses_are_told_of_until_they_are_settled() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..3);
    assert!(!open(directory.path()).has_losses());
    fs::write(directory.path().join("sled/conf"), b"no configuration").unwrap();
    for _ in 0..2 {
        let Opened { store, .. } = SledStore::open(directory.path()).unwrap();
        assert!(store.has_losses());
    }
    let store = open(directory.path());
    store.settle_losses().unwrap();
    store.settle_losses().unwrap();
    assert!(!store.has_losses());
    drop(store);
    assert!(!open(directory.path()).has_losses());
}

#[test]
fn without_an_export_it_starts_empty_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..5);
    fs::write(directory.path().join("sled/conf"), b"no configuration").unwrap();
    let Opened { store, warnings } = SledStore::open(directory.path()).unwrap();
    assert_eq!(store.snapshot().count::<Item>(), 0);
    assert!(warnings[0].contains("starts empty"), "{warnings:?}");
}

#[test]
fn damaged_bytes_anywhere_never_panic_nor_return_wrong_records() {
    let pristine = tempfile::tempdir().unwrap();
    fill(pristine.path(), 0..30);
    let good = fs::read(pristine.path().join("sled/db")).unwrap();
    let written = good.iter().rposition(|byte| *byte != 0).unwrap();
    for step in 0..24 {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path(), 0..30);
        let mut bytes = good.clone();
        let at = written * step / 24;
        for byte in bytes.iter_mut().skip(at).take(64) {
            *byte ^= 0x5a;
        }
        fs::write(directory.path().join("sled/db"), &bytes).unwrap();
        let Opened { store, .. } = SledStore::open(directory.path()).unwrap();
        for (key, number) in items(&store) {
            assert_eq!(key, format!("{number:03}"));
        }
    }
}

#[test]
fn a_garbled_record_is_replaced_by_the_exported_one() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 0..3);
    let store = open(directory.path());
    store.export().unwrap();
    store.close();
    let db = open_sled(directory.path());
    db.insert(b"items\x00001", b"\x01torn").unwrap();
    db.insert(b"items\x00new", b"never exported").unwrap();
    db.insert(b"no separator", b"").unwrap();
    db.flush().unwrap();
    drop(db);
    let Opened { store, warnings } = SledStore::open(directory.path()).unwrap();
    assert_eq!(numbers(&store), [0, 1, 2]);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(store.has_losses());
    store.close();
    assert_eq!(numbers(&open(directory.path())), [0, 1, 2]);
}
