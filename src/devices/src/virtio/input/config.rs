//! Device configuration space (virtio 1.2, 5.8.4): the driver selects what it wants to read.

use serde::{Deserialize, Serialize};

use super::report::{ABS_X, ABS_Y, BTN_LEFT, BUTTONS, EV_ABS, EV_KEY, EV_REL, FARTHEST, REL_WHEEL};

const ID_NAME: u8 = 0x01;
const ID_DEVIDS: u8 = 0x03;
const EV_BITS: u8 = 0x11;
const ABS_INFO: u8 = 0x12;

const NAME: &[u8] = b"Lodge Tablet";

/// `BUS_VIRTUAL`, then vendor, product and version, which no driver knows.
const IDENTITY: [u16; 4] = [6, 0, 1, 1];

/// Offset of the answer: behind `select`, `subsel`, `size` and what is reserved.
const ANSWER: usize = 8;
const ANSWER_BYTES: usize = 128;

/// What the driver has selected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Selection {
    select: u8,
    subsel: u8,
}

impl Selection {
    /// Reads the space.
    pub fn read(self, offset: u64, data: &mut [u8]) {
        let mut space = [0; ANSWER + ANSWER_BYTES];
        let answer = self.answer();
        space[..3].copy_from_slice(&[self.select, self.subsel, answer.len() as u8]);
        space[ANSWER..ANSWER + answer.len()].copy_from_slice(&answer);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(rest) = space.get(start..) {
            let count = rest.len().min(data.len());
            data[..count].copy_from_slice(&rest[..count]);
        }
    }

    /// Writes the first two bytes; the others are not the driver's.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..=u64::MAX).zip(data) {
            match at {
                0 => self.select = *byte,
                1 => self.subsel = *byte,
                _ => return,
            }
        }
    }

    /// At most [`ANSWER_BYTES`]; nothing for what a tablet has not.
    fn answer(self) -> Vec<u8> {
        match (self.select, self.subsel.into()) {
            (ID_NAME, 0) => NAME.to_vec(),
            (ID_DEVIDS, 0) => IDENTITY.iter().flat_map(|id| id.to_le_bytes()).collect(),
            (EV_BITS, EV_KEY) => bits(BTN_LEFT..BTN_LEFT + BUTTONS),
            (EV_BITS, EV_REL) => bits([REL_WHEEL]),
            (EV_BITS, EV_ABS) => bits([ABS_X, ABS_Y]),
            // Minimum, maximum, fuzz, flat, resolution.
            (ABS_INFO, ABS_X | ABS_Y) => {
                let info = [0, u32::from(FARTHEST), 0, 0, 0];
                info.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A bitmap as long as its highest bit needs.
fn bits(set: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut map = Vec::new();
    for bit in set {
        let byte = usize::from(bit / 8);
        if map.len() <= byte {
            map.resize(byte + 1, 0);
        }
        map[byte] |= 1 << (bit % 8);
    }
    map
}
