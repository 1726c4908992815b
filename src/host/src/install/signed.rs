//! Files to update from: a Lodge ISO with a signature behind it.
//!
//! The signature is one of minisign (Ed25519 over BLAKE2b-512) over the ISO, as text, behind a line that names it, in the last
//! [`TRAILER`] bytes of the file. The ISO starts from a stick as before: nothing looks behind its end.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use minisign_verify::{PublicKey, Signature};

/// Bytes behind the ISO.
pub const TRAILER: u64 = 1024;

/// Begins the trailer.
const HEAD: &str = "lodge-update 1\n";

/// How much is read at a time.
const PIECE: usize = 1 << 20;

/// Who may sign: a public key of minisign, as the second line of its `.pub` file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateKey(PublicKey);

impl FromStr for UpdateKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        PublicKey::from_base64(text).map(Self).map_err(|_| {
            "not a public key of minisign: 56 characters that begin with RW".to_owned()
        })
    }
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// It ends with something else.
    #[error("the file has no signature at its end: it is an ISO as it was built, or was cut short")]
    Missing,
    /// What is there cannot be read.
    #[error("the signature at the end of the file is damaged")]
    Malformed,
    /// By somebody else.
    #[error("the file was signed with a key that this host does not trust")]
    Unknown,
    /// The signature is of something else.
    #[error("the signature is not that of this file: it was changed, or damaged on its way")]
    Wrong,
    /// Somebody said stop.
    #[error("cancelled")]
    Cancelled,
    /// It cannot be read.
    #[error("reading the file: {0}")]
    Io(#[from] io::Error),
}

/// Checks a file and returns the length of the ISO in it, in bytes. `progress` hears of bytes, and of how many.
///
/// # Errors
/// [`SignatureError`].
pub fn verify(
    file: &File,
    keys: &[UpdateKey],
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<u64, SignatureError> {
    let whole = file.metadata()?.len();
    let length = whole.checked_sub(TRAILER).ok_or(SignatureError::Missing)?;
    let mut trailer = [0; TRAILER as usize];
    file.read_exact_at(&mut trailer, length)?;
    let signature = parse(&trailer)?;
    let mut verifier = keys
        .iter()
        .find_map(|key| key.0.verify_stream(&signature).ok())
        .ok_or(SignatureError::Unknown)?;
    let (mut at, mut buffer) = (0, vec![0; PIECE]);
    while at < length {
        let want = (length - at).min(PIECE as u64) as usize;
        let piece = &mut buffer[..want];
        file.read_exact_at(piece, at)?;
        verifier.update(piece);
        at += want as u64;
        if progress(at, length).is_break() {
            return Err(SignatureError::Cancelled);
        }
    }
    verifier.finalize().map_err(|_| SignatureError::Wrong)?;
    Ok(length)
}

fn parse(trailer: &[u8]) -> Result<Signature, SignatureError> {
    let text = trailer
        .strip_prefix(HEAD.as_bytes())
        .ok_or(SignatureError::Missing)?;
    let text = std::str::from_utf8(text).map_err(|_| SignatureError::Malformed)?;
    Signature::decode(text.trim_end_matches('\0')).map_err(|_| SignatureError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// A signed file and the key for it, made by minisign itself.
    fn signed(content: &[u8]) -> (Vec<u8>, UpdateKey) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("iso"), content).unwrap();
        minisign(&["-G", "-W", "-f"], directory.path());
        minisign(&["-S", "-m", "iso", "-x", "signature"], directory.path());
        let mut file = content.to_vec();
        let mut trailer = HEAD.as_bytes().to_vec();
        trailer.extend(std::fs::read(path("signature")).unwrap());
        trailer.resize(TRAILER as usize, 0);
        file.extend(trailer);
        let public = std::fs::read_to_string(path("key.pub")).unwrap();
        let key = public.lines().nth(1).unwrap().parse().unwrap();
        (file, key)
    }

    fn minisign(arguments: &[&str], directory: &Path) {
        let ran = Command::new("minisign")
            .args(arguments)
            .args(["-p", "key.pub", "-s", "key.sec"])
            .current_dir(directory)
            .output()
            .expect("minisign, of the package of that name");
        assert!(ran.status.success(), "{ran:?}");
    }

    fn check(content: &[u8], keys: &[UpdateKey]) -> Result<u64, SignatureError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        verify(&file, keys, &mut |_, _| ControlFlow::Continue(()))
    }

    #[test]
    fn what_minisign_signed_is_taken_and_nothing_else() {
        let content = vec![7; PIECE + 12345];
        let (file, key) = signed(&content);
        let (_, other) = signed(b"another");
        let keys = [other.clone(), key];
        assert_eq!(check(&file, &keys).unwrap(), content.len() as u64);
        let refused = |file: &[u8], keys: &[UpdateKey]| check(file, keys).unwrap_err();
        assert!(matches!(refused(&file, &[other]), SignatureError::Unknown));
        assert!(matches!(refused(&file, &[]), SignatureError::Unknown));
        assert!(matches!(refused(&content, &keys), SignatureError::Missing));
        assert!(matches!(refused(b"short", &keys), SignatureError::Missing));
        let mut changed = file.clone();
        changed[PIECE + 1] ^= 1;
        assert!(matches!(refused(&changed, &keys), SignatureError::Wrong));
        let cut = &file[..file.len() - 1];
        assert!(matches!(refused(cut, &keys), SignatureError::Missing));
        let mut damaged = file;
        let at = content.len() + HEAD.len() + 60;
        damaged[at] = b'!';
        let damaged = refused(&damaged, &keys);
        assert!(
            matches!(damaged, SignatureError::Malformed | SignatureError::Unknown),
            "{damaged}"
        );
    }

    #[test]
    fn keys_are_told_from_other_text() {
        let text = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        assert!(text.parse::<UpdateKey>().is_ok());
        for other in ["", "RWQ", "untrusted comment: minisign", &text[1..]] {
            assert!(other.parse::<UpdateKey>().is_err(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_trailer_panics(mut trailer in prop::collection::vec(any::<u8>(), TRAILER as usize), text in any::<bool>()) {
            if text {
                trailer.iter_mut().for_each(|byte| *byte &= 0x7f);
            }
            trailer[..HEAD.len()].copy_from_slice(HEAD.as_bytes());
            let _ = parse(&trailer);
        }
    }
}
