//! NVMe qualified names (NVM Express base 1.4, section 7.9).

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// What names made of a UUID begin with.
const BY_UUID: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// The name of every discovery service.
const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// Longest name, in bytes, as the standard has it.
const LONGEST: usize = 223;

/// Name of a subsystem or of a host: `nqn.`, a year and month, a reversed domain, and what its owner has added. It can be a name of a
/// folder and a value among options.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nqn(String);

/// It is no such name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is \"nqn.\", a year and month, a domain backwards and more, such as nqn.2014-08.org.nvmexpress:uuid:…, of at most {LONGEST} letters, digits and signs, without commas, slashes, quotes and blanks"
)]
pub struct NqnError;

impl Nqn {
    /// The name made of a UUID.
    pub fn of_uuid(id: Uuid) -> Self {
        Self(format!("{BY_UUID}{id}"))
    }

    /// The name of every discovery service.
    pub fn discovery() -> Self {
        Self(DISCOVERY.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Nqn {
    type Err = NqnError;

    fn from_str(text: &str) -> Result<Self, NqnError> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b",/\\\"'".contains(&byte);
        let rest = text.strip_prefix("nqn.").ok_or(NqnError)?;
        let date = rest.as_bytes().get(..8).ok_or(NqnError)?;
        let dated = date.iter().enumerate().all(|(at, byte)| match at {
            4 => *byte == b'-',
            7 => *byte == b'.',
            _ => byte.is_ascii_digit(),
        });
        let fits = text.len() <= LONGEST && rest.len() > 8 && text.bytes().all(plain);
        (fits && dated)
            .then(|| Self(text.to_owned()))
            .ok_or(NqnError)
    }
}

/// Who this host is to targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostIdentity(pub Uuid);

impl HostIdentity {
    /// Its name, which targets allow.
    pub fn nqn(self) -> Nqn {
        Nqn::of_uuid(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_form() {
        let uuid = Nqn::of_uuid(Uuid::nil());
        assert_eq!(uuid.as_str().parse(), Ok(uuid.clone()));
        assert_eq!(DISCOVERY.parse(), Ok(Nqn::discovery()));
        let long = format!("nqn.2014-08.a{}", "b".repeat(211));
        assert!(long[..LONGEST].parse::<Nqn>().is_ok());
        for wrong in [
            "",
            "nqn.",
            "nqn.2014-08.",
            "nqn.2014.08.org",
            "iqn.2014-08.org.nvmexpress",
            "nqn.2014-08.org,hostnqn=x",
            "nqn.2014-08.org/../x",
            "nqn.2014-08.org x",
            "nqn.2014-08.org\n",
            "nqn.2014-08.örg",
            "nqn.2014-0é.org",
            &long,
        ] {
            assert_eq!(wrong.parse::<Nqn>(), Err(NqnError), "{wrong}");
        }
    }
}
