//! Packets: which command is which (MMC-5, 6; SPC-4, 6; SFF-8020i for ATAPI's own ways).

use std::sync::Arc;

use lodge_block::raw::RawDisk;

use super::drive::{BLOCK, DriveState, MediaEvent, blocks};
use super::sense::Sense;
use super::{pages, toc};

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const INQUIRY: u8 = 0x12;
const MODE_SENSE_6: u8 = 0x1a;
const START_STOP_UNIT: u8 = 0x1b;
const PREVENT_ALLOW: u8 = 0x1e;
const READ_CAPACITY: u8 = 0x25;
const READ_10: u8 = 0x28;
const SEEK_10: u8 = 0x2b;
const SYNCHRONIZE_CACHE: u8 = 0x35;
const READ_TOC: u8 = 0x43;
const GET_CONFIGURATION: u8 = 0x46;
const GET_EVENT_STATUS: u8 = 0x4a;
const READ_DISC_INFORMATION: u8 = 0x51;
const READ_TRACK_INFORMATION: u8 = 0x52;
const MODE_SENSE_10: u8 = 0x5a;
const READ_12: u8 = 0xa8;
const SET_CD_SPEED: u8 = 0xbb;
const MECHANISM_STATUS: u8 = 0xbd;

/// Class of events about the medium (MMC-5, 6.6).
const MEDIA_CLASS: u8 = 4;

/// The answer to a packet.
#[derive(Debug)]
pub(super) enum Reply {
    Nothing,
    Bytes(Vec<u8>),
    Read {
        disc: Arc<RawDisk>,
        offset: u64,
        length: u64,
    },
}

/// Carries out a packet, and remembers why it failed if it does.
pub(super) fn execute(drive: &mut DriveState, packet: &[u8; 16]) -> Result<Reply, Sense> {
    if packet[0] == REQUEST_SENSE {
        return Ok(request_sense(drive, packet));
    }
    drive.set_sense(Sense::NONE);
    let attention = match packet[0] {
        // These tell nobody of a change, and tell nobody's change away (SPC-4, 5.14; MMC-5, 4.1.6).
        INQUIRY | GET_CONFIGURATION | GET_EVENT_STATUS => None,
        _ => drive.take_attention(),
    };
    let result = match attention {
        Some(sense) => Err(sense),
        None => dispatch(drive, packet),
    };
    if let Err(sense) = result {
        drive.set_sense(sense);
    }
    result
}

fn dispatch(drive: &mut DriveState, packet: &[u8; 16]) -> Result<Reply, Sense> {
    match packet[0] {
        TEST_UNIT_READY => drive.ready().map(|_| Reply::Nothing),
        INQUIRY => inquiry(packet),
        MODE_SENSE_6 => mode_sense(drive, packet, false),
        MODE_SENSE_10 => mode_sense(drive, packet, true),
        START_STOP_UNIT => start_stop(drive, packet),
        PREVENT_ALLOW => {
            drive.lock(packet[4] & 1 != 0);
            Ok(Reply::Nothing)
        }
        READ_CAPACITY => read_capacity(drive),
        READ_10 => read(drive, u32_at(packet, 2), u16_at(packet, 7).into()),
        READ_12 => read(drive, u32_at(packet, 2), u32_at(packet, 6)),
        SEEK_10 => {
            let last = blocks(drive.ready()?);
            let inside = u64::from(u32_at(packet, 2)) < last;
            inside.then_some(Reply::Nothing).ok_or(Sense::OUT_OF_RANGE)
        }
        SYNCHRONIZE_CACHE | SET_CD_SPEED => Ok(Reply::Nothing),
        READ_TOC => read_toc(drive, packet),
        GET_CONFIGURATION => {
            let known = drive.disc().filter(|_| drive.loaded());
            let known = known.map(|disc| blocks(disc));
            let bytes = pages::configuration(packet[1] & 3, u16_at(packet, 2), known)?;
            Ok(cut(bytes, u16_at(packet, 7).into()))
        }
        GET_EVENT_STATUS => event_status(drive, packet),
        READ_DISC_INFORMATION => disc_information(drive, packet),
        READ_TRACK_INFORMATION => track_information(drive, packet),
        MECHANISM_STATUS => {
            let mut bytes = vec![0; 8];
            bytes[1] = u8::from(drive.flags().open) << 4;
            bytes[5] = 1;
            Ok(cut(bytes, u16_at(packet, 8).into()))
        }
        _ => Err(Sense::UNKNOWN_COMMAND),
    }
}

/// No more than the driver has room for.
fn cut(mut bytes: Vec<u8>, allocated: usize) -> Reply {
    bytes.truncate(allocated);
    if bytes.is_empty() {
        Reply::Nothing
    } else {
        Reply::Bytes(bytes)
    }
}

fn u16_at(packet: &[u8; 16], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

fn u32_at(packet: &[u8; 16], at: usize) -> u32 {
    u32::from(u16_at(packet, at)) << 16 | u32::from(u16_at(packet, at + 2))
}

fn request_sense(drive: &mut DriveState, packet: &[u8; 16]) -> Reply {
    let mut sense = drive.flags().sense;
    if sense == Sense::NONE {
        sense = drive.take_attention().unwrap_or(Sense::NONE);
    }
    drive.set_sense(Sense::NONE);
    cut(sense.bytes().to_vec(), packet[4].into())
}

fn inquiry(packet: &[u8; 16]) -> Result<Reply, Sense> {
    // There are no vital product data.
    if packet[1] & 1 != 0 || packet[2] != 0 {
        return Err(Sense::BAD_FIELD);
    }
    Ok(cut(pages::inquiry(), u16_at(packet, 3).into()))
}

fn mode_sense(drive: &DriveState, packet: &[u8; 16], long: bool) -> Result<Reply, Sense> {
    let pages = pages::mode_pages(packet[2], drive.flags().locked)?;
    // The header, without block descriptors; the pages are a few dozen bytes.
    let (mut bytes, allocated) = if long {
        let length = (pages.len() + 6) as u16;
        let [high, low] = length.to_be_bytes();
        (vec![high, low, 0, 0, 0, 0, 0, 0], u16_at(packet, 7).into())
    } else {
        (vec![(pages.len() + 3) as u8, 0, 0, 0], packet[4].into())
    };
    bytes.extend(pages);
    Ok(cut(bytes, allocated))
}

fn start_stop(drive: &mut DriveState, packet: &[u8; 16]) -> Result<Reply, Sense> {
    // Power conditions change nothing.
    let (power, load_eject, start) = (packet[4] >> 4, packet[4] & 2 != 0, packet[4] & 1 != 0);
    if power == 0 && load_eject {
        drive.move_tray(!start)?;
    }
    Ok(Reply::Nothing)
}

fn read_capacity(drive: &mut DriveState) -> Result<Reply, Sense> {
    let last = blocks(drive.ready()?) - 1;
    let mut bytes = (last as u32).to_be_bytes().to_vec();
    bytes.extend((BLOCK as u32).to_be_bytes());
    Ok(Reply::Bytes(bytes))
}

fn read(drive: &mut DriveState, first: u32, count: u32) -> Result<Reply, Sense> {
    let disc = drive.ready()?;
    let (first, count) = (u64::from(first), u64::from(count));
    if first + count > blocks(disc) {
        return Err(Sense::OUT_OF_RANGE);
    }
    if count == 0 {
        return Ok(Reply::Nothing);
    }
    Ok(Reply::Read {
        disc: Arc::clone(disc),
        offset: first * BLOCK,
        length: count * BLOCK,
    })
}

fn read_toc(drive: &mut DriveState, packet: &[u8; 16]) -> Result<Reply, Sense> {
    let blocks = blocks(drive.ready()?);
    // Before it had a place of its own, the format was in the last byte's upper bits (SFF-8020i).
    let format = match packet[2] & 0xf {
        0 => packet[9] >> 6,
        format => format,
    };
    let bytes = toc::read(format, packet[1] & 2 != 0, packet[6], blocks)?;
    Ok(cut(bytes, u16_at(packet, 7).into()))
}

fn event_status(drive: &mut DriveState, packet: &[u8; 16]) -> Result<Reply, Sense> {
    // Only if polled: nothing here waits for events.
    if packet[1] & 1 == 0 {
        return Err(Sense::BAD_FIELD);
    }
    let supported = 1 << MEDIA_CLASS;
    let allocated = u16_at(packet, 7).into();
    if packet[4] & supported == 0 {
        // No such class.
        return Ok(cut(vec![0, 2, 0x80, supported], allocated));
    }
    let present = u8::from(drive.loaded()) << 1;
    let status = present | u8::from(drive.flags().open);
    let mut event = drive.flags().event;
    // One that gets no room is not told.
    if allocated > 4 {
        event = drive.take_event();
    }
    let code = match event {
        MediaEvent::None => 0,
        MediaEvent::EjectRequest => 1,
        MediaEvent::NewMedia => 2,
        MediaEvent::Removal => 3,
    };
    let bytes = vec![0, 6, MEDIA_CLASS, supported, code, status, 0, 0];
    Ok(cut(bytes, allocated))
}

fn disc_information(drive: &mut DriveState, packet: &[u8; 16]) -> Result<Reply, Sense> {
    drive.ready()?;
    if packet[1] & 7 != 0 {
        return Err(Sense::BAD_FIELD);
    }
    let mut bytes = vec![0; 34];
    bytes[1] = 32;
    // Disc and last session are complete; one session, one track.
    bytes[2] = 0x0e;
    bytes[3] = 1;
    bytes[4] = 1;
    bytes[5] = 1;
    bytes[6] = 1;
    // For any use.
    bytes[7] = 0x20;
    // No lead-in to write at, no lead-out to begin.
    bytes[16..24].fill(0xff);
    Ok(cut(bytes, u16_at(packet, 7).into()))
}

fn track_information(drive: &mut DriveState, packet: &[u8; 16]) -> Result<Reply, Sense> {
    let size = blocks(drive.ready()?);
    let number = u32_at(packet, 2);
    let exists = match packet[1] & 3 {
        // By a block in it, by its number, by its session.
        0 => u64::from(number) < size,
        1 | 2 => number == 1,
        _ => false,
    };
    if !exists {
        return Err(Sense::BAD_FIELD);
    }
    let mut bytes = vec![0; 36];
    bytes[1] = 34;
    bytes[2] = 1;
    bytes[3] = 1;
    // A data track of mode 1.
    bytes[5] = 4;
    bytes[6] = 1;
    // Block numbers have 32 bits.
    bytes[24..28].copy_from_slice(&(size as u32).to_be_bytes());
    Ok(cut(bytes, u16_at(packet, 7).into()))
}
