//! The thread on which devices are built while the guest runs.
//!
//! A new device needs threads, events and a look at its descriptors. The main thread, which talks to managers, may do none of this
//! once it is locked in, and threads begin with the list of system calls of whoever starts them; so this one, which is started before, has a list of its own.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::Prologue;

type Job = Box<dyn FnOnce() + Send>;

/// The thread, which sleeps while there is nothing to build.
pub struct Workshop {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Workshop {
    /// Starts the thread, which runs `prologue` first.
    ///
    /// # Errors
    /// When the host is out of threads.
    pub fn open(prologue: Prologue) -> io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("workshop".to_owned())
            .spawn(move || {
                prologue();
                for job in inbox {
                    // As on the threads of queues: a dead monitor is reported, half of a device is not.
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        std::process::abort();
                    }
                }
            })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Has `job` done there, and waits for what comes of it.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let gone = || io::Error::other("the thread that builds devices is gone");
        let (done, result) = channel();
        let job = Box::new(move || drop(done.send(job())));
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_built_comes_back() {
        let workshop = Workshop::open(Arc::new(|| {})).unwrap();
        let there = || std::thread::current().name().map(str::to_owned);
        assert_eq!(workshop.run(there).unwrap().as_deref(), Some("workshop"));
        assert_eq!(workshop.run(|| 6 * 7).unwrap(), 42);
    }
}
