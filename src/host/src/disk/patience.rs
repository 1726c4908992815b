//! Reading disks that may not answer: those of other machines. Until the kernel gives one up, whoever reads from it waits.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Disks of which somebody reads, by name.
static BEING_READ: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Takes a disk off the list when its reader ends, however that is.
struct Reader(String);

impl Reader {
    fn of(name: &str) -> Option<Self> {
        let mut all = BEING_READ.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned()).then(|| Self(name.to_owned()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut all = BEING_READ.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.0);
    }
}

/// Does `work`, which reads from the disk of that name, on a thread of its own. `None` when it takes too long; it goes on by itself then,
/// and nothing else is begun with that disk until it has ended.
pub(crate) fn patiently<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    wait_for(name, PATIENCE, work)
}

fn wait_for<T: Send + 'static>(
    name: &str,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let reader = Reader::of(name)?;
    let (answer, answered) = mpsc::sync_channel(1);
    let started = thread::Builder::new()
        .name("read-disk".to_owned())
        .spawn(move || {
            let result = work();
            drop(reader);
            // Whoever asked may have gone.
            let _ = answer.send(result);
        });
    started.ok()?;
    answered.recv_timeout(patience).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_answer_has_one_reader() {
        assert_eq!(patiently("quick", || 5), Some(5));
        assert_eq!(patiently("quick", || 6), Some(6), "again");
        let (go_on, wait) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel::<()>();
        let stuck = wait_for("stuck", Duration::from_millis(1), move || {
            // Until the other end is dropped.
            let _ = wait.recv();
            drop(ended);
        });
        assert_eq!(stuck, None);
        assert_eq!(patiently("stuck", || 1), None, "it is still being read");
        assert_eq!(patiently("other", || 2), Some(2));
        drop(go_on);
        assert!(end.recv().is_err());
        assert_eq!(again("stuck", 3), 3);
    }

    /// Its reader is about to end.
    fn again(name: &str, result: u32) -> u32 {
        loop {
            if let Some(read) = patiently(name, move || result) {
                return read;
            }
            thread::yield_now();
        }
    }

    #[test]
    fn a_reader_that_fails_leaves_nothing_behind() {
        let failed: Option<()> = patiently("failing", || panic!("as it should"));
        assert_eq!(failed, None);
        assert_eq!(again("failing", 4), 4);
    }
}
