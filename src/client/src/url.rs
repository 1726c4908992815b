//! Where a remote is: `https://HOST[:PORT]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ClientError;

/// Scheme, host and port of a remote; no path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl {
    host: String,
    port: u16,
}

impl BaseUrl {
    /// Host name or IP literal, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the `Host` header.
    pub fn authority(&self) -> String {
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => format!("[{}]", self.host),
            _ => self.host.clone(),
        };
        if self.port == 443 {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl FromStr for BaseUrl {
    type Err = ClientError;

    /// Takes `HOST`, `HOST:PORT`, `[v6]:PORT` and the same after `https://`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why: &str| {
            ClientError::Usage(format!("\"{text}\" is not the address of a host: {why}"))
        };
        let rest = text.trim();
        let rest = rest.strip_prefix("https://").unwrap_or(rest);
        if rest.contains("://") {
            return Err(bad("only https:// is spoken"));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split_port(rest).ok_or_else(|| bad("write HOST or HOST:PORT"))?;
        let port = match port {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| bad("the port must be 1 to 65535"))?,
            None => 443,
        };
        let plausible = host.parse::<IpAddr>().is_ok()
            || (!host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)));
        if !plausible {
            return Err(bad("write HOST or HOST:PORT"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    Some(match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    })
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = ClientError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BaseUrl> for String {
    fn from(url: BaseUrl) -> Self {
        url.to_string()
    }
}

/// Percent-encodes what a person typed so that it stays one path segment or query value.
pub fn encode_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_in_every_form() {
        for (text, shown) in [
            ("host", "https://host"),
            ("https://host/", "https://host"),
            ("10.0.0.1:8443", "https://10.0.0.1:8443"),
            ("::1", "https://[::1]"),
            ("https://[fe80::1]:8443", "https://[fe80::1]:8443"),
        ] {
            assert_eq!(text.parse::<BaseUrl>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "http://host",
            "host:0",
            "host:x",
            "a b",
            "host/v1",
            "[::1",
            "[::1]x",
        ] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn segments_cannot_leave_their_place() {
        assert_eq!(encode_segment("../a?b#c:d"), "..%2Fa%3Fb%23c%3Ad");
    }
}
