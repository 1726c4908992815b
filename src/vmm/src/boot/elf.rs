//! ELF kernels (`vmlinux`): segments, and the PVH entry point among the notes.

use lodge_devices::GuestMemory;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::{Entry, Image, KernelError};
use crate::layout::ABOVE_1M;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const MACHINE_X86_64: u16 = 62;
const TYPE_EXECUTABLE: u16 = 2;
const TYPE_SHARED: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Linux has five; nobody needs more than this.
const MAX_PROGRAM_HEADERS: u16 = 64;

/// Linux's notes take a few hundred bytes.
const MAX_NOTES: u64 = 64 << 10;

/// `XEN_ELFNOTE_PHYS32_ENTRY` of the PVH boot protocol.
const NOTE_PHYS32_ENTRY: u32 = 18;

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
}

/// A loaded ELF kernel.
#[derive(Debug, Clone, Copy)]
pub struct Loaded {
    /// Where it is entered, and how.
    pub entry: Entry,
    /// First guest-physical address after the kernel.
    pub end: u64,
}

/// Tells whether an image that starts so is an ELF file.
pub fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

/// Loads an ELF kernel to the physical addresses it names.
///
/// # Errors
/// [`KernelError`] with what is wrong; guest memory may then hold a part of it.
pub fn load(memory: &GuestMemory, image: &Image<'_>) -> Result<Loaded, KernelError> {
    let mut header = [0; HEADER];
    read(image, 0, &mut header)?;
    check_header(&header)?;
    let segments = segments(image, &header)?;
    let mut end = 0;
    let mut pvh = None;
    for segment in &segments {
        match segment.kind {
            PT_LOAD => end = end.max(load_segment(memory, image, segment)?),
            PT_NOTE => pvh = pvh.or(pvh_entry(image, segment)?),
            _ => {}
        }
    }
    let entry = match pvh {
        Some(address) => Entry::Pvh(address),
        None => Entry::Linux64(u64_at(&header, 24)),
    };
    let inside = segments.iter().any(|segment| {
        segment.kind == PT_LOAD
            && entry.address().wrapping_sub(segment.address) < segment.memory_size
    });
    if !inside {
        return Err(KernelError::Damaged(format!(
            "its entry point {:#x} is in none of its segments",
            entry.address()
        )));
    }
    Ok(Loaded { entry, end })
}

fn check_header(header: &[u8; HEADER]) -> Result<(), KernelError> {
    let foreign = |what: &str| Err(KernelError::Foreign(what.to_owned()));
    if !is_elf(header) {
        return foreign("no ELF file");
    }
    if header[4] != 2 || header[5] != 1 || u16_at(header, 18) != MACHINE_X86_64 {
        return foreign("an ELF file for another processor than x86-64");
    }
    match u16_at(header, 16) {
        TYPE_EXECUTABLE | TYPE_SHARED => Ok(()),
        1 => foreign("an ELF object file or kernel module, not a kernel"),
        _ => foreign("an ELF file that is no executable"),
    }
}

fn segments(image: &Image<'_>, header: &[u8; HEADER]) -> Result<Vec<Segment>, KernelError> {
    let count = u16_at(header, 56);
    let size = u16_at(header, 54);
    if usize::from(size) != PROGRAM_HEADER || count == 0 || count > MAX_PROGRAM_HEADERS {
        return Err(KernelError::Damaged(format!(
            "{count} program headers of {size} bytes"
        )));
    }
    let mut table = vec![0; PROGRAM_HEADER * usize::from(count)];
    read(image, u64_at(header, 32), &mut table)?;
    let segments = table.chunks_exact(PROGRAM_HEADER).map(|entry| Segment {
        kind: u32_at(entry, 0),
        offset: u64_at(entry, 8),
        address: u64_at(entry, 24),
        file_size: u64_at(entry, 32),
        memory_size: u64_at(entry, 40),
    });
    Ok(segments.collect())
}

/// Returns the first address after the segment.
fn load_segment(
    memory: &GuestMemory,
    image: &Image<'_>,
    segment: &Segment,
) -> Result<u64, KernelError> {
    let &Segment {
        address,
        file_size,
        memory_size,
        ..
    } = segment;
    let end = address.checked_add(memory_size);
    let (Some(end), true) = (end, file_size <= memory_size) else {
        return Err(KernelError::Damaged(
            "a segment is longer than its memory".to_owned(),
        ));
    };
    if memory_size == 0 {
        return Ok(0);
    }
    if address < ABOVE_1M {
        return Err(KernelError::Damaged(format!(
            "a segment at {address:#x}, below 1 MiB"
        )));
    }
    // What is not in the file is zero already: guest memory is fresh.
    let fits = usize::try_from(memory_size)
        .is_ok_and(|size| memory.check_range(GuestAddress(address), size));
    if !fits {
        return Err(KernelError::TooLarge { end });
    }
    image
        .place(memory, segment.offset, address, file_size)
        .map_err(KernelError::read)?;
    Ok(end)
}

fn pvh_entry(image: &Image<'_>, segment: &Segment) -> Result<Option<u64>, KernelError> {
    if segment.file_size > MAX_NOTES {
        return Ok(None);
    }
    let mut notes = vec![0; segment.file_size as usize];
    read(image, segment.offset, &mut notes)?;
    Ok(find_pvh_entry(&notes))
}

fn find_pvh_entry(mut notes: &[u8]) -> Option<u64> {
    let padded = |length: u32| (length as usize).checked_next_multiple_of(4);
    while notes.len() >= 12 {
        let (name_length, length, kind) = (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8));
        let name = notes.get(12..)?.get(..name_length as usize)?;
        let rest = notes.get(12 + padded(name_length)?..)?;
        let description = rest.get(..length as usize)?;
        if kind == NOTE_PHYS32_ENTRY && name == b"Xen\0" {
            return match description.len() {
                4 => Some(u64::from(u32_at(description, 0))),
                8 => Some(u64_at(description, 0)).filter(|&at| at <= u64::from(u32::MAX)),
                _ => None,
            };
        }
        notes = rest.get(padded(length)?..)?;
    }
    None
}

fn read(image: &Image<'_>, offset: u64, buffer: &mut [u8]) -> Result<(), KernelError> {
    image.read_at(offset, buffer).map_err(KernelError::read)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
