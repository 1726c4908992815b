//! A full filesystem: an error of its own, nothing acknowledged, and room can be made.
//!
//! The filesystem is a small tmpfs in a mount namespace of a child process.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use lodge_store::{Batch, Opened, Precondition, SledStore, Store, StoreError, StoreOptions};
use nix::mount::{MsFlags, mount};

use crate::table::{Item, items};

const MODE: &str = "LODGE_STORE_FULL_MODE";

fn big(number: u64) -> Item {
    Item {
        number,
        // Not compressible into nothing, and several to a segment.
        text: format!("{number:010}").repeat(1500),
    }
}

fn put(key: &str, number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, &big(number), Precondition::Any).unwrap();
    batch
}

/// Not a test by itself: runs where the parents below put it.
#[test]
fn child() {
    let Some(mode) = std::env::var_os(MODE) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    mount(
        Some("tmpfs"),
        directory.path(),
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=64m"),
    )
    .expect("mount");
    let path = directory.path().join("store");
    if mode == "guarded" {
        refuses_before_it_is_full(&path);
    } else {
        is_kept_from_running_into_it(&path);
    }
    println!("child is done");
}

fn fill_up(store: &SledStore) -> u64 {
    for number in 0..10_000 {
        match store.commit_blocking(put(&format!("{number:05}"), number)) {
            Ok(_) => {}
            Err(StoreError::NoSpace) => return number,
            Err(error) => panic!("not an error of its own: {error}"),
        }
    }
    panic!("never full");
}

/// Makes a file longer until there is no room at all.
fn fill(path: &Path) {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

fn refuses_before_it_is_full(path: &Path) {
    let Opened { store, .. } = SledStore::open(path).unwrap();
    let count = fill_up(&store);
    assert!(count > 10);
    assert_eq!(items(&store).len() as u64, count, "nothing of it happened");
    // Something else takes what is left, and would take the reserve.
    let ballast = path.with_file_name("ballast");
    fill(&ballast);
    let mut little = Batch::new();
    let item = Item {
        number: 7,
        text: String::new(),
    };
    little
        .put("little", &item, Precondition::Absent)
        .unwrap()
        .may_use_reserve();
    store.commit_blocking(little).unwrap();
    fill(&ballast);
    for number in 0..100 {
        let mut little = Batch::new();
        little
            .put(
                "little",
                &Item {
                    number,
                    ..item.clone()
                },
                Precondition::Present,
            )
            .unwrap()
            .may_use_reserve();
        store.commit_blocking(little).unwrap();
    }
    let refused = store.commit_blocking(put("more", 1));
    assert!(matches!(refused, Err(StoreError::NoSpace)), "{refused:?}");
    let mut batch = Batch::new();
    batch
        .delete::<Item>("little", Precondition::Present)
        .unwrap();
    store.commit_blocking(batch).unwrap();
    fs::remove_file(&ballast).unwrap();
    // Deleting works all the same.
    for number in 0..count {
        let mut batch = Batch::new();
        batch
            .delete::<Item>(format!("{number:05}"), Precondition::Present)
            .unwrap();
        store.commit_blocking(batch).unwrap();
    }
    store.close();
    let Opened { store, warnings } = SledStore::open(path).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(items(&store), []);
}

fn is_kept_from_running_into_it(path: &Path) {
    let options = StoreOptions {
        min_free: 0,
        reserve: 0,
        ..StoreOptions::default()
    };
    let Opened { store, .. } = SledStore::open_with(path, &options).unwrap();
    // Something else fills the filesystem meanwhile.
    let ballast = path.with_file_name("ballast");
    fs::write(&ballast, vec![1; 24 << 20]).unwrap();
    let count = fill_up(&store);
    assert_eq!(items(&store).len() as u64, count, "nothing of it happened");
    let revision = store.snapshot().revision();
    fs::remove_file(&ballast).unwrap();
    assert_eq!(
        store.commit_blocking(put("later", 1)).unwrap(),
        revision + 1
    );
    let expected = items(&store);
    assert_eq!(expected.len() as u64, count + 1);
    store.close();
    let Opened { store, warnings } = SledStore::open_with(path, &options).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(items(&store), expected);
}

/// Runs the child as root of namespaces of its own.
fn run(mode: &str) {
    let namespaces = ["--user", "--map-root-user", "--mount"];
    let allowed = Command::new("unshare")
        .args(namespaces)
        .arg("true")
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine allows no mount namespaces");
        return;
    }
    let output = Command::new("unshare")
        .args(namespaces)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full::child", "--nocapture", "--test-threads=1"])
        .env(MODE, mode)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("child is done"), "{text}\n{errors}");
}

#[test]
fn it_refuses_before_the_filesystem_is_full() {
    run("guarded");
}

#[test]
fn it_is_kept_from_running_into_a_full_filesystem() {
    run("unguarded");
}
