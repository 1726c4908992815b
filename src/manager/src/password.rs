//! Passwords: hashing, checking, and making one up.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use lodge_api::auth::{MAX_PASSWORD, MIN_PASSWORD};
use lodge_api::{ErrorCode, Problem};
use tokio::sync::Semaphore;

use crate::core::{blocking, internal};

/// Memory of one hash, in KiB (OWASP's recommendation with two passes).
const MEMORY_KIB: u32 = 19 * 1024;

/// Most memory of a hash that comes from elsewhere, in KiB.
const MAX_MEMORY_KIB: u32 = 256 << 10;

/// Most passes over it.
const MAX_PASSES: u32 = 16;

/// Most lanes of it.
const MAX_LANES: u32 = 16;

/// Hashes computed at once: each takes 19 MiB and a processor.
static HASHING: Semaphore = Semaphore::const_new(2);

/// Hashes waited for; more are refused.
const WAITING: usize = 32;

/// Tickets to wait for [`HASHING`].
static QUEUE: Semaphore = Semaphore::const_new(WAITING);

/// Letters and digits that are not mistaken for one another when read from a screen.
const READABLE: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

fn argon2() -> Result<Argon2<'static>, Problem> {
    let params = Params::new(MEMORY_KIB, 2, 1, None)
        .map_err(|error| internal(format!("argon2: {error}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Refuses passwords that are too short or too long.
pub(crate) fn check(password: &str) -> Result<(), Problem> {
    let characters = password.chars().count();
    if characters < MIN_PASSWORD {
        return Err(Problem::invalid("/password", "the password is too short")
            .with_hint(format!("use at least {MIN_PASSWORD} characters")));
    }
    if password.len() > MAX_PASSWORD {
        return Err(Problem::invalid("/password", "the password is too long")
            .with_hint(format!("use at most {MAX_PASSWORD} bytes")));
    }
    Ok(())
}

/// The hash of a password, in PHC string format.
pub(crate) async fn hash(password: String) -> Result<String, Problem> {
    queued(move || {
        let hash: PasswordHash = argon2()?
            .hash_password(password.as_bytes())
            .map_err(|error| internal(format!("argon2: {error}")))?;
        Ok(hash.to_string())
    })
    .await
}

/// Whether `password` is the one of `hash`. `None` takes as long and says no.
pub(crate) async fn verify(password: String, hash: Option<String>) -> Result<bool, Problem> {
    queued(move || {
        let Some(hash) = hash else {
            let _: Result<PasswordHash, _> = argon2()?.hash_password(password.as_bytes());
            return Ok(false);
        };
        let parsed = PasswordHash::new(&hash)
            .map_err(|error| internal(format!("a stored password hash: {error}")))?;
        Ok(argon2()?
            .verify_password(password.as_bytes(), &parsed)
            .is_ok())
    })
    .await
}

/// Whether a text is an argon2id hash.
pub(crate) fn is_hash(text: &str) -> bool {
    PasswordHash::new(text).is_ok_and(|hash| hash.algorithm.as_str() == "argon2id")
}

/// Refuses what is no hash of a password, and what takes so much memory or time that nobody could log in.
pub(crate) fn check_hash(text: &str) -> Result<(), String> {
    let hash =
        PasswordHash::new(text).map_err(|error| format!("no hash of a password: {error}"))?;
    if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
        return Err("no argon2id hash of a password".to_owned());
    }
    let params =
        Params::try_from(&hash).map_err(|error| format!("no hash of a password: {error}"))?;
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    if memory > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
        return Err(format!(
            "the hash takes {memory} KiB of memory, {passes} passes and {lanes} lanes; at most {MAX_MEMORY_KIB}, {MAX_PASSES} and \
             {MAX_LANES} are computed"
        ));
    }
    Ok(())
}

async fn queued<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let _ticket = QUEUE.try_acquire().map_err(|_| {
        Problem::new(ErrorCode::TooManyRequests, "too many logins at once")
            .with_hint("try again in a second")
            .with_retry_after(1)
            .with_retry_after(1)
    })?;
    let permit = HASHING
        .acquire()
        .await
        .map_err(|_| internal("password hashing has ended"))?;
    let result = blocking(work).await;
    drop(permit);
    result
}

/// A random password of 16 readable characters (80 bits), in groups of four.
pub(crate) fn random() -> Result<String, Problem> {
    let bytes = random_bytes::<16>()?;
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 && at % 4 == 0 {
            text.push('-');
        }
        // 256 is a multiple of 32: every character is as likely.
        text.push(char::from(READABLE[usize::from(byte % 32)]));
    }
    Ok(text)
}

/// Random bytes from the kernel.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| internal(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_checked_against_its_hash() {
        let hash = hash("correct horse".to_owned()).await.unwrap();
        assert!(is_hash(&hash));
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let is = |text: &str| verify(text.to_owned(), Some(hash.clone()));
        assert!(is("correct horse").await.unwrap());
        assert!(!is("correct hors").await.unwrap());
        assert!(!verify(String::new(), None).await.unwrap());
    }

    #[test]
    fn a_random_password_is_readable_and_accepted() {
        let password = random().unwrap();
        assert_eq!(password.len(), 19);
        assert!(password.split('-').all(|group| group.len() == 4));
        check(&password).unwrap();
        assert_ne!(password, random().unwrap());
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(check("1234567").is_err());
        assert!(check("ääääääää").is_ok());
        assert!(check(&"x".repeat(257)).is_err());
    }
}
