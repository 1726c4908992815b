//! Which command is which (ACS-3, 7), and whether its parameters can be.

use super::identify::{MOST_MULTIPLE, MOST_TRIM_BLOCKS};
use super::log::{self, PAGE_BYTES};
use super::{Modes, Shared, identify};
use crate::ahci::ata::{error, status};
use crate::ahci::fis::{Command, TaskFile};

/// Bit 6 of the device register: the address is a logical one.
const LOGICAL: u8 = 1 << 6;
/// Bit 7 of a queued write's device register: past the cache.
const QUEUED_FUA: u8 = 1 << 7;

/// How data moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Dma,
    /// In blocks of so many bytes.
    Pio(u32),
    Queued,
}

/// A run of bytes of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub offset: u64,
    pub length: u64,
}

/// A command worth carrying out.
#[derive(Debug)]
pub(super) enum Request {
    Read(Run, Style),
    Write {
        run: Run,
        style: Style,
        /// Durable when it is done.
        through: bool,
    },
    Flush,
    /// Ranges in so many bytes of data.
    Trim(u64),
    /// One block for the driver.
    Give(Box<[u8; PAGE_BYTES]>, Style),
    /// Nothing to do but to say so.
    Done(TaskFile),
}

/// Whether a command is one that is queued.
pub(super) fn queued(command: &Command) -> bool {
    matches!(command.code, 0x60 | 0x61)
}

/// The registers after a command that went well.
pub(super) fn success(command: &Command) -> TaskFile {
    TaskFile {
        status: status::READY,
        error: 0,
        lba: command.lba,
        device: command.device,
        count: if queued(command) { 0 } else { command.count },
    }
}

/// The registers after one that did not.
pub(super) fn failure(command: &Command, bits: u8) -> TaskFile {
    TaskFile {
        status: status::FAILED,
        error: bits,
        ..success(command)
    }
}

/// How the address and count of a command are to be read.
#[derive(Clone, Copy)]
enum Form {
    Short,
    Long,
    Queued,
}

/// Reads a command in `slot`.
///
/// # Errors
/// Bits of the error register.
pub(super) fn decode(
    command: &Command,
    slot: u32,
    disk: &Shared,
    modes: &mut Modes,
) -> Result<Request, u8> {
    let one = Style::Pio(disk.block() as u32);
    let many = Style::Pio(disk.block() as u32 * u32::from(modes.multiple));
    match command.code {
        0x20 | 0x21 => read(command, disk, Form::Short, one),
        0x24 => read(command, disk, Form::Long, one),
        0xc4 if modes.multiple != 0 => read(command, disk, Form::Short, many),
        0x29 if modes.multiple != 0 => read(command, disk, Form::Long, many),
        0xc8 | 0xc9 => read(command, disk, Form::Short, Style::Dma),
        0x25 => read(command, disk, Form::Long, Style::Dma),
        0x60 => {
            expect(u32::from(command.count >> 3) == slot)?;
            read(command, disk, Form::Queued, Style::Queued)
        }
        0x30 | 0x31 => write(command, disk, modes, Form::Short, one),
        0x34 => write(command, disk, modes, Form::Long, one),
        0xc5 if modes.multiple != 0 => write(command, disk, modes, Form::Short, many),
        0x39 | 0xce if modes.multiple != 0 => write(command, disk, modes, Form::Long, many),
        0xca | 0xcb => write(command, disk, modes, Form::Short, Style::Dma),
        0x35 | 0x3d => write(command, disk, modes, Form::Long, Style::Dma),
        0x61 => {
            expect(u32::from(command.count >> 3) == slot)?;
            write(command, disk, modes, Form::Queued, Style::Queued)
        }
        // VERIFY and SEEK: blocks that exist can be read.
        0x40 | 0x41 => run(command, disk, Form::Short).map(|_| Request::Done(success(command))),
        0x42 => run(command, disk, Form::Long).map(|_| Request::Done(success(command))),
        0x70 => Ok(Request::Done(success(command))),
        0xe7 | 0xea => Ok(Request::Flush),
        0x06 => trim(command, disk),
        0xec => {
            let identity = Box::new(identify::identity(disk, modes));
            Ok(Request::Give(identity, Style::Pio(PAGE_BYTES as u32)))
        }
        0x2f => read_log(command, modes, Style::Pio(PAGE_BYTES as u32)),
        0x47 => read_log(command, modes, Style::Dma),
        0x27 | 0xf8 => Ok(Request::Done(last_block(command, disk))),
        0xc6 => {
            let count = command.count as u8;
            expect(count <= MOST_MULTIPLE && (count == 0 || count.is_power_of_two()))?;
            modes.multiple = count;
            Ok(Request::Done(success(command)))
        }
        0xef => set_features(command, modes),
        // Power: it is always on. RECALIBRATE, INITIALIZE DEVICE PARAMETERS: of old, nothing to do.
        0xe0..=0xe3 | 0xe6 | 0x94..=0x97 | 0x99 | 0x10 | 0x91 => {
            Ok(Request::Done(success(command)))
        }
        0xe5 | 0x98 => Ok(Request::Done(TaskFile {
            // Active or idle.
            count: 0xff,
            ..success(command)
        })),
        0x90 => Ok(Request::Done(TaskFile {
            status: status::READY,
            error: error::PASSED,
            lba: 1,
            device: 0,
            count: 1,
        })),
        _ => Err(error::ABORTED),
    }
}

fn expect(condition: bool) -> Result<(), u8> {
    if condition {
        Ok(())
    } else {
        Err(error::ABORTED)
    }
}

fn read(command: &Command, disk: &Shared, form: Form, style: Style) -> Result<Request, u8> {
    Ok(Request::Read(run(command, disk, form)?, style))
}

fn write(
    command: &Command,
    disk: &Shared,
    modes: &Modes,
    form: Form,
    style: Style,
) -> Result<Request, u8> {
    expect(!disk.options.read_only)?;
    let asked = match command.code {
        0x3d | 0xce => true,
        0x61 => command.device & QUEUED_FUA != 0,
        _ => false,
    };
    Ok(Request::Write {
        run: run(command, disk, form)?,
        style,
        through: asked || !modes.write_cache,
    })
}

/// The bytes a command is about.
fn run(command: &Command, disk: &Shared, form: Form) -> Result<Run, u8> {
    expect(command.device & LOGICAL != 0)?;
    let (block, count) = match form {
        Form::Short => {
            let block = command.lba & 0xff_ffff | u64::from(command.device & 0xf) << 24;
            (block, whole(command.count & 0xff, 0x100))
        }
        Form::Long => (command.lba, whole(command.count, 0x1_0000)),
        Form::Queued => (command.lba, whole(command.features, 0x1_0000)),
    };
    range(disk, block, count).ok_or(error::NO_ADDRESS)
}

/// A count, of which 0 is the most.
fn whole(count: u16, most: u64) -> u64 {
    if count == 0 { most } else { count.into() }
}

/// Blocks as bytes, if the disk has them.
pub(super) fn range(disk: &Shared, block: u64, count: u64) -> Option<Run> {
    let end = block.checked_add(count)?;
    (end <= disk.blocks()).then(|| Run {
        // The disk has fewer than 2^63 bytes.
        offset: block * disk.block(),
        length: count * disk.block(),
    })
}

fn trim(command: &Command, disk: &Shared) -> Result<Request, u8> {
    let trims = command.features & 1 != 0;
    let possible = disk.image.discard() && !disk.options.read_only;
    let blocks = command.count;
    expect(trims && possible && (1..=MOST_TRIM_BLOCKS).contains(&blocks))?;
    Ok(Request::Trim(u64::from(blocks) * PAGE_BYTES as u64))
}

fn read_log(command: &Command, modes: &mut Modes, style: Style) -> Result<Request, u8> {
    // Log address, page number in two parts.
    let [address, low, _, _, high, ..] = command.lba.to_le_bytes();
    expect(command.count == 1 && low == 0 && high == 0)?;
    let page = log::page(address, modes.failure.as_ref()).ok_or(error::ABORTED)?;
    Ok(Request::Give(Box::new(page), style))
}

fn last_block(command: &Command, disk: &Shared) -> TaskFile {
    let last = disk.blocks().saturating_sub(1);
    let mut task = success(command);
    if command.code == 0x27 {
        task.lba = last & 0xffff_ffff_ffff;
    } else {
        let last = last.min(0x0fff_ffff);
        task.lba = last & 0xff_ffff;
        task.device = command.device & 0xf0 | (last >> 24) as u8;
    }
    task
}

fn set_features(command: &Command, modes: &mut Modes) -> Result<Request, u8> {
    match command.features as u8 {
        0x02 => modes.write_cache = true,
        0x82 => modes.write_cache = false,
        // Transfer mode, look-ahead, what becomes of settings at a reset: all the same here.
        0x03 | 0x55 | 0xaa | 0x66 | 0xcc => {}
        _ => return Err(error::ABORTED),
    }
    Ok(Request::Done(success(command)))
}
