//! A file that only those can read who know its passphrase, and that nobody else can change.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `LODGECFG` |
//! | 1 | version of this form, 1 |
//! | 4, 4, 4 | memory in KiB, passes and lanes of Argon2id, which makes the key; big-endian as all numbers |
//! | 16 | salt of it |
//! | 12 | nonce |
//! | rest | the content by AES-256-GCM, which authenticates all that is before it as well, and its tag |

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

const MAGIC: &[u8; 8] = b"LODGECFG";
const VERSION: u8 = 1;
const SALT: usize = 16;
const KEY: usize = 32;

/// What comes before the content.
pub(super) const HEADER: usize = MAGIC.len() + 1 + 3 * 4 + SALT + NONCE_LEN;

/// Bytes of the tag after it.
pub(super) const TAG: usize = 16;

/// Most memory that a file may ask for, in KiB.
const MOST_MEMORY: u32 = 1 << 20;
const MOST_PASSES: u32 = 16;
const MOST_LANES: u32 = 16;

/// What it costs to try a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    /// Memory in KiB.
    memory: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// What RFC 9106 recommends where not everybody has gigabytes to spare (section 4, the second).
    pub(super) const USUAL: Self = Self {
        memory: 64 << 10,
        passes: 3,
        lanes: 4,
    };

    fn key(self, passphrase: &str, salt: &[u8]) -> Result<LessSafeKey, String> {
        let failed = |error: argon2::Error| format!("the key cannot be computed: {error}");
        let Self {
            memory,
            passes,
            lanes,
        } = self;
        let params = Params::new(memory, passes, lanes, Some(KEY)).map_err(failed)?;
        let mut key = [0; KEY];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), salt, &mut key)
            .map_err(failed)?;
        let key = UnboundKey::new(&AES_256_GCM, &key);
        let key = key.map_err(|_| "the key cannot be used".to_owned())?;
        Ok(LessSafeKey::new(key))
    }
}

/// Whether a file begins like one of these.
pub(super) fn is_sealed(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

/// The file that `content` becomes.
///
/// # Errors
/// For a person: no random numbers, or no memory.
pub(super) fn seal(mut content: Vec<u8>, passphrase: &str, cost: Cost) -> Result<Vec<u8>, String> {
    let mut random = [0; SALT + NONCE_LEN];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "there are no random numbers".to_owned())?;
    let mut file = Vec::with_capacity(HEADER + content.len() + TAG);
    file.extend_from_slice(MAGIC);
    file.push(VERSION);
    for number in [cost.memory, cost.passes, cost.lanes] {
        file.extend_from_slice(&number.to_be_bytes());
    }
    file.extend_from_slice(&random);
    let (salt, nonce) = random.split_at(SALT);
    let key = cost.key(passphrase, salt)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| "no nonce".to_owned())?;
    key.seal_in_place_append_tag(nonce, Aad::from(&file), &mut content)
        .map_err(|_| "the content cannot be encrypted".to_owned())?;
    file.append(&mut content);
    Ok(file)
}

/// The content of a file.
///
/// # Errors
/// For a person. That the passphrase is wrong cannot be told from damage.
pub(super) fn open(file: &[u8], passphrase: &str) -> Result<Vec<u8>, String> {
    let Header { cost, salt, nonce } = Header::read(file)?;
    let key = cost.key(passphrase, &salt)?;
    let (header, sealed) = file.split_at(HEADER);
    let mut content = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let length = key
        .open_in_place(nonce, Aad::from(header), &mut content)
        .map_err(|_| "wrong passphrase, or the file is damaged".to_owned())?
        .len();
    content.truncate(length);
    Ok(content)
}

struct Header {
    cost: Cost,
    salt: [u8; SALT],
    nonce: [u8; NONCE_LEN],
}

impl Header {
    fn read(file: &[u8]) -> Result<Self, String> {
        let rest = file
            .strip_prefix(MAGIC)
            .ok_or("this is no configuration that Lodge has encrypted")?;
        if file.len() < HEADER + TAG {
            return Err("the file ends too early: it is damaged".to_owned());
        }
        let (version, rest) = rest.split_at(1);
        if version != [VERSION] {
            return Err(format!(
                "the file is of version {}, and this release knows {VERSION} only",
                version[0]
            ));
        }
        let (numbers, rest) = rest.split_at(3 * 4);
        let number = |at: usize| {
            let bytes = numbers[4 * at..4 * at + 4].iter();
            bytes.fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
        };
        let cost = Cost {
            memory: number(0),
            passes: number(1),
            lanes: number(2),
        };
        if cost.memory > MOST_MEMORY || cost.passes > MOST_PASSES || cost.lanes > MOST_LANES {
            return Err(format!(
                "the file wants {} KiB of memory, {} passes and {} lanes for its key; at most {MOST_MEMORY}, {MOST_PASSES} and \
                 {MOST_LANES} are given",
                cost.memory, cost.passes, cost.lanes
            ));
        }
        let mut header = Self {
            cost,
            salt: [0; SALT],
            nonce: [0; NONCE_LEN],
        };
        header.salt.copy_from_slice(&rest[..SALT]);
        header.nonce.copy_from_slice(&rest[SALT..SALT + NONCE_LEN]);
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that there is.
    const CHEAP: Cost = Cost {
        memory: 8,
        passes: 1,
        lanes: 1,
    };

    const WRONG: &str = "wrong passphrase, or the file is damaged";

    fn sealed() -> Vec<u8> {
        seal(b"{\"format\": 1}".to_vec(), "a good one", CHEAP).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_with_the_passphrase_alone() {
        for content in [Vec::new(), b"{}".to_vec(), vec![7; 100_000]] {
            let file = seal(content.clone(), "a good one", CHEAP).unwrap();
            assert!(is_sealed(&file));
            assert_eq!(file.len(), HEADER + content.len() + TAG);
            assert_eq!(open(&file, "a good one"), Ok(content));
            assert_eq!(open(&file, "a good ond"), Err(WRONG.to_owned()));
            assert_eq!(open(&file, ""), Err(WRONG.to_owned()));
        }
        assert_ne!(sealed(), sealed(), "salt and nonce are random");
    }

    #[test]
    fn the_usual_cost_is_within_the_bounds() {
        let file = seal(b"{}".to_vec(), "a good one", Cost::USUAL).unwrap();
        assert_eq!(Header::read(&file).unwrap().cost, Cost::USUAL);
        assert_eq!(open(&file, "a good one"), Ok(b"{}".to_vec()));
    }

    #[test]
    fn a_part_of_a_file_is_refused() {
        let file = sealed();
        for length in 0..file.len() {
            assert!(open(&file[..length], "a good one").is_err(), "{length}");
        }
        let longer = [&file[..], b"x"].concat();
        assert_eq!(open(&longer, "a good one"), Err(WRONG.to_owned()));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let file = sealed();
        for at in 0..file.len() {
            // Numbers of the header may become large; those that are let through are small enough to be tried.
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(open(&damaged, "a good one").is_err(), "{at}");
        }
    }

    #[test]
    fn a_file_cannot_ask_for_too_much_or_too_little() {
        let with = |memory: u32, passes: u32, lanes: u32| {
            let mut file = sealed();
            for (at, number) in [memory, passes, lanes].into_iter().enumerate() {
                let at = MAGIC.len() + 1 + 4 * at;
                file[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            open(&file, "a good one").unwrap_err()
        };
        for (memory, passes, lanes) in [
            (MOST_MEMORY + 1, 1, 1),
            (u32::MAX, 1, 1),
            (8, MOST_PASSES + 1, 1),
            (8, u32::MAX, 1),
            (1 << 10, 1, MOST_LANES + 1),
            (8, 1, u32::MAX),
        ] {
            let said = with(memory, passes, lanes);
            assert!(said.contains("are given"), "{said}");
        }
        for (memory, passes, lanes) in [(0, 1, 1), (8, 0, 1), (8, 1, 0), (8, 1, 2), (7, 1, 1)] {
            let said = with(memory, passes, lanes);
            assert!(said.contains("cannot be computed"), "{said}");
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut file = sealed();
        file[MAGIC.len()] = 2;
        let said = open(&file, "a good one").unwrap_err();
        assert!(said.contains("version 2"), "{said}");
        assert!(open(b"PK\x03\x04 something else", "x").is_err());
    }
}
