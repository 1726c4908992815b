//! What controller and namespace say of themselves (NVM Express 1.4, 5.15).

use lodge_block::raw::Kind;

use super::events::MOST_REQUESTS;
use crate::nvme::command::{Command, Status};
use crate::nvme::registers::VERSION;
use crate::nvme::shared::Shared;
use crate::nvme::{NAMESPACE, PAGE_BYTES, SUBSYSTEM_VENDOR, TRANSFER_EXPONENT, VENDOR};

/// Firmware revision.
pub(super) const FIRMWARE: &[u8; 8] = b"1       ";

const MODEL: &str = "Lodge disk";
const SERIAL_CHARACTERS: usize = 20;
const MODEL_CHARACTERS: usize = 40;

/// Optional admin commands: Doorbell Buffer Config.
const ADMIN_COMMANDS: u16 = 1 << 8;
/// Optional commands: Dataset Management, Write Zeroes.
const COMMANDS: u16 = 1 << 2 | 1 << 3;
/// Optional events: notices of changed namespaces.
const EVENTS: u32 = 1 << 8;
/// There is a volatile write cache, and Flush takes all namespaces at once.
const WRITE_CACHE: u8 = 0x7;
/// Firmware: one slot, which cannot be written.
const FIRMWARE_UPDATES: u8 = 1 << 1 | 1;
/// Log pages can be read from an offset.
const LOG_PAGES: u8 = 1 << 2;

/// Deallocated blocks read as zeroes; Write Zeroes deallocates if asked to.
const DEALLOCATED_ZEROES: u8 = 1;
const ZEROES_DEALLOCATE: u8 = 1 << 3;
/// The preferred granularities are given.
const GRANULARITIES: u8 = 1 << 4;
const PROTECTED: u8 = 1 << 0;

/// Kind and length of the identifier in the descriptor list: a UUID.
const UUID: u8 = 3;
const UUID_BYTES: u8 = 16;

/// A page of data being made.
type Page = Box<[u8; PAGE_BYTES]>;

/// The page a command asks for.
pub(super) fn page(command: &Command, shared: &Shared) -> Result<Page, Status> {
    let mut page = Box::new([0; PAGE_BYTES]);
    let known = || match command.namespace {
        NAMESPACE => Ok(()),
        _ => Err(Status::INVALID_NAMESPACE),
    };
    match command.word(10) as u8 {
        0x00 => {
            known()?;
            namespace(&mut page, shared);
        }
        0x01 => controller(&mut page, shared),
        0x02 => match command.namespace {
            // Those above the one given.
            0 => put(&mut page, 0, &NAMESPACE.to_le_bytes()),
            0xffff_fffe.. => return Err(Status::INVALID_NAMESPACE),
            _ => {}
        },
        0x03 => {
            known()?;
            put(&mut page, 0, &[UUID, UUID_BYTES]);
            put(&mut page, 4, &uuid(&shared.options.serial));
        }
        _ => return Err(Status::INVALID_FIELD),
    }
    Ok(page)
}

fn put(page: &mut Page, at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Text in a field of `length` bytes, padded with spaces.
fn text(text: &str, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = text.bytes().take(length).collect();
    bytes.resize(length, b' ');
    bytes
}

fn controller(page: &mut Page, shared: &Shared) {
    let serial = text(&shared.options.serial, SERIAL_CHARACTERS);
    let model = text(MODEL, MODEL_CHARACTERS);
    put(page, 0, &VENDOR.to_le_bytes());
    put(page, 2, &SUBSYSTEM_VENDOR.to_le_bytes());
    put(page, 4, &serial);
    put(page, 24, &model);
    put(page, 64, FIRMWARE);
    put(page, 77, &[TRANSFER_EXPONENT]);
    put(page, 80, &VERSION.to_le_bytes());
    put(page, 92, &EVENTS.to_le_bytes());
    // An I/O controller.
    put(page, 111, &[1]);
    put(page, 256, &ADMIN_COMMANDS.to_le_bytes());
    // Abort and event requests, less one.
    put(page, 258, &[3, MOST_REQUESTS as u8 - 1]);
    put(page, 260, &[FIRMWARE_UPDATES, LOG_PAGES]);
    // Temperatures in kelvins that would be warm and hot.
    put(page, 266, &343_u16.to_le_bytes());
    put(page, 268, &373_u16.to_le_bytes());
    // Sizes of queue entries, least and most, as powers of two.
    put(page, 512, &[0x66, 0x44]);
    put(page, 516, &NAMESPACE.to_le_bytes());
    put(page, 520, &COMMANDS.to_le_bytes());
    put(page, 525, &[WRITE_CACHE]);
    put(page, 768, qualified_name(&serial, &model).as_bytes());
}

/// The name of the subsystem, as systems make it for controllers that have none (7.9): no two controllers of a
/// machine may have the same.
fn qualified_name(serial: &[u8], model: &[u8]) -> String {
    format!(
        "nqn.2014.08.org.nvmexpress:{VENDOR:04x}{SUBSYSTEM_VENDOR:04x}{}{}",
        String::from_utf8_lossy(serial),
        String::from_utf8_lossy(model)
    )
}

fn namespace(page: &mut Page, shared: &Shared) {
    let blocks = shared.blocks().to_le_bytes();
    // Size, capacity, use.
    for at in [0, 8, 16] {
        put(page, at, &blocks);
    }
    let zeroes = match shared.image.kind() {
        Kind::File => DEALLOCATED_ZEROES,
        Kind::BlockDevice => 0,
    };
    put(page, 24, &[GRANULARITIES]);
    put(page, 33, &[zeroes | ZEROES_DEALLOCATE]);
    // Capacity in bytes.
    let bytes = u128::from(shared.blocks() * shared.block());
    put(page, 48, &bytes.to_le_bytes());
    // Granularity and alignment of writes and of deallocation, in blocks less one.
    let physical = shared.image.physical_block() / shared.image.logical_block();
    let granularity = u16::try_from(physical - 1).unwrap_or(u16::MAX);
    for at in [64, 66, 68, 70] {
        put(page, at, &granularity.to_le_bytes());
    }
    if shared.options.read_only {
        put(page, 99, &[PROTECTED]);
    }
    // The first and only format: no metadata, and the size of a block as a power of two.
    put(page, 130, &[shared.image.logical_block().ilog2() as u8]);
}

/// A UUID of version 8 (RFC 9562, 5.8) made of the serial number: 128 bits of FNV-1a.
fn uuid(serial: &str) -> [u8; 16] {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = serial.bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    let mut bytes = hash.to_be_bytes();
    bytes[6] = 0x80 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    bytes
}
