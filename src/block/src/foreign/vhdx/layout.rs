//! Headers, regions and metadata of a VHDX.

use uuid::uuid;

use super::super::error::shown;
use super::super::source::Source;
use super::super::source::little::{u16_at, u32_at, u64_at};
use super::super::{ImageError, check_size};
use crate::format::Format;

/// A GUID as it lies in the file.
type Guid = [u8; 16];

const BAT: Guid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08").to_bytes_le();
const METADATA: Guid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e").to_bytes_le();
const FILE_PARAMETERS: Guid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b").to_bytes_le();
const DISK_SIZE: Guid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8").to_bytes_le();
const LOGICAL_SECTOR: Guid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f").to_bytes_le();
const PHYSICAL_SECTOR: Guid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556").to_bytes_le();
const DISK_ID: Guid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746").to_bytes_le();
const PARENT: Guid = uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").to_bytes_le();

/// Places of the two headers and of the two tables of regions.
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const HEADER: usize = 4096;
const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
const REGION_TABLE: usize = 64 << 10;

/// Most entries of the tables of regions and of metadata.
const MOST_ENTRIES: u32 = 2047;

/// What the current header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    sequence: u64,
    /// Zero unless the file was not closed.
    pub(super) log_id: Guid,
    pub(super) log: Region,
}

/// A part of the file in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) at: u64,
    pub(super) length: u64,
}

/// What the disk is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Bytes of the disk.
    pub(super) size: u64,
    /// Bytes of a block.
    pub(super) block: u64,
    /// Bytes of a logical sector.
    pub(super) sector: u64,
    /// Whether unused blocks stay in the file.
    pub(super) fixed: bool,
}

/// Whether the CRC-32C of `bytes`, which lies at `at` in them, is right.
pub(super) fn is_whole(bytes: &[u8], at: usize) -> bool {
    let crc = crc32c::crc32c(&bytes[..at]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &bytes[at + 4..]) == u32_at(bytes, at)
}

/// The header with the higher sequence number of those that are whole.
pub(super) fn header(source: &Source) -> Result<Header, ImageError> {
    let mut newest: Option<Header> = None;
    for at in HEADERS {
        let bytes: [u8; HEADER] = source.array(at)?;
        if !bytes.starts_with(b"head") || !is_whole(&bytes, 4) {
            continue;
        }
        let version = (u16_at(&bytes, 64), u16_at(&bytes, 66));
        if version != (0, 1) {
            let problem = format!(
                "of version {}.{}, which is not known here",
                version.1, version.0
            );
            let remedy = "convert it with `Convert-VHD` in Windows";
            return Err(ImageError::refused(Format::Vhdx, problem, remedy));
        }
        let header = Header {
            sequence: u64_at(&bytes, 8),
            log_id: guid_at(&bytes, 48),
            log: Region {
                at: u64_at(&bytes, 72),
                length: u64::from(u32_at(&bytes, 68)),
            },
        };
        if newest.is_none_or(|newest| header.sequence > newest.sequence) {
            newest = Some(header);
        }
    }
    newest.ok_or_else(|| source.damaged("both headers are damaged"))
}

/// Where block table and metadata are.
pub(super) fn regions(source: &Source) -> Result<(Region, Region), ImageError> {
    let mut bytes = vec![0; REGION_TABLE];
    for at in REGIONS {
        source.read(at, &mut bytes)?;
        if !bytes.starts_with(b"regi") || !is_whole(&bytes, 4) {
            continue;
        }
        let (mut bat, mut metadata) = (None, None);
        for entry in entries(source, &bytes[16..], u32_at(&bytes, 8))? {
            let region = Region {
                at: u64_at(entry, 16),
                length: u64::from(u32_at(entry, 24)),
            };
            match guid_at(entry, 0) {
                BAT => bat = Some(region),
                METADATA => metadata = Some(region),
                _ if u32_at(entry, 28) & 1 != 0 => return Err(unknown(&entry[..16])),
                _ => {}
            }
        }
        let missing = || source.damaged("a region is missing");
        return Ok((bat.ok_or_else(missing)?, metadata.ok_or_else(missing)?));
    }
    Err(source.damaged("both tables of its regions are damaged"))
}

/// What the metadata say of the disk. Refuses one that needs others.
pub(super) fn geometry(source: &Source, region: Region) -> Result<Geometry, ImageError> {
    let mut bytes = vec![0; REGION_TABLE];
    source.read(region.at, &mut bytes)?;
    if !bytes.starts_with(b"metadata") {
        return Err(source.damaged("its metadata are missing"));
    }
    let (mut parameters, mut size, mut sector) = (None, None, None);
    let mut parent = None;
    for entry in entries(source, &bytes[32..], u32::from(u16_at(&bytes, 10)))? {
        let (offset, length) = (u64::from(u32_at(entry, 16)), u64::from(u32_at(entry, 20)));
        if offset.saturating_add(length) > region.length {
            return Err(source.damaged("something of its metadata is outside of them"));
        }
        let at = region.at.saturating_add(offset);
        match guid_at(entry, 0) {
            FILE_PARAMETERS => parameters = Some(u64::from_le_bytes(source.array(at)?)),
            DISK_SIZE => size = Some(u64::from_le_bytes(source.array(at)?)),
            LOGICAL_SECTOR => sector = Some(u32::from_le_bytes(source.array(at)?)),
            PARENT => parent = Some((at, length)),
            PHYSICAL_SECTOR | DISK_ID => {}
            _ if u32_at(entry, 24) & 4 != 0 => return Err(unknown(&entry[..16])),
            _ => {}
        }
    }
    let missing = || source.damaged("something of its metadata is missing");
    let parameters = parameters.ok_or_else(missing)?;
    let (block, flags) = (parameters & 0xffff_ffff, parameters >> 32);
    if flags & 2 != 0 {
        return Err(refuse_differencing(source, parent));
    }
    let geometry = Geometry {
        size: size.ok_or_else(missing)?,
        block,
        sector: u64::from(sector.ok_or_else(missing)?),
        fixed: flags & 1 != 0,
    };
    check(source, geometry)?;
    Ok(geometry)
}

fn check(source: &Source, geometry: Geometry) -> Result<(), ImageError> {
    let Geometry { block, sector, .. } = geometry;
    if !block.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block) {
        return Err(source.damaged(format!("it says that blocks have {block} bytes")));
    }
    if !matches!(sector, 512 | 4096) {
        return Err(source.damaged(format!("it says that sectors have {sector} bytes")));
    }
    check_size(Format::Vhdx, geometry.size)
}

/// Entries of 32 bytes.
fn entries<'a>(
    source: &Source,
    bytes: &'a [u8],
    count: u32,
) -> Result<impl Iterator<Item = &'a [u8]>, ImageError> {
    if count > MOST_ENTRIES {
        return Err(source.damaged(format!("a table has {count} entries")));
    }
    Ok(bytes.chunks_exact(32).take(count as usize))
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().unwrap_or_default()
}

fn unknown(guid: &[u8]) -> ImageError {
    let guid: String = guid.iter().map(|byte| format!("{byte:02x}")).collect();
    ImageError::refused(
        Format::Vhdx,
        format!("with something in it that is needed and not known here ({guid})"),
        "convert it with `Convert-VHD` in Windows",
    )
}

fn refuse_differencing(source: &Source, parent: Option<(u64, u64)>) -> ImageError {
    let remedy = "merge both where they are: `Merge-VHD` in Windows, or `Convert-VHD`";
    let named = parent.and_then(|(at, length)| {
        let mut bytes = vec![0; length.min(64 << 10) as usize];
        source.read(at, &mut bytes).ok()?;
        parent_path(&bytes)
    });
    let parent = named.map_or_else(
        || "its parent".to_owned(),
        |name| format!("its parent \"{name}\""),
    );
    ImageError::refused(
        Format::Vhdx,
        format!("that has only the changes to {parent}"),
        remedy,
    )
}

/// A path in a parent locator: keys and values in UTF-16.
fn parent_path(bytes: &[u8]) -> Option<String> {
    let text = |at: usize, length: usize| -> Option<String> {
        let (units, _) = bytes.get(at..at.checked_add(length)?)?.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        Some(String::from_utf16_lossy(&units))
    };
    let count = usize::from(u16_at(bytes, 18));
    let locators = bytes.get(20..)?.chunks_exact(12).take(count);
    for locator in locators {
        let key = text(u32_at(locator, 0) as usize, u16_at(locator, 8).into())?;
        if matches!(key.as_str(), "relative_path" | "absolute_win32_path") {
            let value = text(u32_at(locator, 4) as usize, u16_at(locator, 10).into())?;
            return Some(shown(value.as_bytes()));
        }
    }
    None
}
