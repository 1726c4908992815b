//! The state's file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{SavedMachine, StateError};

const MAGIC: &[u8; 8] = b"LODGEVMS";
const VERSION: u32 = 1;
const HEADER: usize = 24;

/// Longest body that is read: 64 vCPUs and every device take a tenth of it.
const MAX_BODY: u64 = 64 << 20;

/// Writes a state to an empty file.
///
/// # Errors
/// [`StateError::Io`].
pub fn write(file: &File, machine: &SavedMachine) -> Result<(), StateError> {
    let body = serde_json::to_vec(machine).map_err(std::io::Error::other)?;
    file.write_all_at(&with_header(&body), 0)?;
    Ok(())
}

/// The content of a file with this body.
pub fn with_header(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Reads a state.
///
/// # Errors
/// [`StateError`] with what is wrong with the file.
pub fn read(file: &File) -> Result<SavedMachine, StateError> {
    let length = file.metadata()?.len();
    if length < HEADER as u64 {
        return Err(StateError::Foreign);
    }
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let body_length = check_header(&header, length)?;
    let mut body = vec![0; body_length];
    file.read_exact_at(&mut body, HEADER as u64)?;
    decode(&header, &body)
}

/// The length of the body.
fn check_header(header: &[u8; HEADER], file: u64) -> Result<usize, StateError> {
    if &header[..8] != MAGIC {
        return Err(StateError::Foreign);
    }
    let found = u32::from_le_bytes(field(header, 8));
    if found != VERSION {
        let known = VERSION;
        return Err(StateError::Version { found, known });
    }
    let body = u64::from_le_bytes(field(header, 16));
    if body > MAX_BODY || body.checked_add(HEADER as u64) != Some(file) {
        let problem = format!("it has {file} bytes and says {body} after its header");
        return Err(StateError::Damaged(problem));
    }
    usize::try_from(body).map_err(|_| StateError::Damaged("it is too long".to_owned()))
}

fn decode(header: &[u8; HEADER], body: &[u8]) -> Result<SavedMachine, StateError> {
    if crc32c::crc32c(body) != u32::from_le_bytes(field(header, 12)) {
        return Err(StateError::Damaged("its checksum is wrong".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| StateError::Damaged(error.to_string()))
}

fn field<const N: usize>(header: &[u8; HEADER], at: usize) -> [u8; N] {
    std::array::from_fn(|index| header[at + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn problem(bytes: &[u8]) -> String {
        match read(&file_of(bytes)) {
            Ok(_) => "none".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_no_state_is_refused() {
        assert!(problem(b"").contains("not a saved state"));
        assert!(problem(&[0; 4096]).contains("not a saved state"));
        let good = with_header(b"{}");
        assert!(problem(&good).contains("missing field"), "{good:?}");
        for cut in 0..good.len() {
            assert_ne!(problem(&good[..cut]), problem(&good), "{cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_ne!(problem(&bad), problem(&good), "{at}");
        }
        let mut later = good.clone();
        later[8] = 2;
        assert!(problem(&later).contains("formats up to 1"));
        let mut huge = good;
        huge[20] = 0xff;
        assert!(problem(&huge).contains("damaged"));
    }
}
