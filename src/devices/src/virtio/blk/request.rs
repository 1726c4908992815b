//! Block requests as drivers write them (virtio 1.2, 5.2.6).
//!
//! Everything is copied out of guest memory once and checked; only addresses of
//! data buffers, which the kernel reads and writes, remain.

use lodge_block::SECTOR;
use lodge_block::raw::RawDisk;
use virtio_bindings::virtio_blk as abi;
use vm_memory::GuestAddress;

use super::config::MAX_RANGE_SECTORS;
use crate::GuestMemory;
use crate::virtio::Buffers;
use crate::virtio::chain::{Chain, ChainError};

/// Request header, little endian.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Header {
    kind: u32,
    reserved: u32,
    sector: u64,
}

/// A range to discard or to zero, little endian.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Range {
    sector: u64,
    sectors: u32,
    flags: u32,
}

mod layout {
    #![allow(unsafe_code)]

    use vm_memory::ByteValued;

    // SAFETY: `repr(C)`, integers only, no padding.
    unsafe impl ByteValued for super::Header {}
    // SAFETY: `repr(C)`, integers only, no padding.
    unsafe impl ByteValued for super::Range {}
}

/// What a driver may ask of this device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The disk behind it.
    pub disk: &'a RawDisk,
    /// Writes are refused.
    pub read_only: bool,
    /// The driver accepted `VIRTIO_BLK_F_DISCARD`.
    pub discard: bool,
    /// The driver accepted `VIRTIO_BLK_F_WRITE_ZEROES`.
    pub write_zeroes: bool,
}

/// A request worth carrying out. Offsets and lengths are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Read {
        offset: u64,
    },
    Write {
        offset: u64,
    },
    Flush,
    Identity,
    Discard {
        offset: u64,
        length: u64,
    },
    WriteZeroes {
        offset: u64,
        length: u64,
        unmap: bool,
    },
}

/// How a request ends, `VIRTIO_BLK_S_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = abi::VIRTIO_BLK_S_OK as u8,
    IoError = abi::VIRTIO_BLK_S_IOERR as u8,
    Unsupported = abi::VIRTIO_BLK_S_UNSUPP as u8,
}

/// Splits the header and the status byte off `chain`, so that only data is
/// left, and returns where the status goes and what to do.
///
/// # Errors
/// The chain has no complete header or no status byte: the device needs a reset.
pub(super) fn parse(
    chain: &mut Chain,
    memory: &GuestMemory,
    rules: Rules<'_>,
) -> Result<(GuestAddress, Result<Request, Status>), ChainError> {
    let status = last_byte(&chain.writable).ok_or(ChainError::Short {
        needed: 1,
        present: 0,
    })?;
    let header: Header = chain.readable.read_obj(memory, 0)?;
    chain.readable.advance(size_of::<Header>() as u64)?;
    chain.writable.truncate(chain.writable.len() - 1)?;
    Ok((status, request(header, chain, memory, rules)))
}

/// Address of the last byte.
fn last_byte(buffers: &Buffers) -> Option<GuestAddress> {
    let last = buffers.segments().last()?;
    // Segments are not empty and lie inside guest memory.
    Some(GuestAddress(last.address.0 + u64::from(last.length) - 1))
}

fn request(
    header: Header,
    chain: &Chain,
    memory: &GuestMemory,
    rules: Rules<'_>,
) -> Result<Request, Status> {
    let sector = u64::from_le(header.sector);
    let data_in = &chain.writable;
    let data_out = &chain.readable;
    match u32::from_le(header.kind) {
        abi::VIRTIO_BLK_T_IN => {
            let (offset, _) = range(sector, data_in.len(), rules)?;
            expect_empty(data_out)?;
            Ok(Request::Read { offset })
        }
        abi::VIRTIO_BLK_T_OUT => {
            let (offset, _) = range(sector, data_out.len(), rules)?;
            expect_empty(data_in)?;
            refuse_if(rules.read_only)?;
            Ok(Request::Write { offset })
        }
        abi::VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        abi::VIRTIO_BLK_T_GET_ID => {
            refuse_if(data_in.is_empty())?;
            Ok(Request::Identity)
        }
        abi::VIRTIO_BLK_T_DISCARD if rules.discard => {
            let (offset, length, flags) = described_range(data_out, memory, rules)?;
            // The unmap flag has no meaning here (virtio 1.2, 5.2.6.2).
            if flags != 0 {
                return Err(Status::Unsupported);
            }
            Ok(Request::Discard { offset, length })
        }
        abi::VIRTIO_BLK_T_WRITE_ZEROES if rules.write_zeroes => {
            let (offset, length, flags) = described_range(data_out, memory, rules)?;
            if flags & !abi::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
                return Err(Status::Unsupported);
            }
            let unmap = flags != 0;
            Ok(Request::WriteZeroes {
                offset,
                length,
                unmap,
            })
        }
        _ => Err(Status::Unsupported),
    }
}

fn described_range(
    data: &Buffers,
    memory: &GuestMemory,
    rules: Rules<'_>,
) -> Result<(u64, u64, u32), Status> {
    // Exactly one range, as the configuration space says.
    refuse_if(data.len() != size_of::<Range>() as u64)?;
    refuse_if(rules.read_only)?;
    let range_given: Range = data.read_obj(memory, 0).map_err(|_| Status::IoError)?;
    let sectors = u32::from_le(range_given.sectors);
    refuse_if(sectors > MAX_RANGE_SECTORS)?;
    let (offset, length) = range(
        u64::from_le(range_given.sector),
        u64::from(sectors) * SECTOR,
        rules,
    )?;
    Ok((offset, length, u32::from_le(range_given.flags)))
}

/// Checks that `length` bytes at `sector` are whole blocks of the disk.
fn range(sector: u64, length: u64, rules: Rules<'_>) -> Result<(u64, u64), Status> {
    let block = u64::from(rules.disk.logical_block());
    let offset = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
    let end = offset.checked_add(length).ok_or(Status::IoError)?;
    let blocks = offset.is_multiple_of(block) && length.is_multiple_of(block);
    refuse_if(length == 0 || !blocks || end > rules.disk.size())?;
    Ok((offset, length))
}

fn expect_empty(buffers: &Buffers) -> Result<(), Status> {
    refuse_if(!buffers.is_empty())
}

fn refuse_if(bad: bool) -> Result<(), Status> {
    if bad { Err(Status::IoError) } else { Ok(()) }
}
