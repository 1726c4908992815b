//! One request on its way, step by step.

use std::os::fd::AsRawFd;

use io_uring::{opcode, squeue, types};

use super::IoError;
use super::bounce::Pool;
use super::inline;
use super::transfer::{Direction, Transfer};
use crate::raw::RawDisk;

/// How often in a row the kernel may say "try again".
const MOST_TRIES: u8 = 32;

/// Most bytes of one buffer in one step: what one call moves at most (`MAX_RW_COUNT`).
const MOST_BYTES: usize = 0x7fff_f000;

/// What a request does next.
#[derive(Debug)]
pub(super) enum Step {
    Transfer(Transfer),
    Flush,
    /// Give the space back by punching a hole.
    Discard {
        offset: u64,
        length: u64,
    },
    /// Zero by punching a hole.
    ZeroUnmap {
        offset: u64,
        length: u64,
    },
    /// Zero and keep the space allocated.
    ZeroKeep {
        offset: u64,
        length: u64,
    },
    /// Zero by writing zeroes, for filesystems that can do nothing else.
    ZeroWrite {
        offset: u64,
        length: u64,
    },
}

/// How a step starts.
pub(super) enum Begin {
    /// With this entry in the submission queue.
    Entry(squeue::Entry),
    /// It is over already, with the result that its entry would have had.
    Made(i32),
    /// Not now: there is no bounce buffer.
    Starved,
    /// Not at all.
    Failed(IoError),
}

/// What comes after a step.
pub(super) enum Outcome {
    /// Another step.
    Again,
    /// Nothing.
    Done(Result<(), IoError>),
}

/// One request.
#[derive(Debug)]
pub(super) struct Operation {
    token: u64,
    step: Step,
    tries: u8,
    direct: bool,
}

impl Operation {
    pub fn new(token: u64, step: Step) -> Self {
        Self {
            token,
            step,
            tries: 0,
            direct: false,
        }
    }

    pub fn token(&self) -> u64 {
        self.token
    }

    /// Prepares the next step. The entry points into this operation and its buffers.
    ///
    /// Of a disk `in_memory` it may be over at once.
    pub fn begin(&mut self, disk: &RawDisk, pool: &mut Pool, in_memory: bool) -> Begin {
        self.direct = disk.direct();
        let fd = descriptor(disk);
        let entry = match &mut self.step {
            Step::Transfer(transfer) => return begin_transfer(transfer, disk, pool, in_memory),
            Step::Flush if in_memory => return Begin::Made(inline::flush(disk)),
            Step::Flush => opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Step::Discard { offset, length } | Step::ZeroUnmap { offset, length } => {
                fallocate(fd, libc::FALLOC_FL_PUNCH_HOLE, *offset, *length)
            }
            Step::ZeroKeep { offset, length } => {
                fallocate(fd, libc::FALLOC_FL_ZERO_RANGE, *offset, *length)
            }
            Step::ZeroWrite { offset, length } => {
                let zeroes = pool.zeroes();
                let count = (zeroes.len() as u64).min(*length) as u32;
                opcode::Write::new(fd, zeroes.as_ptr(), count)
                    .offset(*offset)
                    .build()
            }
        };
        Begin::Entry(entry)
    }

    /// Takes the result of a step: a count, or a negated error number.
    pub fn complete(&mut self, result: i32, pool: &mut Pool) -> Outcome {
        let bounce = match &mut self.step {
            Step::Transfer(transfer) => transfer.bounce.take(),
            _ => None,
        };
        if matches!(-result, libc::EAGAIN | libc::EINTR) {
            if let Some(bounce) = bounce {
                pool.give_back(bounce);
            }
            self.tries += 1;
            return if self.tries < MOST_TRIES {
                Outcome::Again
            } else {
                Outcome::Done(Err(IoError::from_errno(-result)))
            };
        }
        self.tries = 0;
        if let Step::Transfer(transfer) = &mut self.step {
            let bounced = bounce.is_some();
            if let Some(mut bounce) = bounce {
                if transfer.direction == Direction::Read {
                    transfer.empty_bounce(&mut bounce, usize::try_from(result).unwrap_or(0));
                }
                pool.give_back(bounce);
            }
            return complete_transfer(transfer, result, bounced, self.direct);
        }
        self.complete_other(result)
    }

    fn complete_other(&mut self, result: i32) -> Outcome {
        let unsupported = -result == libc::EOPNOTSUPP;
        match self.step {
            // A discard is a hint: nobody is worse off without it. Devices that discard without a promise of zeroes refuse this one.
            Step::Discard { .. } if unsupported => Outcome::Done(Ok(())),
            Step::ZeroUnmap { offset, length } if unsupported => {
                self.step = Step::ZeroKeep { offset, length };
                Outcome::Again
            }
            Step::ZeroKeep { offset, length } if unsupported => {
                self.step = Step::ZeroWrite { offset, length };
                Outcome::Again
            }
            Step::ZeroWrite { offset, length } if result > 0 => {
                let count = u64::from(result.unsigned_abs()).min(length);
                if count == length {
                    return Outcome::Done(Ok(()));
                }
                self.step = Step::ZeroWrite {
                    offset: offset + count,
                    length: length - count,
                };
                Outcome::Again
            }
            Step::ZeroWrite { .. } if result == 0 => Outcome::Done(Err(IoError::Host(libc::EIO))),
            _ if result < 0 => Outcome::Done(Err(IoError::from_errno(-result))),
            _ => Outcome::Done(Ok(())),
        }
    }
}

fn descriptor(disk: &RawDisk) -> types::Fd {
    types::Fd(disk.file().as_raw_fd())
}

fn fallocate(fd: types::Fd, mode: i32, offset: u64, length: u64) -> squeue::Entry {
    opcode::Fallocate::new(fd, length)
        .offset(offset)
        .mode(mode | libc::FALLOC_FL_KEEP_SIZE)
        .build()
}

fn begin_transfer(
    transfer: &mut Transfer,
    disk: &RawDisk,
    pool: &mut Pool,
    in_memory: bool,
) -> Begin {
    let (fd, offset) = (descriptor(disk), transfer.offset());
    if disk.direct() && !offset.is_multiple_of(u64::from(disk.logical_block())) {
        // A short transfer that ended inside a block: the disk is broken there.
        return Begin::Failed(IoError::Host(libc::EIO));
    }
    if transfer.aligned(disk.alignment()) {
        let made = in_memory.then(|| inline::transfer(transfer, disk));
        return match made.flatten() {
            Some(result) => Begin::Made(result),
            None => Begin::Entry(entry(transfer, fd)),
        };
    }
    let Some(mut bounce) = pool.take() else {
        return Begin::Starved;
    };
    let count = transfer.bounce_length(&bounce) as u32;
    let entry = match transfer.direction {
        Direction::Read => opcode::Read::new(fd, bounce.as_mut_ptr(), count)
            .offset(offset)
            .build(),
        Direction::Write => {
            transfer.fill_bounce(&mut bounce);
            opcode::Write::new(fd, bounce.as_ptr(), count)
                .offset(offset)
                .build()
        }
    };
    transfer.bounce = Some(bounce);
    Begin::Entry(entry)
}

/// What is left of a transfer whose buffers the kernel takes as they are.
fn entry(transfer: &Transfer, fd: types::Fd) -> squeue::Entry {
    let (buffers, offset) = (transfer.buffers(), transfer.offset());
    // The kernel need not fetch and keep a list of one.
    if let &[buffer] = buffers {
        let count = buffer.iov_len.min(MOST_BYTES) as u32;
        let start = buffer.iov_base.cast::<u8>();
        return match transfer.direction {
            Direction::Read => opcode::Read::new(fd, start, count).offset(offset).build(),
            Direction::Write => opcode::Write::new(fd, start, count).offset(offset).build(),
        };
    }
    let (start, count) = (buffers.as_ptr(), buffers.len() as u32);
    match transfer.direction {
        Direction::Read => opcode::Readv::new(fd, start, count).offset(offset).build(),
        Direction::Write => opcode::Writev::new(fd, start, count).offset(offset).build(),
    }
}

fn complete_transfer(transfer: &mut Transfer, result: i32, bounced: bool, direct: bool) -> Outcome {
    match result {
        // The filesystem wants more alignment than it said.
        error if -error == libc::EINVAL && direct && !bounced => {
            transfer.refused = true;
            Outcome::Again
        }
        error if error < 0 => Outcome::Done(Err(IoError::from_errno(-error))),
        0 => Outcome::Done(Err(match transfer.direction {
            Direction::Read => IoError::EndOfFile,
            Direction::Write => IoError::Host(libc::EIO),
        })),
        count => {
            transfer.advance(u64::from(count.unsigned_abs()));
            if transfer.left() == 0 {
                Outcome::Done(Ok(()))
            } else {
                Outcome::Again
            }
        }
    }
}
