//! The table of contents of a disc with one data track (MMC-5, 6.25; READ TOC/PMA/ATIP).

use super::sense::Sense;

/// Data track, copying permitted or not; position in the sub-channel.
const DATA_TRACK: u8 = 0x14;
const LEAD_OUT: u8 = 0xaa;
/// Frames before block 0.
const PREGAP: u64 = 150;
const FRAMES: u64 = 75;

/// The answer to `format`, not yet cut to the driver's length. `msf` wants minutes, seconds and
/// frames; `first` is the track or session to begin with.
pub(super) fn read(format: u8, msf: bool, first: u8, blocks: u64) -> Result<Vec<u8>, Sense> {
    match format {
        0 => tracks(msf, first, blocks),
        1 => Ok(session(msf)),
        2 => raw(first, blocks),
        _ => Err(Sense::BAD_FIELD),
    }
}

fn tracks(msf: bool, first: u8, blocks: u64) -> Result<Vec<u8>, Sense> {
    if first > 1 && first != LEAD_OUT {
        return Err(Sense::BAD_FIELD);
    }
    let mut bytes = vec![0, 0, 1, 1];
    if first <= 1 {
        bytes.extend([0, DATA_TRACK, 1, 0]);
        bytes.extend(address(msf, 0));
    }
    bytes.extend([0, DATA_TRACK, LEAD_OUT, 0]);
    bytes.extend(address(msf, blocks));
    Ok(with_length(bytes))
}

fn session(msf: bool) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 1, 0, DATA_TRACK, 1, 0];
    bytes.extend(address(msf, 0));
    with_length(bytes)
}

fn raw(first: u8, blocks: u64) -> Result<Vec<u8>, Sense> {
    if first > 1 {
        return Err(Sense::BAD_FIELD);
    }
    let mut bytes = vec![0, 0, 1, 1];
    // First track, last track, lead-out, and the track itself; always in minutes.
    for (point, place) in [
        (0xa0, [1, 0, 0]),
        (0xa1, [1, 0, 0]),
        (0xa2, minutes(blocks)),
        (0x01, minutes(0)),
    ] {
        bytes.extend([1, DATA_TRACK, 0, point, 0, 0, 0, 0]);
        bytes.extend(place);
    }
    Ok(with_length(bytes))
}

fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    // A few entries.
    let length = (bytes.len() - 2) as u16;
    bytes[..2].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn address(msf: bool, block: u64) -> [u8; 4] {
    if msf {
        let [minute, second, frame] = minutes(block);
        [0, minute, second, frame]
    } else {
        // Block numbers have 32 bits.
        (block as u32).to_be_bytes()
    }
}

/// Beyond what can be said, as on a DVD, the last that can.
fn minutes(block: u64) -> [u8; 3] {
    let frames = block + PREGAP;
    let (seconds, frame) = (frames / FRAMES, frames % FRAMES);
    match u8::try_from(seconds / 60) {
        Ok(minute) => [minute, (seconds % 60) as u8, frame as u8],
        Err(_) => [0xff, 59, 74],
    }
}
