//! The process is killed while it commits: what was acknowledged is there, and no batch in part.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use lodge_store::{Batch, Precondition, Store};

use crate::table::{Item, Other, item, open};

const DIRECTORY: &str = "LODGE_STORE_CRASH_DIRECTORY";

/// Not a test by itself: what the parent below starts, and kills.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let store = open(directory.as_ref());
    let next = AtomicU64::new(store.snapshot().revision() + 1000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let mut batch = Batch::new();
                    let key = number.to_string();
                    batch
                        .put(&*key, &item(number), Precondition::Absent)
                        .unwrap();
                    batch
                        .put(&*key, &Other { number }, Precondition::Absent)
                        .unwrap();
                    batch.put("last", &item(number), Precondition::Any).unwrap();
                    store.commit_blocking(batch).unwrap();
                    // One write per line: lines of several threads do not mix.
                    let mut line = format!("acknowledged {number}\n").into_bytes();
                    std::io::stderr().write_all(&line).unwrap();
                    line.clear();
                }
            });
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_by_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 1..=12_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut killed = false;
        let before = acknowledged.len();
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("acknowledged ") {
                acknowledged.push(number.parse::<u64>().unwrap());
            }
            // At another number of commits each time; what is still in the pipe is read to its end.
            if !killed && acknowledged.len() - before >= 7 * round {
                child.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "the child ended by itself");
        child.wait().unwrap();
        let store = open(directory.path());
        let snapshot = store.snapshot();
        for number in &acknowledged {
            let key = number.to_string();
            assert!(
                snapshot.get::<Item>(&key).unwrap().is_some(),
                "round {round}: {key} is lost"
            );
        }
        assert!(snapshot.get::<Item>("last").unwrap().is_some());
        let others = snapshot.list::<Other>();
        assert_eq!(
            snapshot.count::<Item>(),
            others.len() + 1,
            "a batch in part"
        );
        for (key, _) in others {
            assert!(snapshot.get::<Item>(&key).unwrap().is_some());
        }
    }
    assert!(acknowledged.len() > 100);
}
