//! What a drive tells of its abilities: INQUIRY, mode pages (MMC-5, 7) and features (MMC-5, 5).

use super::sense::Sense;

/// Blocks of the longest CD, 80 minutes. Anything larger is a DVD.
const MOST_CD_BLOCKS: u64 = 80 * 60 * 75;

const PROFILE_CD: u16 = 0x0008;
const PROFILE_DVD: u16 = 0x0010;

/// What a driver may ask of a mode page.
const CHANGEABLE: u8 = 1;
const SAVED: u8 = 3;

const ERROR_RECOVERY: u8 = 0x01;
const POWER: u8 = 0x1a;
const CAPABILITIES: u8 = 0x2a;
const ALL_PAGES: u8 = 0x3f;

/// Data rate of a fast drive in KB/s, and its buffer in KB.
const SPEED: u16 = 7056;
const BUFFER: u16 = 512;

pub(super) fn inquiry() -> Vec<u8> {
    let mut bytes = vec![0; 36];
    // A CD-ROM, removable, of no SCSI version but with the response format of ATAPI (SFF-8020i, 10.8.1).
    bytes[0] = 0x05;
    bytes[1] = 0x80;
    bytes[3] = 0x21;
    bytes[4] = 31;
    bytes[8..16].copy_from_slice(b"LODGE   ");
    bytes[16..32].copy_from_slice(b"CD-ROM          ");
    bytes[32..36].copy_from_slice(b"1   ");
    bytes
}

/// The pages that MODE SENSE asks for in `page`, without its header.
pub(super) fn mode_pages(page: u8, locked: bool) -> Result<Vec<u8>, Sense> {
    let (control, code) = (page >> 6, page & 0x3f);
    if control == SAVED {
        return Err(Sense::NO_SAVED_PAGES);
    }
    let mut bytes = Vec::new();
    for (number, mut body) in [
        // Read retries.
        (ERROR_RECOVERY, vec![0, 5, 0, 0, 0, 0]),
        (POWER, vec![0; 10]),
        (CAPABILITIES, capabilities(locked)),
    ] {
        if code != number && code != ALL_PAGES {
            continue;
        }
        if control == CHANGEABLE {
            body.fill(0);
        }
        bytes.extend([number, body.len() as u8]);
        bytes.extend(body);
    }
    if bytes.is_empty() {
        return Err(Sense::BAD_FIELD);
    }
    Ok(bytes)
}

fn capabilities(locked: bool) -> Vec<u8> {
    let mut body = vec![0; 18];
    // Reads CD-R, CD-RW and DVD-ROM, both forms of mode 2, and several sessions.
    body[0] = 0x0b;
    body[2] = 0x70;
    // A tray that opens and locks.
    body[4] = 0x29 | u8::from(locked) << 1;
    for (at, value) in [(6, SPEED), (10, BUFFER), (12, SPEED)] {
        body[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
    body
}

/// GET CONFIGURATION: features from `first` on; `select` is 0 for all, 1 for those that are
/// current, 2 for just that one. `blocks` are those of the disc, if there is one.
pub(super) fn configuration(select: u8, first: u16, blocks: Option<u64>) -> Result<Vec<u8>, Sense> {
    let (cd, dvd) = match blocks {
        Some(blocks) => (blocks <= MOST_CD_BLOCKS, blocks > MOST_CD_BLOCKS),
        None => (false, false),
    };
    let profile = match (cd, dvd) {
        (true, _) => PROFILE_CD,
        (_, true) => PROFILE_DVD,
        _ => 0,
    };
    // Number, version, always there, current, data.
    let features: [(u16, u8, bool, bool, Vec<u8>); 7] = [
        (0x0000, 0, true, true, profiles(cd, dvd)),
        // Core: serial ATA.
        (0x0001, 2, true, true, vec![0, 0, 0, 7, 1, 0, 0, 0]),
        // Morphing: it announces operational changes when asked.
        (0x0002, 1, true, true, vec![2, 0, 0, 0]),
        // Removable medium: a tray that loads, opens and locks.
        (0x0003, 0, true, true, vec![0x39, 0, 0, 0]),
        // Random readable: blocks of 2048 bytes.
        (0x0010, 0, false, cd || dvd, vec![0, 0, 8, 0, 0, 1, 0, 0]),
        (0x001e, 2, false, cd, vec![0; 4]),
        (0x001f, 1, false, dvd, vec![0; 4]),
    ];
    let mut bytes = vec![0; 6];
    bytes.extend(profile.to_be_bytes());
    for (number, version, persistent, current, data) in features {
        let wanted = match select {
            0 => number >= first,
            1 => number >= first && current,
            2 => number == first,
            _ => return Err(Sense::BAD_FIELD),
        };
        if wanted {
            let flags = version << 2 | u8::from(persistent) << 1 | u8::from(current);
            bytes.extend(number.to_be_bytes());
            bytes.extend([flags, data.len() as u8]);
            bytes.extend(data);
        }
    }
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

fn profiles(cd: bool, dvd: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    for (profile, current) in [(PROFILE_DVD, dvd), (PROFILE_CD, cd)] {
        bytes.extend(profile.to_be_bytes());
        bytes.extend([u8::from(current), 0]);
    }
    bytes
}
