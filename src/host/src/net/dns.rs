//! The resolver configuration.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::error::NetError;
use super::state::DnsConfig;

/// More name servers than are worth asking.
const SERVER_LIMIT: usize = 6;
/// As many search domains as every resolver takes.
const SEARCH_LIMIT: usize = 6;

impl DnsConfig {
    /// Adds a name server behind those there are.
    pub(super) fn add_server(&mut self, server: IpAddr) {
        if self.servers.len() < SERVER_LIMIT && !self.servers.contains(&server) {
            self.servers.push(server);
        }
    }

    /// Adds a search domain behind those there are.
    pub(super) fn add_search(&mut self, domain: &str) {
        if self.search.len() < SEARCH_LIMIT && !self.search.iter().any(|known| known == domain) {
            self.search.push(domain.to_owned());
        }
    }

    /// The text of a `resolv.conf`.
    fn to_text(&self) -> String {
        let mut text = String::from("# Written by Lodge; changes are overwritten.\n");
        if !self.search.is_empty() {
            text.push_str("search ");
            text.push_str(&self.search.join(" "));
            text.push('\n');
        }
        for server in &self.servers {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "nameserver {server}");
        }
        text
    }

    /// Writes the file if its text differs.
    pub(super) fn write(&self, path: &Path) -> Result<(), NetError> {
        let text = self.to_text();
        if fs::read_to_string(path).is_ok_and(|current| current == text) {
            return Ok(());
        }
        let failed = |error: io::Error| NetError::File {
            action: "write",
            path: path.display().to_string(),
            problem: error.to_string(),
        };
        let temporary = path.with_extension("lodge-new");
        fs::write(&temporary, &text).map_err(failed)?;
        fs::rename(&temporary, path).or_else(|_| {
            // A file that is a mount point itself, as in containers, can only be written in place.
            let _ = fs::remove_file(&temporary);
            fs::write(path, &text).map_err(failed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_domains_are_written_once_each() {
        let mut dns = DnsConfig::default();
        for server in ["192.0.2.53", "2001:db8::53", "192.0.2.53"] {
            dns.add_server(server.parse().expect("an address"));
        }
        dns.add_search("example.org");
        dns.add_search("example.org");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("resolv.conf");
        dns.write(&path).expect("written");
        let text = fs::read_to_string(&path).expect("read");
        assert!(
            text.ends_with(
                "\nsearch example.org\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n"
            ),
            "{text}"
        );
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
        assert!(dns.write(Path::new("/nowhere/resolv.conf")).is_err());
    }
}
