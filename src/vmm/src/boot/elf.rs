//! ELF kernels (`vmlinux`): segments, and the PVH entry point among the notes.

use std::io::{self, BufRead, Read};

use lodge_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::{Entry, Image, KernelError, foreign};
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
    let read = |offset, buffer: &mut [u8]| image.read_at(offset, buffer).map_err(KernelError::read);
    let mut header = [0; HEADER];
    read(0, &mut header)?;
    let (table_at, table_length) = check_header(&header)?;
    let mut table = vec![0; table_length];
    read(table_at, &mut table)?;
    let segments = segments(&table);
    check_segments(memory, &segments)?;
    let mut notes = Vec::new();
    for segment in &segments {
        match segment.kind {
            PT_LOAD => image
                .copy(memory, segment.offset, segment.address, segment.file_size)
                .map_err(KernelError::read)?,
            PT_NOTE if segment.file_size <= MAX_NOTES => {
                let mut note = vec![0; segment.file_size as usize];
                read(segment.offset, &mut note)?;
                notes.push(note);
            }
            _ => {}
        }
    }
    conclude(&header, &segments, &notes)
}

/// Loads an ELF kernel that comes as a stream, e.g. unpacked on the way; reads no
/// further than its last segment, and nothing that lies beyond `limit`.
///
/// # Errors
/// As [`load`].
pub fn load_stream(
    memory: &GuestMemory,
    stream: &mut dyn BufRead,
    limit: u64,
) -> Result<Loaded, KernelError> {
    let mut head = read_up_to(stream, HEADER)?;
    if head.len() < HEADER || !is_elf(&head) {
        head.extend(read_up_to(stream, foreign::HEAD)?);
        let inside = foreign::describe(&head);
        return Err(KernelError::Foreign(format!(
            "compressed, and inside is {inside}"
        )));
    }
    let header: [u8; HEADER] = head.as_slice().try_into().unwrap_or([0; HEADER]);
    let (table_at, table_length) = check_header(&header)?;
    if table_at != HEADER as u64 {
        return Err(KernelError::Damaged(
            "its program headers lie apart".to_owned(),
        ));
    }
    let mut table = vec![0; table_length];
    stream
        .read_exact(&mut table)
        .map_err(|error| KernelError::unpack(&error))?;
    let segments = segments(&table);
    check_segments(memory, &segments)?;

    let position = (HEADER + table_length) as u64;
    let mut sorter = Sorter::new(memory, &segments, position, limit)?;
    // A segment may begin with the headers themselves.
    sorter.take(0, &[&header[..], &table].concat())?;
    sorter.take_all(stream, position)?;
    conclude(&header, &segments, &sorter.notes)
}

fn read_up_to(stream: &mut dyn BufRead, length: usize) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::new();
    let result = stream.take(length as u64).read_to_end(&mut bytes);
    result.map_err(|error| KernelError::unpack(&error))?;
    Ok(bytes)
}

/// Puts the bytes of a stream where the segments want them.
struct Sorter<'a> {
    memory: &'a GuestMemory,
    segments: &'a [Segment],
    /// Content of the note segments, in their order.
    notes: Vec<Vec<u8>>,
    /// Where in the stream the last segment ends.
    end: u64,
}

impl<'a> Sorter<'a> {
    fn new(
        memory: &'a GuestMemory,
        segments: &'a [Segment],
        position: u64,
        limit: u64,
    ) -> Result<Self, KernelError> {
        let mut end = position;
        let mut notes = Vec::new();
        for segment in segments.iter().filter(|segment| segment.is_wanted()) {
            let after = segment.offset.saturating_add(segment.file_size);
            if after > limit {
                return Err(KernelError::UnpacksTooLarge(limit));
            }
            end = end.max(after);
            if segment.kind == PT_NOTE {
                notes.push(vec![0; segment.file_size as usize]);
            }
        }
        Ok(Self {
            memory,
            segments,
            notes,
            end,
        })
    }

    fn take_all(&mut self, stream: &mut dyn BufRead, mut at: u64) -> Result<(), KernelError> {
        while at < self.end {
            let piece = stream
                .fill_buf()
                .map_err(|error| KernelError::unpack(&error))?;
            if piece.is_empty() {
                return Err(KernelError::unpack(&io::ErrorKind::UnexpectedEof.into()));
            }
            let length = piece.len();
            self.take(at, piece)?;
            stream.consume(length);
            at += length as u64;
        }
        Ok(())
    }

    /// Takes the part of the stream that begins at `at`.
    fn take(&mut self, at: u64, piece: &[u8]) -> Result<(), KernelError> {
        let mut note = 0;
        for segment in self.segments.iter().filter(|segment| segment.is_wanted()) {
            let start = segment.offset.max(at);
            let end = (segment.offset + segment.file_size).min(at + piece.len() as u64);
            let common = (start < end).then(|| &piece[(start - at) as usize..(end - at) as usize]);
            let skip = start - segment.offset;
            if segment.kind == PT_NOTE {
                if let Some(common) = common {
                    let skip = skip as usize;
                    self.notes[note][skip..skip + common.len()].copy_from_slice(common);
                }
                note += 1;
            } else if let Some(common) = common {
                self.memory
                    .write_slice(common, GuestAddress(segment.address + skip))
                    .map_err(|_| KernelError::TooLarge {
                        end: segment.address + skip,
                    })?;
            }
        }
        Ok(())
    }
}

impl Segment {
    fn is_wanted(&self) -> bool {
        match self.kind {
            PT_LOAD => true,
            PT_NOTE => self.file_size <= MAX_NOTES,
            _ => false,
        }
    }
}

fn conclude(
    header: &[u8; HEADER],
    segments: &[Segment],
    notes: &[Vec<u8>],
) -> Result<Loaded, KernelError> {
    let entry = match notes.iter().find_map(|notes| find_pvh_entry(notes)) {
        Some(address) => Entry::Pvh(address),
        None => Entry::Linux64(u64_at(header, 24)),
    };
    let loaded = || segments.iter().filter(|segment| segment.kind == PT_LOAD);
    let inside =
        loaded().any(|segment| entry.address().wrapping_sub(segment.address) < segment.memory_size);
    if !inside {
        return Err(KernelError::Damaged(format!(
            "its entry point {:#x} is in none of its segments",
            entry.address()
        )));
    }
    let end = loaded().map(|segment| segment.address + segment.memory_size);
    Ok(Loaded {
        entry,
        end: end.max().unwrap_or(0),
    })
}

/// Returns where the program headers are, and how long.
fn check_header(header: &[u8; HEADER]) -> Result<(u64, usize), KernelError> {
    let foreign = |what: &str| Err(KernelError::Foreign(what.to_owned()));
    if !is_elf(header) {
        return foreign("no ELF file");
    }
    if header[4] != 2 || header[5] != 1 || u16_at(header, 18) != MACHINE_X86_64 {
        return foreign("an ELF file for another processor than x86-64");
    }
    match u16_at(header, 16) {
        TYPE_EXECUTABLE | TYPE_SHARED => {}
        1 => return foreign("an ELF object file or kernel module, not a kernel"),
        _ => return foreign("an ELF file that is no executable"),
    }
    let (size, count) = (u16_at(header, 54), u16_at(header, 56));
    if usize::from(size) != PROGRAM_HEADER || count == 0 || count > MAX_PROGRAM_HEADERS {
        return Err(KernelError::Damaged(format!(
            "{count} program headers of {size} bytes"
        )));
    }
    Ok((u64_at(header, 32), PROGRAM_HEADER * usize::from(count)))
}

fn segments(table: &[u8]) -> Vec<Segment> {
    let segments = table.chunks_exact(PROGRAM_HEADER).map(|entry| Segment {
        kind: u32_at(entry, 0),
        offset: u64_at(entry, 8),
        address: u64_at(entry, 24),
        file_size: u64_at(entry, 32),
        memory_size: u64_at(entry, 40),
    });
    segments
        .filter(|segment| segment.kind != PT_LOAD || segment.memory_size > 0)
        .collect()
}

/// What is not in the file is zero already: guest memory is fresh.
fn check_segments(memory: &GuestMemory, segments: &[Segment]) -> Result<(), KernelError> {
    let damaged = |what: String| Err(KernelError::Damaged(what));
    for segment in segments {
        if segment.offset.checked_add(segment.file_size).is_none() {
            return damaged("a segment lies beyond every file".to_owned());
        }
        if segment.kind != PT_LOAD {
            continue;
        }
        let end = segment.address.checked_add(segment.memory_size);
        let (Some(end), true) = (end, segment.file_size <= segment.memory_size) else {
            return damaged("a segment is longer than its memory".to_owned());
        };
        if segment.address < ABOVE_1M {
            return damaged(format!("a segment at {:#x}, below 1 MiB", segment.address));
        }
        let fits = usize::try_from(segment.memory_size)
            .is_ok_and(|size| memory.check_range(GuestAddress(segment.address), size));
        if !fits {
            return Err(KernelError::TooLarge { end });
        }
    }
    Ok(())
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

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
