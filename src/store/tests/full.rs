//! A full filesystem: an error of its own, nothing acknowledged, and room can be made.
//!
//! The filesystem is a small tmpfs in a mount namespace of a child process.

mod table;

use std::fs;
use std::path::Path;
use std::process::Command;

use lodge_store::{Batch, Opened, Precondition, SledStore, Store, StoreError, StoreOptions};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use table::{Item, items};

const MODE: &str = "LODGE_STORE_FULL_MODE";

fn big(number: u64) -> Item {
    Item {
        number,
        // Not compressible into nothing, and several to a segment.
        text: format!("{number:010}").repeat(3000),
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
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).expect("unshare");
    let map = |file: &str, text: String| fs::write(Path::new("/proc/self").join(file), text);
    map("setgroups", "deny".to_owned()).unwrap();
    map("uid_map", format!("0 {uid} 1")).unwrap();
    map("gid_map", format!("0 {gid} 1")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    mount(
        Some("tmpfs"),
        directory.path(),
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=24m"),
    )
    .expect("mount");
    let path = directory.path().join("store");
    if mode == "guarded" {
        refuses_before_it_is_full(&path);
    } else {
        survives_running_into_it(&path);
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

fn refuses_before_it_is_full(path: &Path) {
    let Opened { store, .. } = SledStore::open(path).unwrap();
    let count = fill_up(&store);
    assert!(count > 10);
    assert_eq!(items(&store).len() as u64, count, "nothing of it happened");
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

fn survives_running_into_it(path: &Path) {
    let options = StoreOptions {
        min_free: 0,
        reserve: 0,
        ..StoreOptions::default()
    };
    let Opened { store, .. } = SledStore::open_with(path, &options).unwrap();
    let ballast = path.with_file_name("ballast");
    fs::write(&ballast, vec![1; 8 << 20]).unwrap();
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

fn run(mode: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(MODE, mode)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("unshare: E") || errors.contains("mount: E") {
        eprintln!("skipped: this machine allows no mount namespaces\n{errors}");
        return;
    }
    assert!(text.contains("child is done"), "{text}\n{errors}");
}

#[test]
fn it_refuses_before_the_filesystem_is_full() {
    run("guarded");
}

#[test]
fn it_survives_running_into_a_full_filesystem() {
    run("unguarded");
}
