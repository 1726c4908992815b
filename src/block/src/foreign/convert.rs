//! Carrying the data of a foreign image over to a raw file.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::unpack::Unpacker;
use super::{Content, Extent, Image, ImageError, Part};
use crate::copy::{CopyError, CopyProgress, Progress, punch, share_range};
use crate::format::Format;

/// Bytes of the disk that one job carries over, and that a plain extent is read in.
const JOB: u64 = 1 << 20;

/// Most extents of a job.
const MOST_EXTENTS: usize = 1024;

/// Jobs that wait for a thread, for each thread.
const WAITING: usize = 4;

/// Blocks of zeroes of this size become holes: what filesystems allocate.
const BLOCK: usize = 4096;

/// A conversion that did not finish. The destination has some of the content.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The image is not right.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The raw file could not be written, or the progress callback said stop.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// What a conversion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converted {
    /// Length of the raw file in bytes.
    pub size: u64,
    /// Bytes of data carried over, without what turned out to be zeroes.
    pub copied: u64,
}

/// Writes the disk in `from`, which `image` reads, to the empty file `to`. What reads as zeroes becomes a hole. Where both lie on one
/// filesystem that can, they share what is not compressed.
///
/// `threads` read and unpack beside the caller's, which walks the tables and calls `progress` before each megabyte or so.
///
/// # Errors
/// [`ConvertError`].
pub fn convert(
    image: &mut dyn Image,
    from: Part<'_>,
    to: &File,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Converted, ConvertError> {
    carry(image, (from, to), false, threads, progress)
}

/// Brings the disk `to` to where it was when the changes in `from`, which `image` reads, were made: what is in none of the extents stays. A disk that has
/// grown meanwhile grows. Otherwise as [`convert`].
///
/// # Errors
/// [`ConvertError`]; that of a disk that is longer than the one the changes are of is an [`ImageError::Refused`].
pub fn apply(
    image: &mut dyn Image,
    from: Part<'_>,
    to: &File,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Converted, ConvertError> {
    let metadata = to.metadata();
    let metadata = metadata.map_err(|error| CopyError::host("reading the disk's status", error))?;
    let (has, size) = (metadata.len(), image.size());
    if has > size {
        let problem = format!("with changes of a disk of {size} bytes, and this one has {has}");
        let remedy = "apply it to the disk that the changes are of, as it was before them";
        return Err(ImageError::refused(image.format(), problem, remedy).into());
    }
    carry(image, (from, to), true, threads, progress)
}

fn carry(
    image: &mut dyn Image,
    (from, to): (Part<'_>, &File),
    over: bool,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Converted, ConvertError> {
    let size = image.size();
    to.set_len(size)
        .map_err(|error| CopyError::host("setting the size", error))?;
    let shared = Shared {
        format: image.format(),
        from,
        to,
        over,
        sharing: AtomicBool::new(true),
        failed: AtomicBool::new(false),
        position: AtomicU64::new(0),
        copied: AtomicU64::new(0),
        error: Mutex::new(None),
    };
    let (jobs, waiting) = sync_channel(threads.max(1) * WAITING);
    let waiting = Mutex::new(waiting);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| shared.work(&waiting));
        }
        let walked = shared.walk(image, &jobs, progress);
        if walked.is_err() {
            // What still waits is not worth carrying over.
            shared.failed.store(true, Ordering::Relaxed);
        }
        drop(jobs);
        walked
    })?;
    shared.outcome()?;
    let copied = shared.copied.into_inner();
    let end = CopyProgress {
        position: size,
        size,
        copied,
    };
    match progress(end) {
        ControlFlow::Continue(()) => Ok(Converted { size, copied }),
        ControlFlow::Break(()) => Err(CopyError::Cancelled.into()),
    }
}

/// What all threads see.
struct Shared<'a> {
    format: Format,
    from: Part<'a>,
    to: &'a File,
    /// There is something in it already: zeroes have to be written, too.
    over: bool,
    /// Whether the filesystem has not yet refused to share extents.
    sharing: AtomicBool,
    failed: AtomicBool,
    /// End of the last job that is done.
    position: AtomicU64,
    copied: AtomicU64,
    error: Mutex<Option<ConvertError>>,
}

/// Extents for one thread to carry over.
#[derive(Debug, Default)]
struct Job {
    extents: Vec<Extent>,
    bytes: u64,
}

impl Job {
    fn is_full(&self) -> bool {
        self.bytes >= JOB || self.extents.len() >= MOST_EXTENTS
    }

    /// Takes as much of the extent as there is room for, and returns the rest.
    fn take(&mut self, extent: Extent) -> Option<Extent> {
        let (first, rest) = split(extent, JOB - self.bytes);
        self.bytes += first.length;
        match self.extents.last_mut() {
            Some(last) if continues(last, &first) => last.length += first.length,
            _ => self.extents.push(first),
        }
        rest
    }
}

/// The first `most` bytes of a plain extent, and what is left of it. Packed ones are not divided.
fn split(extent: Extent, most: u64) -> (Extent, Option<Extent>) {
    let Content::Plain { at } = extent.content else {
        return (extent, None);
    };
    if extent.length <= most {
        return (extent, None);
    }
    let first = Extent {
        length: most,
        ..extent
    };
    let rest = Extent {
        start: extent.start + most,
        length: extent.length - most,
        content: Content::Plain { at: at + most },
    };
    (first, Some(rest))
}

/// Whether `next` follows `last` on the disk and in the file.
fn continues(last: &Extent, next: &Extent) -> bool {
    let (Content::Plain { at }, Content::Plain { at: next_at }) = (last.content, next.content)
    else {
        return false;
    };
    last.start + last.length == next.start && at + last.length == next_at
}

impl Shared<'_> {
    /// Gives out the extents as jobs, in order.
    fn walk(
        &self,
        image: &mut dyn Image,
        jobs: &SyncSender<Job>,
        progress: Progress<'_>,
    ) -> Result<(), ConvertError> {
        let size = image.size();
        let mut job = Job::default();
        while let Some(extent) = image.next_extent()? {
            let mut rest = Some(extent);
            while let Some(extent) = rest {
                rest = job.take(extent);
                if job.is_full() {
                    self.hand_over(std::mem::take(&mut job), jobs, size, progress)?;
                }
            }
        }
        self.hand_over(job, jobs, size, progress)
    }

    /// Waits until the threads have room for the job.
    fn hand_over(
        &self,
        job: Job,
        jobs: &SyncSender<Job>,
        size: u64,
        progress: Progress<'_>,
    ) -> Result<(), ConvertError> {
        let now = CopyProgress {
            position: self.position.load(Ordering::Relaxed),
            size,
            copied: self.copied.load(Ordering::Relaxed),
        };
        if progress(now).is_break() {
            return Err(CopyError::Cancelled.into());
        }
        // The threads are there as long as the channel is; what failed in one is told at the end, too.
        let _ = jobs.send(job);
        self.outcome()
    }

    fn outcome(&self) -> Result<(), ConvertError> {
        if !self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.take().map_or(Ok(()), Err)
    }

    fn fail(&self, error: ConvertError) {
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// One thread's life: it ends with the jobs.
    fn work(&self, waiting: &Mutex<Receiver<Job>>) {
        let mut worker = Worker {
            shared: self,
            unpacker: Unpacker::default(),
            input: Vec::new(),
            output: Vec::new(),
        };
        loop {
            let next = waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
            let Ok(job) = next else { return };
            // What still waits after an error is only taken away.
            if self.failed.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(error) = job.extents.iter().try_for_each(|one| worker.carry(one)) {
                self.fail(error);
            }
            if let Some(last) = job.extents.last() {
                let end = last.start + last.length;
                self.position.fetch_max(end, Ordering::Relaxed);
            }
        }
    }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    unpacker: Unpacker,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Worker<'_> {
    fn carry(&mut self, extent: &Extent) -> Result<(), ConvertError> {
        match extent.content {
            Content::Plain { at } => self.plain(extent, at),
            Content::Zeroes => self.shared.clear(extent.start, extent.length),
            Content::Packed {
                at,
                length,
                packing,
                unpacked,
            } => {
                self.input.resize(length as usize, 0);
                self.read(at)?;
                self.output.resize(unpacked as usize, 0);
                let found = self
                    .unpacker
                    .unpack(packing, &self.input, &mut self.output)
                    .filter(|found| *found as u64 >= extent.length);
                if found.is_none() {
                    let problem = format!("what is compressed at byte {at} cannot be unpacked");
                    return Err(ImageError::damaged(self.shared.format, problem).into());
                }
                let data = &self.output[..extent.length as usize];
                self.shared.write(extent.start, data)
            }
        }
    }

    fn plain(&mut self, extent: &Extent, at: u64) -> Result<(), ConvertError> {
        let (shared, length) = (self.shared, extent.length);
        let aligned = |number: u64| number.is_multiple_of(BLOCK as u64);
        let place = shared.from.start + at;
        let whole = aligned(place)
            && aligned(extent.start)
            && aligned(length)
            && at.saturating_add(length) <= shared.from.length;
        if whole && shared.sharing.load(Ordering::Relaxed) {
            if share_range(shared.from.file, place, length, shared.to, extent.start)? {
                shared.copied.fetch_add(length, Ordering::Relaxed);
                return Ok(());
            }
            shared.sharing.store(false, Ordering::Relaxed);
        }
        self.input.resize(length as usize, 0);
        self.read(at)?;
        shared.write(extent.start, &self.input)
    }

    /// Fills the input buffer, behind the end of the file with zeroes.
    fn read(&mut self, at: u64) -> Result<(), ConvertError> {
        let read = self.shared.from.read(at, &mut self.input);
        let count = read.map_err(|error| CopyError::host("reading the image", error))?;
        self.input[count..].fill(0);
        Ok(())
    }
}

impl Shared<'_> {
    /// Writes the blocks that are not zero, and makes holes of the others.
    fn write(&self, start: u64, data: &[u8]) -> Result<(), ConvertError> {
        let mut from = 0;
        while from < data.len() {
            let zeroes = is_zero(&data[from..block_end(start, from, data.len())]);
            let mut to = from;
            while to < data.len() {
                let end = block_end(start, to, data.len());
                if is_zero(&data[to..end]) != zeroes {
                    break;
                }
                to = end;
            }
            if zeroes {
                self.clear(start + from as u64, (to - from) as u64)?;
            } else {
                self.to
                    .write_all_at(&data[from..to], start + from as u64)
                    .map_err(|error| CopyError::host("writing", error))?;
                self.copied.fetch_add((to - from) as u64, Ordering::Relaxed);
            }
            from = to;
        }
        Ok(())
    }

    /// Sees that there are zeroes.
    fn clear(&self, start: u64, length: u64) -> Result<(), ConvertError> {
        if self.over {
            punch(self.to, start, length)?;
        }
        Ok(())
    }
}

/// End of the filesystem's block that has byte `at` of data that are at `start` of the file.
fn block_end(start: u64, at: usize, length: usize) -> usize {
    let within = (start as usize).wrapping_add(at) % BLOCK;
    length.min(at + BLOCK - within)
}

fn is_zero(block: &[u8]) -> bool {
    const ZEROES: [u8; BLOCK] = [0; BLOCK];
    ZEROES.starts_with(block)
}
