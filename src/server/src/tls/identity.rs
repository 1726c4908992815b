//! The key and the certificate on the disk.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::generate::generate;
use lodge_host::private_file::{private_dir, write_private};

/// The server's key and certificate.
pub struct Identity {
    /// The self-signed certificate.
    pub certificate: CertificateDer<'static>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

/// An identity, and how it came about.
pub struct Loaded {
    /// The identity.
    pub identity: Identity,
    /// Why it is not the one of before, when there was one.
    pub replaced: Option<String>,
}

/// The identity could neither be read nor made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read, written or moved.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in the files is no key with its certificate.
    #[error("{path}: {reason}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No key could be made.
    #[error("no TLS key could be made: {0}")]
    Generate(#[from] rcgen::Error),
}

impl Identity {
    /// SHA-256 of the certificate: upper-case pairs joined by colons.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.certificate.as_ref());
        let pairs: Vec<String> = digest.iter().map(|b| format!("{b:02X}")).collect();
        pairs.join(":")
    }
}

/// Reads `key.pem` and `certificate.pem` in `dir`. Where there are none, makes them; where they are
/// damaged, sets them aside and makes new ones, which breaks every fingerprint that was pinned.
///
/// # Errors
/// When files cannot be read or written. They are left alone then: a disk that fails for a
/// moment must not cost the identity.
pub fn load_or_generate(
    dir: &Path,
    hostname: &str,
    addresses: &[IpAddr],
) -> Result<Loaded, IdentityError> {
    let files = Files::of(dir);
    private_dir(dir).map_err(|source| file_error(dir, source))?;
    let (key, certificate) = (read(&files.key)?, read(&files.certificate)?);
    let damage = match (&key, &certificate) {
        (None, None) => None,
        _ => match parse(&files, key.as_deref(), certificate.as_deref()) {
            Ok(identity) => {
                return Ok(Loaded {
                    identity,
                    replaced: None,
                });
            }
            Err(error) => Some(error.to_string()),
        },
    };
    if damage.is_some() {
        set_aside(&files.key)?;
        set_aside(&files.certificate)?;
    }
    let made = generate(hostname, addresses)?;
    // The key first: without its certificate it is recognised as unfinished.
    for (path, content) in [
        (&files.key, &made.key_pem),
        (&files.certificate, &made.certificate_pem),
    ] {
        write_private(path, content.as_bytes()).map_err(|source| file_error(path, source))?;
    }
    let identity = parse(
        &files,
        Some(made.key_pem.as_bytes()),
        Some(made.certificate_pem.as_bytes()),
    )?;
    Ok(Loaded {
        identity,
        replaced: damage,
    })
}

struct Files {
    key: PathBuf,
    certificate: PathBuf,
}

impl Files {
    fn of(dir: &Path) -> Self {
        Self {
            key: dir.join("key.pem"),
            certificate: dir.join("certificate.pem"),
        }
    }
}

fn file_error(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::File {
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(path, error)),
    }
}

fn set_aside(path: &Path) -> Result<(), IdentityError> {
    match std::fs::rename(path, path.with_extension("damaged")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(path, error)),
        _ => Ok(()),
    }
}

fn parse(
    files: &Files,
    key: Option<&[u8]>,
    certificate: Option<&[u8]>,
) -> Result<Identity, IdentityError> {
    let damaged = |path: &Path, reason: &dyn std::fmt::Display| IdentityError::Damaged {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let missing = &"the file is missing";
    let key = key.ok_or_else(|| damaged(&files.key, missing))?;
    let certificate = certificate.ok_or_else(|| damaged(&files.certificate, missing))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| damaged(&files.key, &e))?;
    let certificate =
        CertificateDer::from_pem_slice(certificate).map_err(|e| damaged(&files.certificate, &e))?;
    let signer = aws_lc_rs::sign::any_supported_type(&key).map_err(|e| damaged(&files.key, &e))?;
    let pair = CertifiedKey::new(vec![certificate.clone()], Arc::clone(&signer));
    pair.keys_match()
        .map_err(|e| damaged(&files.certificate, &e))?;
    Ok(Identity { certificate, key })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn load(dir: &Path) -> Loaded {
        load_or_generate(dir, "lodge-1", &["192.0.2.7".parse().unwrap()]).unwrap()
    }

    #[test]
    fn it_stays_the_same_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = load(dir.path());
        assert!(first.replaced.is_none());
        assert_eq!(first.identity.fingerprint().len(), 32 * 3 - 1);
        // Other addresses do not change what people have pinned.
        let again = load_or_generate(dir.path(), "renamed", &[]).unwrap();
        assert_eq!(again.identity.fingerprint(), first.identity.fingerprint());
        let mode = fs::metadata(dir.path().join("key.pem"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn damage_is_told_and_set_aside() {
        for (file, content) in [
            ("key.pem", "garbage"),
            ("certificate.pem", ""),
            (
                "certificate.pem",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let first = load(dir.path());
            fs::write(dir.path().join(file), content).unwrap();
            let second = load(dir.path());
            let told = second.replaced.unwrap();
            assert!(told.contains(file), "{told}");
            assert_ne!(second.identity.fingerprint(), first.identity.fingerprint());
            assert!(dir.path().join(file).with_extension("damaged").exists());
            assert!(load(dir.path()).replaced.is_none());
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_damage() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        load(a.path());
        load(b.path());
        fs::copy(a.path().join("key.pem"), b.path().join("key.pem")).unwrap();
        assert!(load(b.path()).replaced.is_some());
    }

    #[test]
    fn an_unreadable_file_is_no_reason_for_a_new_identity() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("key.pem")).unwrap();
        assert!(load_or_generate(dir.path(), "x", &[]).is_err());
        assert!(dir.path().join("key.pem").is_dir());
    }
}
