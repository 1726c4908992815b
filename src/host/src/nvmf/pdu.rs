//! What goes over the connection: the units of the TCP transport (NVM Express TCP Transport 1.0, section 3.6), as far as an admin queue
//! needs them.

/// Bytes of the header that all units have.
pub(super) const HEADER: usize = 8;

/// Longest unit that is taken. The kernel's target sends a log page in one.
pub(super) const LONGEST: usize = 64 << 10;

/// Types of units.
pub(super) const IC_REQUEST: u8 = 0;
pub(super) const IC_RESPONSE: u8 = 1;
pub(super) const TARGET_TERMINATES: u8 = 3;
pub(super) const COMMAND: u8 = 4;
pub(super) const RESPONSE: u8 = 5;
pub(super) const DATA_TO_HOST: u8 = 7;

/// Length of the units that open a connection.
const IC_LENGTH: usize = 128;

/// Bytes of a command, and of the unit's header with it.
const ENTRY: usize = 64;
const COMMAND_HEADER: usize = HEADER + ENTRY;

/// Length of headers of responses and of data.
const RESPONSE_HEADER: usize = 24;

/// Bits of data units: the last, and that no response follows.
const SUCCESS: u8 = 1 << 3;

/// The unit is not as it should be.
pub(super) type Malformed = &'static str;

/// A unit's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u8,
    flags: u8,
    header_length: u8,
    data_offset: u8,
    /// Of the whole unit.
    pub(super) length: usize,
}

impl Header {
    pub(super) fn parse(bytes: [u8; HEADER]) -> Result<Self, Malformed> {
        let [kind, flags, header_length, data_offset, length @ ..] = bytes;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if !(HEADER..=LONGEST).contains(&length) {
            return Err("a unit of an impossible length");
        }
        Ok(Self {
            kind,
            flags,
            header_length,
            data_offset,
            length,
        })
    }
}

fn header(kind: u8, header_length: usize, data_offset: usize, length: usize) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0] = kind;
    bytes[2] = header_length as u8;
    bytes[3] = data_offset as u8;
    bytes[4..].copy_from_slice(&(length as u32).to_le_bytes());
    bytes
}

/// Opens a connection, without digests.
pub(super) fn ic_request() -> Vec<u8> {
    let mut unit = header(IC_REQUEST, IC_LENGTH, 0, IC_LENGTH).to_vec();
    unit.resize(IC_LENGTH, 0);
    unit
}

/// What the target wants data in commands aligned to, in bytes.
pub(super) fn ic_response(header: Header, body: &[u8]) -> Result<usize, Malformed> {
    if header.kind != IC_RESPONSE || header.length != IC_LENGTH || body.len() < 4 {
        return Err("something else than an answer to a connection request");
    }
    if body[..2] != [0, 0] {
        return Err("another version of the protocol");
    }
    if body[3] != 0 {
        return Err("digests that it was not asked for");
    }
    match body[2] {
        alignment @ 0..=31 => Ok((usize::from(alignment) + 1) * 4),
        _ => Err("an impossible alignment"),
    }
}

/// A command, perhaps with data.
pub(super) fn command(entry: &[u8; ENTRY], data: &[u8], alignment: usize) -> Vec<u8> {
    let offset = COMMAND_HEADER.next_multiple_of(alignment);
    let (at, length) = match data.len() {
        0 => (0, COMMAND_HEADER),
        length => (offset, offset + length),
    };
    let mut unit = header(COMMAND, COMMAND_HEADER, at, length).to_vec();
    unit.extend_from_slice(entry);
    if !data.is_empty() {
        unit.resize(offset, 0);
        unit.extend_from_slice(data);
    }
    unit
}

/// How a command has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) command: u16,
    pub(super) result: u64,
    /// Status code type in bits 8 to 10, status code below; 0 is success.
    pub(super) status: u16,
}

pub(super) fn response(header: Header, body: &[u8]) -> Result<Completion, Malformed> {
    if header.length != RESPONSE_HEADER || body.len() != RESPONSE_HEADER - HEADER {
        return Err("a response of another length");
    }
    let mut result = [0; 8];
    result.copy_from_slice(&body[..8]);
    Ok(Completion {
        result: u64::from_le_bytes(result),
        command: u16::from_le_bytes([body[12], body[13]]),
        // Below it is the phase, above are hints for those who try again.
        status: u16::from_le_bytes([body[14], body[15]]) >> 1 & 0x7ff,
    })
}

/// Data that a command has asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Data<'a> {
    pub(super) command: u16,
    pub(super) offset: usize,
    pub(super) bytes: &'a [u8],
    /// The command has succeeded, and no response follows.
    pub(super) ends: bool,
}

pub(super) fn data(header: Header, body: &[u8]) -> Result<Data<'_>, Malformed> {
    let malformed = "a unit of data that does not fit";
    let at = usize::from(header.data_offset);
    if usize::from(header.header_length) != RESPONSE_HEADER || at < RESPONSE_HEADER {
        return Err(malformed);
    }
    let field = |at: usize| {
        let bytes = body.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (offset, length) = field(4).zip(field(8)).ok_or(malformed)?;
    let bytes = body.get(at - HEADER..).ok_or(malformed)?;
    if bytes.len() != length {
        return Err(malformed);
    }
    Ok(Data {
        command: u16::from_le_bytes([body[0], body[1]]),
        offset,
        bytes,
        ends: header.flags & SUCCESS != 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(unit: &[u8]) -> (Header, &[u8]) {
        let head = unit[..HEADER].try_into().unwrap();
        (Header::parse(head).unwrap(), &unit[HEADER..])
    }

    #[test]
    fn commands_have_their_data_where_the_target_wants_them() {
        let unit = command(&[7; ENTRY], &[], 4);
        assert_eq!((unit.len(), unit[2], unit[3]), (72, 72, 0));
        for (alignment, at) in [(4, 72), (16, 80), (128, 128)] {
            let unit = command(&[7; ENTRY], &[9; 5], alignment);
            assert_eq!((unit.len(), usize::from(unit[3])), (at + 5, at));
            assert_eq!(unit[at..], [9; 5]);
            assert_eq!(unit[4..8], ((at + 5) as u32).to_le_bytes());
        }
    }

    #[test]
    fn what_opens_a_connection() {
        let unit = ic_request();
        assert_eq!((unit.len(), unit[0], unit[2], unit[4]), (128, 0, 128, 128));
        let mut answer = unit;
        answer[0] = IC_RESPONSE;
        answer[10] = 1;
        let (header, body) = split(&answer);
        assert_eq!(ic_response(header, body), Ok(8));
        for (at, wrong) in [(8, 1), (10, 32), (11, 1)] {
            let mut answer = answer.clone();
            answer[at] = wrong;
            let (header, body) = split(&answer);
            assert!(ic_response(header, body).is_err(), "{at}");
        }
    }

    #[test]
    fn responses_and_data() {
        let mut unit = header(RESPONSE, 24, 0, 24).to_vec();
        unit.extend([1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0x05, 0x43]);
        let (head, body) = split(&unit);
        let completion = response(head, body).unwrap();
        assert_eq!((completion.command, completion.result), (5, 0x2_0001));
        assert_eq!(completion.status, 0x182);
        let mut unit = header(DATA_TO_HOST, 24, 24, 28).to_vec();
        unit[1] = SUCCESS;
        unit.extend([5, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        let (head, body) = split(&unit);
        let found = data(head, body).unwrap();
        assert_eq!((found.command, found.offset, found.ends), (5, 8, true));
        assert_eq!(found.bytes, [1, 2, 3, 4]);
    }

    #[test]
    fn impossible_lengths() {
        for length in [0, 7, LONGEST as u32 + 1, u32::MAX] {
            let mut bytes = [0; HEADER];
            bytes[4..].copy_from_slice(&length.to_le_bytes());
            assert!(Header::parse(bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_is_too_much(unit in proptest::collection::vec(any::<u8>(), 8..200), declared: bool) {
            let mut unit = unit;
            if declared {
                let length = unit.len() as u32;
                unit[4..8].copy_from_slice(&length.to_le_bytes());
            }
            if let Ok(header) = Header::parse(unit[..8].try_into().unwrap()) {
                let _ = ic_response(header, &unit[8..]);
                let _ = response(header, &unit[8..]);
                if let Ok(data) = data(header, &unit[8..]) {
                    prop_assert!(data.bytes.len() < unit.len());
                }
            }
        }
    }
}
