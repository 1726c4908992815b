//! Which command is which (NVM Express 1.4, 6), and whether its parameters can be.

use std::sync::atomic::Ordering;

use crate::nvme::command::{Command, Status};
use crate::nvme::shared::Shared;
use crate::nvme::{ALL_NAMESPACES, MOST_BYTES, NAMESPACE};

mod opcode {
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// Bits of command doubleword 12 of reads, writes and zeroing.
const FORCE_ACCESS: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
/// Bit of command doubleword 11 of a dataset management command.
const ATTRIBUTE_DEALLOCATE: u32 = 1 << 2;

/// A run of bytes of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub offset: u64,
    pub length: u64,
}

/// A command worth carrying out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Read(Run),
    Write {
        run: Run,
        /// Durable when it is done.
        through: bool,
    },
    Flush,
    Zero {
        run: Run,
        unmap: bool,
        through: bool,
    },
    /// So many ranges, in the command's data.
    Discard(u32),
    /// There is nothing to do but to say so.
    Nothing,
}

/// Whether a command makes durable what others have written, and does nothing else.
pub(super) fn is_flush(command: &Command) -> bool {
    command.opcode == opcode::FLUSH
}

/// Reads a command.
///
/// # Errors
/// Why it fails.
pub(super) fn decode(command: &Command, shared: &Shared) -> Result<Request, Status> {
    command.check()?;
    check_namespace(command)?;
    let writable = || match shared.options.read_only {
        true => Err(Status::WRITE_PROTECTED),
        false => Ok(()),
    };
    let asked = command.word(12) & FORCE_ACCESS != 0;
    let through = asked || !shared.write_cache.load(Ordering::SeqCst);
    match command.opcode {
        opcode::FLUSH => Ok(Request::Flush),
        opcode::READ => Ok(Request::Read(transfer(command, shared)?)),
        opcode::WRITE => {
            writable()?;
            let run = transfer(command, shared)?;
            Ok(Request::Write { run, through })
        }
        opcode::WRITE_ZEROES => {
            writable()?;
            Ok(Request::Zero {
                run: blocks(command, shared)?,
                unmap: command.word(12) & DEALLOCATE != 0,
                through,
            })
        }
        opcode::DATASET_MANAGEMENT => {
            writable()?;
            let deallocate = command.word(11) & ATTRIBUTE_DEALLOCATE != 0;
            if !deallocate || !shared.image.discard() {
                return Ok(Request::Nothing);
            }
            Ok(Request::Discard((command.word(10) & 0xff) + 1))
        }
        _ => Err(Status::INVALID_OPCODE),
    }
}

fn check_namespace(command: &Command) -> Result<(), Status> {
    let all = command.namespace == ALL_NAMESPACES && command.opcode == opcode::FLUSH;
    if command.namespace == NAMESPACE || all {
        Ok(())
    } else {
        Err(Status::INVALID_NAMESPACE)
    }
}

/// The blocks of a command that moves data.
fn transfer(command: &Command, shared: &Shared) -> Result<Run, Status> {
    let count = u64::from(command.word(12) & 0xffff) + 1;
    if count * shared.block() > MOST_BYTES {
        return Err(Status::INVALID_FIELD);
    }
    blocks(command, shared)
}

fn blocks(command: &Command, shared: &Shared) -> Result<Run, Status> {
    let first = u64::from(command.word(10)) | u64::from(command.word(11)) << 32;
    range(shared, first, u64::from(command.word(12) & 0xffff) + 1)
}

/// Blocks as bytes, if the disk has them.
pub(super) fn range(shared: &Shared, first: u64, count: u64) -> Result<Run, Status> {
    let end = first.checked_add(count);
    if end.is_none_or(|end| end > shared.blocks()) {
        return Err(Status::LBA_OUT_OF_RANGE);
    }
    // The disk has fewer than 2^63 bytes.
    Ok(Run {
        offset: first * shared.block(),
        length: count * shared.block(),
    })
}
