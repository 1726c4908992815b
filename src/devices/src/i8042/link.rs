//! What both kinds of PS/2 device do on their line: answer bytes and repeat them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// "Got it."
pub(super) const ACKNOWLEDGE: u8 = 0xfa;
/// "Once more", for a byte the device did not understand.
pub(super) const RESEND: u8 = 0xfe;
/// The self test after a reset has passed.
pub(super) const SELF_TEST_PASSED: u8 = 0xaa;

/// Most answers that wait to be taken. A host sends a byte only when it has the
/// answer to the last; one that does not loses answers, as it would on the wire.
const ANSWERS: usize = 16;

/// A device's end of the line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    answers: VecDeque<u8>,
    /// The byte sent last, for the command that wants it again.
    last: u8,
    /// A command that waits for its option byte.
    pub pending: Option<u8>,
}

impl Link {
    /// Answers with `bytes`.
    pub fn answer(&mut self, bytes: &[u8]) {
        if self.answers.len() + bytes.len() > ANSWERS {
            self.answers.clear();
        }
        self.answers.extend(bytes);
    }

    /// Sends the last byte once more.
    pub fn repeat(&mut self) {
        self.answer(&[self.last]);
    }

    /// The next byte of an answer.
    pub fn take_answer(&mut self) -> Option<u8> {
        let byte = self.answers.pop_front()?;
        self.sent(byte);
        Some(byte)
    }

    /// Notes what goes over the line.
    pub fn sent(&mut self, byte: u8) {
        // A request to repeat is never repeated itself.
        if byte != RESEND {
            self.last = byte;
        }
    }

    /// What is impossible about a saved line.
    pub fn problem(&self) -> Option<&'static str> {
        (self.answers.len() > ANSWERS).then_some("too many answers")
    }
}
