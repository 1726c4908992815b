//! One record of `/dev/kmsg`: `priority,sequence,microseconds,flags[,…];text`, then lines ` KEY=value`.

use serde::{Deserialize, Serialize};

use super::Level;

/// A record of the kernel's log ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsgRecord {
    /// How urgent it is.
    pub level: Level,
    /// Who wrote it: 0 is the kernel, others are programs (RFC 5424 section 6.2.1).
    pub facility: u32,
    /// Counts up by one from boot, never repeats.
    pub sequence: u64,
    /// When, in microseconds since the kernel started (`CLOCK_MONOTONIC`).
    pub timestamp_us: u64,
    /// The text, without its final newline. Control characters are written as `\xNN`.
    pub message: String,
}

/// A record that does not look like one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a record of /dev/kmsg")]
pub struct RecordError;

impl KmsgRecord {
    /// Parses what one `read` of `/dev/kmsg` returned.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let semicolon = bytes.iter().position(|b| *b == b';').ok_or(RecordError)?;
        let head = std::str::from_utf8(&bytes[..semicolon]).map_err(|_| RecordError)?;
        let mut fields = head.split(',');
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (priority, sequence, timestamp_us) = match (number(), number(), number()) {
            (Some(priority), Some(sequence), Some(timestamp)) => (priority, sequence, timestamp),
            _ => return Err(RecordError),
        };
        let priority = u32::try_from(priority).map_err(|_| RecordError)?;
        let text = &bytes[semicolon + 1..];
        // What follows the first newline is the record's dictionary.
        let text = text.split(|b| *b == b'\n').next().unwrap_or_default();
        Ok(Self {
            level: Level::from_priority(priority),
            facility: priority >> 3,
            sequence,
            timestamp_us,
            message: unescape(text),
        })
    }
}

/// The kernel writes bytes outside printable ASCII, and the backslash, as `\xNN`. Gives text back its letters, and
/// leaves control characters escaped, because the text ends up on terminals.
fn unescape(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if let (b'\\', [b'x', high, low, after @ ..]) = (first, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            let byte = (high << 4) | low;
            if byte >= 0x80 || byte == b'\\' {
                bytes.push(byte);
                rest = after;
                continue;
            }
        }
        bytes.push(first);
    }
    let text = String::from_utf8_lossy(&bytes);
    if !text.chars().any(char::is_control) {
        return text.into_owned();
    }
    // Letters above ASCII may decode to the control characters U+0080 to U+009F.
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn hex(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_record_with_a_dictionary() {
        let record = KmsgRecord::parse(
            b"6,339,5140900,-,caller=T1;NET: Registered PF_INET6\n SUBSYSTEM=net\n DEVICE=n2\n",
        )
        .unwrap();
        assert_eq!(record.level, Level::Info);
        assert_eq!(record.facility, 0);
        assert_eq!(record.sequence, 339);
        assert_eq!(record.timestamp_us, 5_140_900);
        assert_eq!(record.message, "NET: Registered PF_INET6");
    }

    #[test]
    fn a_program_s_record_with_letters() {
        let record =
            KmsgRecord::parse(b"29,7,0,-;lodge-init: \\xc3\\xa4 \\x5c \\x1b[2J ;x\n").unwrap();
        assert_eq!((record.level, record.facility), (Level::Notice, 3));
        assert_eq!(record.message, "lodge-init: ä \\ \\x1b[2J ;x");
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &b""[..],
            b";",
            b"a,b,c;d",
            b"1,2;x",
            b"6,339,5140900",
            b"\xff,1,1;x",
        ] {
            assert_eq!(KmsgRecord::parse(bytes), Err(RecordError), "{bytes:?}");
        }
    }

    #[test]
    fn half_an_escape_and_bare_controls_stay_harmless() {
        let record = KmsgRecord::parse(b"6,1,1,-;a\\xg1 \\x4 \x1b \\xc2\\x9b").unwrap();
        assert_eq!(record.message, "a\\xg1 \\x4 \u{fffd} \u{fffd}");
    }
}
