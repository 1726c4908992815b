//! What a guest and its host do to a device, as inputs say it.

use crate::input::Input;

/// Most operations of one input.
const MOST: usize = 256;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// The guest reads a register of `range`.
    Read {
        /// Which group of registers.
        range: u8,
        /// Where in it; wraps at its end.
        offset: u16,
        /// Power of two, 0 to 3: bytes read.
        width: u8,
    },
    /// The guest writes a register.
    Write {
        /// Which group of registers.
        range: u8,
        /// Where in it; wraps at its end.
        offset: u16,
        /// 1, 2, 4 or 8 bytes.
        data: Vec<u8>,
    },
    /// The guest writes to its memory.
    Put {
        /// Guest-physical, 24 bits.
        address: u32,
        /// Up to 255 bytes.
        bytes: Vec<u8>,
    },
    /// The guest puts a request together where a device looks for it.
    Offer(Offer),
    /// The guest says that there are requests.
    Ring {
        /// Which doorbell.
        queue: u8,
    },
    /// The machine is saved and goes on from what was saved.
    SaveRestore,
    /// The machine is switched off and on.
    PowerCycle,
    /// Something happens on the host's side of the device.
    Host {
        /// What; each device has its own list.
        what: u8,
        /// With what, up to 255 bytes.
        bytes: Vec<u8>,
    },
}

/// A request of several buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which queue, or slot.
    pub queue: u8,
    /// In a table of its own, where there is such a thing.
    pub indirect: bool,
    /// The buffers in order, up to 15.
    pub pieces: Vec<Piece>,
}

/// One buffer of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// For the device to write.
    pub writable: bool,
    /// Guest-physical. Inputs have 24 bits of it, unless they have a reason for all 64.
    pub address: u64,
    /// In bytes.
    pub length: u32,
    /// What the guest writes to the buffer first, up to 255 bytes.
    pub content: Vec<u8>,
}

const WRITABLE: u8 = 1 << 0;
const WIDE: u8 = 1 << 1;
const CONTENT: u8 = 1 << 2;

/// A device under test, or a machine of several.
pub trait Rig {
    /// See [`Operation::Read`].
    fn read(&mut self, range: u8, offset: u16, data: &mut [u8]);

    /// See [`Operation::Write`].
    fn write(&mut self, range: u8, offset: u16, data: &[u8]);

    /// See [`Operation::Put`].
    fn put(&mut self, address: u64, bytes: &[u8]);

    /// See [`Operation::Offer`].
    fn offer(&mut self, _offer: &Offer) {}

    /// See [`Operation::Ring`].
    fn ring(&mut self, _queue: u8) {}

    /// See [`Operation::SaveRestore`].
    fn save_restore(&mut self);

    /// See [`Operation::PowerCycle`].
    fn power_cycle(&mut self);

    /// See [`Operation::Host`].
    fn host(&mut self, _what: u8, _bytes: &[u8]) {}

    /// Whatever has happened, the device works afterwards.
    fn finish(&mut self);
}

/// Does what an input says, then looks whether the device still works.
pub fn run(rig: &mut dyn Rig, mut input: Input<'_>) {
    for _ in 0..MOST {
        let Some(operation) = Operation::decode(&mut input) else {
            break;
        };
        operation.apply(rig);
    }
    rig.finish();
}

impl Operation {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(match input.u8()? % 8 {
            0 => Self::Read {
                range: input.u8()?,
                offset: input.u16()?,
                width: input.u8()? % 4,
            },
            1 => {
                let (range, offset) = (input.u8()?, input.u16()?);
                let width = 1 << (input.u8()? % 4);
                let data = input.bytes(width)?.to_vec();
                Self::Write {
                    range,
                    offset,
                    data,
                }
            }
            2 => Self::Put {
                address: address(input)?,
                bytes: input.counted()?.to_vec(),
            },
            3 => Self::Offer(Offer::decode(input)?),
            4 => Self::Ring { queue: input.u8()? },
            5 => Self::SaveRestore,
            6 => Self::PowerCycle,
            _ => Self::Host {
                what: input.u8()?,
                bytes: input.counted()?.to_vec(),
            },
        })
    }

    /// The bytes that mean this.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Read {
                range,
                offset,
                width,
            } => {
                bytes.extend([0, *range]);
                bytes.extend(offset.to_le_bytes());
                bytes.push(*width);
            }
            Self::Write {
                range,
                offset,
                data,
            } => {
                bytes.extend([1, *range]);
                bytes.extend(offset.to_le_bytes());
                bytes.push(data.len().ilog2() as u8);
                bytes.extend(data);
            }
            Self::Put {
                address,
                bytes: content,
            } => {
                bytes.push(2);
                bytes.extend(&address.to_le_bytes()[..3]);
                encode_counted(content, bytes);
            }
            Self::Offer(offer) => {
                bytes.push(3);
                offer.encode(bytes);
            }
            Self::Ring { queue } => bytes.extend([4, *queue]),
            Self::SaveRestore => bytes.push(5),
            Self::PowerCycle => bytes.push(6),
            Self::Host {
                what,
                bytes: content,
            } => {
                bytes.extend([7, *what]);
                encode_counted(content, bytes);
            }
        }
    }

    fn apply(&self, rig: &mut dyn Rig) {
        match self {
            Self::Read {
                range,
                offset,
                width,
            } => rig.read(*range, *offset, &mut [0; 8][..1 << width]),
            Self::Write {
                range,
                offset,
                data,
            } => rig.write(*range, *offset, data),
            Self::Put { address, bytes } => rig.put((*address).into(), bytes),
            Self::Offer(offer) => {
                for piece in &offer.pieces {
                    rig.put(piece.address, &piece.content);
                }
                rig.offer(offer);
            }
            Self::Ring { queue } => rig.ring(*queue),
            Self::SaveRestore => rig.save_restore(),
            Self::PowerCycle => rig.power_cycle(),
            Self::Host { what, bytes } => rig.host(*what, bytes),
        }
    }
}

impl Offer {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let queue = input.u8()?;
        let shape = input.u8()?;
        let mut pieces = Vec::new();
        for _ in 0..shape & 15 {
            pieces.push(Piece::decode(input)?);
        }
        Some(Self {
            queue,
            indirect: shape & 16 != 0,
            pieces,
        })
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.queue);
        bytes.push(self.pieces.len() as u8 | u8::from(self.indirect) << 4);
        for piece in &self.pieces {
            piece.encode(bytes);
        }
    }
}

impl Piece {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let flags = input.u8()?;
        let (address, length) = if flags & WIDE == 0 {
            (address(input)?.into(), input.u16()?.into())
        } else {
            (input.u64()?, input.u32()?)
        };
        let content = if flags & CONTENT == 0 {
            Vec::new()
        } else {
            input.counted()?.to_vec()
        };
        Some(Self {
            writable: flags & WRITABLE != 0,
            address,
            length,
            content,
        })
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let wide = self.address >= 1 << 24 || self.length >= 1 << 16;
        let mut flags = 0;
        for (is, flag) in [
            (self.writable, WRITABLE),
            (wide, WIDE),
            (!self.content.is_empty(), CONTENT),
        ] {
            flags |= if is { flag } else { 0 };
        }
        bytes.push(flags);
        if wide {
            bytes.extend(self.address.to_le_bytes());
            bytes.extend(self.length.to_le_bytes());
        } else {
            bytes.extend(&self.address.to_le_bytes()[..3]);
            bytes.extend(&self.length.to_le_bytes()[..2]);
        }
        if !self.content.is_empty() {
            encode_counted(&self.content, bytes);
        }
    }
}

fn address(input: &mut Input<'_>) -> Option<u32> {
    let low = input.u16()?;
    Some(u32::from(low) | u32::from(input.u8()?) << 16)
}

fn encode_counted(content: &[u8], bytes: &mut Vec<u8>) {
    let count = content.len().min(255);
    bytes.push(count as u8);
    bytes.extend(&content[..count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes() {
        let piece = |address, length, content: &[u8]| Piece {
            writable: length == 512,
            address,
            length,
            content: content.to_vec(),
        };
        let operations = [
            Operation::Read {
                range: 3,
                offset: 0x1234,
                width: 2,
            },
            Operation::Write {
                range: 9,
                offset: 0xffff,
                data: vec![1, 2, 3, 4, 5, 6, 7, 8],
            },
            Operation::Put {
                address: 0x12_3456,
                bytes: vec![7; 255],
            },
            Operation::Offer(Offer {
                queue: 1,
                indirect: true,
                pieces: vec![
                    piece(0x1_0000, 16, &[1; 16]),
                    piece(1 << 40, 512, &[]),
                    piece(0, 1 << 20, &[0]),
                ],
            }),
            Operation::Ring { queue: 2 },
            Operation::SaveRestore,
            Operation::PowerCycle,
            Operation::Host {
                what: 4,
                bytes: Vec::new(),
            },
        ];
        let mut bytes = Vec::new();
        for operation in &operations {
            operation.encode(&mut bytes);
        }
        let mut input = Input::new(&bytes);
        for operation in operations {
            assert_eq!(Operation::decode(&mut input), Some(operation));
        }
        assert!(input.rest().is_empty());
    }
}
