//! Commands as drivers leave them in a submission queue (NVM Express 1.4, 4.2), and how they end.

use serde::{Deserialize, Serialize};

/// Bytes of an entry of a submission queue.
pub(super) const COMMAND_BYTES: usize = 64;

/// Fused operations and scatter-gather lists, neither of which is offered.
const ODD: u32 = 3 << 8 | 3 << 14;

/// A command, copied out of guest memory once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Command {
    pub opcode: u8,
    pub id: u16,
    pub namespace: u32,
    /// Where its data is, see `prp.rs`.
    pub data: [u64; 2],
    /// Command doublewords 10 to 15.
    words: [u32; 6],
    odd: bool,
}

impl Command {
    pub fn parse(bytes: &[u8; COMMAND_BYTES]) -> Self {
        let word = |number: usize| {
            let at = number * 4;
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let wide = |number: usize| u64::from(word(number)) | u64::from(word(number + 1)) << 32;
        Self {
            opcode: bytes[0],
            id: (word(0) >> 16) as u16,
            namespace: word(1),
            data: [wide(6), wide(8)],
            words: [10, 11, 12, 13, 14, 15].map(word),
            odd: word(0) & ODD != 0,
        }
    }

    /// Command doubleword `number`, 10 to 15.
    pub fn word(&self, number: usize) -> u32 {
        self.words[number - 10]
    }

    /// Whether it is written in a way this controller reads.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`].
    pub fn check(&self) -> Result<(), Status> {
        if self.odd {
            return Err(Status::INVALID_FIELD);
        }
        Ok(())
    }
}

/// How a command ended (4.6.1): status code, type, and whether to try again, as they lie in a
/// completion above the phase tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Status(u16);

/// The same command would fail again.
const DO_NOT_RETRY: u16 = 1 << 14;

const fn generic(code: u16) -> Status {
    Status(DO_NOT_RETRY | code)
}

const fn specific(code: u16) -> Status {
    Status(DO_NOT_RETRY | 1 << 8 | code)
}

impl Status {
    pub const SUCCESS: Self = Self(0);
    pub const INVALID_OPCODE: Self = generic(0x01);
    pub const INVALID_FIELD: Self = generic(0x02);
    pub const DATA_TRANSFER_ERROR: Self = generic(0x04);
    pub const INVALID_NAMESPACE: Self = generic(0x0b);
    pub const SEQUENCE_ERROR: Self = generic(0x0c);
    pub const INVALID_PRP_OFFSET: Self = generic(0x13);
    pub const WRITE_PROTECTED: Self = generic(0x20);
    pub const LBA_OUT_OF_RANGE: Self = generic(0x80);
    pub const INVALID_COMPLETION_QUEUE: Self = specific(0x00);
    pub const INVALID_QUEUE_ID: Self = specific(0x01);
    pub const INVALID_QUEUE_SIZE: Self = specific(0x02);
    pub const TOO_MANY_EVENT_REQUESTS: Self = specific(0x05);
    pub const INVALID_VECTOR: Self = specific(0x08);
    pub const INVALID_LOG_PAGE: Self = specific(0x09);
    pub const INVALID_QUEUE_DELETION: Self = specific(0x0c);
    pub const NOT_SAVEABLE: Self = specific(0x0d);
    // Failures of the host, which may pass.
    pub const INTERNAL_ERROR: Self = Self(0x06);
    pub const CAPACITY_EXCEEDED: Self = Self(0x81);
    pub const WRITE_FAULT: Self = Self(2 << 8 | 0x80);
    pub const READ_ERROR: Self = Self(2 << 8 | 0x81);

    /// The 15 bits above the phase tag.
    pub fn bits(self) -> u16 {
        self.0 & 0x7fff
    }
}

/// The end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    /// The command's identifier.
    pub id: u16,
    pub status: Status,
    /// Doubleword 0 of the completion.
    pub result: u32,
}

impl Done {
    pub fn new(command: &Command, status: Status) -> Self {
        Self {
            id: command.id,
            status,
            result: 0,
        }
    }
}
