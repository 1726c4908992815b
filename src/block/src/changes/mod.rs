//! What of a disk is another than in an earlier copy of it.
//!
//! Copies share extents as long as neither is written to, and a block that is written to gets another place, because the
//! other has the old one still: what is at the same place is the same. Where the filesystem does not share extents, or does not
//! tell places, the contents are compared.

mod extents;

use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, XFS_SUPER_MAGIC};

use self::extents::Extents;
use crate::copy::{CopyError, next_data, read_padded};

/// Bytes compared at a time.
const PIECE: u64 = 64 << 10;

/// Ranges in bytes, in order. What is in none of them is the same in both files; beyond its end, a file reads as zeroes.
pub(crate) struct Changes<'a>(How<'a>);

enum How<'a> {
    Places(Places<'a>),
    Contents(Contents<'a>),
}

impl<'a> Changes<'a> {
    /// What is another in `now` than in `base`. Neither may change meanwhile.
    ///
    /// # Errors
    /// When the filesystem does not answer.
    pub fn between(base: &'a File, now: &'a File) -> Result<Self, CopyError> {
        // Places on different filesystems cannot be compared.
        if status(base)?.dev() == status(now)?.dev()
            && shares_extents(now)
            && let (Some(base), Some(now)) = (Extents::of(base)?, Extents::of(now)?)
        {
            return Ok(Self(How::Places(Places { base, now, at: 0 })));
        }
        Self::by_contents(base, now)
    }

    fn by_contents(base: &'a File, now: &'a File) -> Result<Self, CopyError> {
        let size = status(base)?.len().max(status(now)?.len());
        Ok(Self(How::Contents(Contents {
            base,
            now,
            size,
            at: 0,
            pieces: [(); 2].map(|()| vec![0; PIECE as usize]),
        })))
    }

    /// The next range.
    ///
    /// # Errors
    /// When the filesystem does not answer, or a file cannot be read.
    pub fn next(&mut self) -> Result<Option<Range<u64>>, CopyError> {
        match &mut self.0 {
            How::Places(places) => places.next(),
            How::Contents(contents) => contents.next(),
        }
    }
}

/// Whether copies can have their extents in common there. Elsewhere each has all of its data at places of its own.
fn shares_extents(file: &File) -> bool {
    let status = nix::sys::statfs::fstatfs(file);
    let kind = status.map(|status| status.filesystem_type());
    kind.is_ok_and(|kind| kind == XFS_SUPER_MAGIC || kind == BTRFS_SUPER_MAGIC)
}

fn status(file: &File) -> Result<Metadata, CopyError> {
    file.metadata()
        .map_err(|error| CopyError::host("reading a disk's status", error))
}

/// By where data are.
struct Places<'a> {
    base: Extents<'a>,
    now: Extents<'a>,
    /// All before is told.
    at: u64,
}

impl Places<'_> {
    fn next(&mut self) -> Result<Option<Range<u64>>, CopyError> {
        loop {
            let at = self.at;
            skip(&mut self.base, at)?;
            skip(&mut self.now, at)?;
            let (base, now) = (self.base.peek()?, self.now.peek()?);
            // Up to where an extent of either begins or ends, both are one thing.
            let border = |range: &Range<u64>| {
                if range.start > at {
                    range.start
                } else {
                    range.end
                }
            };
            let borders = [base, now].map(|extent| extent.map(|extent| border(&extent.range)));
            let Some(end) = borders.into_iter().flatten().min() else {
                return Ok(None);
            };
            let there = [base, now].map(|extent| extent.filter(|extent| extent.range.start <= at));
            let differs = match there {
                [None, None] => false,
                [Some(base), Some(now)] => {
                    let place = base.place_of(at);
                    place.is_none() || place != now.place_of(at)
                }
                _ => true,
            };
            self.at = end;
            if differs {
                return Ok(Some(at..end));
            }
        }
    }
}

/// Leaves behind what ends before `at`.
fn skip(extents: &mut Extents<'_>, at: u64) -> Result<(), CopyError> {
    while extents.peek()?.is_some_and(|extent| extent.range.end <= at) {
        extents.advance();
    }
    Ok(())
}

/// By what data are.
struct Contents<'a> {
    base: &'a File,
    now: &'a File,
    size: u64,
    /// All before is told.
    at: u64,
    /// What is compared, of each.
    pieces: [Vec<u8>; 2],
}

impl Contents<'_> {
    fn next(&mut self) -> Result<Option<Range<u64>>, CopyError> {
        let files = [self.base, self.now];
        loop {
            let [base, now] = files.map(|file| next_data(file, self.at, self.size));
            let starts = [base?, now?].map(|data| data.map(|(start, _)| start));
            let Some(start) = starts.into_iter().flatten().min() else {
                return Ok(None);
            };
            let start = (start / PIECE * PIECE).max(self.at);
            let end = (start / PIECE + 1) * PIECE;
            let length = (end - start) as usize;
            for (file, piece) in files.into_iter().zip(&mut self.pieces) {
                read_padded(file, start, &mut piece[..length])?;
            }
            self.at = end;
            if self.pieces[0][..length] != self.pieces[1][..length] {
                return Ok(Some(start..end));
            }
        }
    }
}

#[cfg(test)]
mod tests;
