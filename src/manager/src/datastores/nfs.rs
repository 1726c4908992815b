//! Datastores on NFS servers: what is asked for, and mounting it.

use std::net::IpAddr;
use std::path::{Component, Path};

use lodge_api::Problem;
use lodge_api::datastore::{DatastoreCreate, Nfs};
use lodge_client::addresses_of;
use lodge_host::boot::DATA_FLAGS;
use lodge_host::disk::{NfsError, NfsExport, detach, mount_nfs, mounts, name_nfs_client};
use uuid::Uuid;

use super::home::{Home, is_occupied};
use super::owner::{ClaimError, Owner};
use crate::core::Core;
use crate::identity;

/// Longest name of a server (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;

/// Longest path; more does not fit into a mount's source.
const LONGEST_PATH: usize = 1024;

/// Most addresses of a server that are tried: each may take its time.
const MOST_ADDRESSES: usize = 4;

/// What it takes to open one.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) nfs: Nfs,
    /// Where the server is now.
    addresses: Vec<IpAddr>,
    /// This host, and the datastore.
    pub(super) owner: Owner,
    /// Whether the kernel's name for servers is ours to choose.
    names_client: bool,
}

/// How a datastore on a server is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// Nothing is there yet.
    New,
    /// What is there becomes this host's.
    Adopt,
    /// It is this host's.
    Again,
}

/// What is in a directory of a server.
#[derive(Debug)]
pub(super) struct There {
    /// Whose datastore it is, as far as that is said.
    pub(super) owner: Option<Owner>,
    /// Something is where a datastore has its files.
    pub(super) occupied: bool,
}

impl There {
    fn of(root: &Path) -> std::io::Result<Self> {
        Ok(Self {
            owner: Owner::of(root)?,
            occupied: is_occupied(root)?,
        })
    }
}

impl Core {
    /// Looks for the server of a datastore. An error is text for people.
    pub(super) async fn nfs_source(&self, id: Uuid, nfs: &Nfs) -> Result<Source, String> {
        let addresses = addresses_of(&nfs.server).await;
        let addresses = addresses.map_err(|error| error.to_string())?;
        Ok(Source {
            nfs: nfs.clone(),
            addresses: addresses.into_iter().take(MOST_ADDRESSES).collect(),
            owner: Owner {
                id,
                host: identity::of_host(&self.snapshot()).map_err(|problem| problem.to_string())?,
                hostname: self.hostname.get(),
            },
            names_client: self.config.appliance,
        })
    }
}

impl Source {
    /// Mounts it at `at`, unless that was done before, and opens it. Text for people: why not.
    pub(super) fn open(&self, at: &Path, opening: Opening) -> Result<Home, String> {
        let mounted = mounts().map_err(|error| format!("the mounts of this host: {error}"))?;
        if mounted.iter().any(|mount| mount.target == at) {
            match self.open_mounted(at, opening) {
                Ok(home) => return Ok(home),
                // The server may have forgotten what it gave out; guests that run keep what they have.
                Err(problem) => {
                    tracing::debug!(problem, at = %at.display(), "mounting it anew");
                    detach(at).map_err(|error| format!("{}: {error}", at.display()))?;
                }
            }
        }
        self.mount(at)?;
        self.open_mounted(at, opening).inspect_err(|_| {
            if let Err(error) = detach(at) {
                tracing::warn!(%error, at = %at.display(), "what cannot be used stays mounted");
            }
        })
    }

    /// Looks what is there, by a mount of its own.
    pub(super) fn look(&self, at: &Path) -> Result<There, String> {
        self.mount(at)?;
        let there = There::of(at);
        if let Err(error) = detach(at).and_then(|()| std::fs::remove_dir(at)) {
            tracing::warn!(%error, at = %at.display(), "what was looked at stays mounted");
        }
        there.map_err(|error| self.failure(&error.into()))
    }

    fn mount(&self, at: &Path) -> Result<(), String> {
        if self.names_client
            && let Err(error) = name_nfs_client(&self.owner.host.to_string())
        {
            return Err(format!("this host cannot mount NFS: {error}"));
        }
        let mut last = "the server has no address".to_owned();
        for address in &self.addresses {
            let export = NfsExport {
                address: *address,
                port: self.nfs.port,
                path: self.nfs.path.clone().into(),
            };
            match mount_nfs(&export, at, DATA_FLAGS) {
                Ok(()) => return Ok(()),
                Err(error) => last = with_advice(&error),
            }
        }
        Err(last)
    }

    fn open_mounted(&self, at: &Path, opening: Opening) -> Result<Home, String> {
        let claim = self.owner.claim(at, opening != Opening::Again);
        let claim = claim.map_err(|error| self.failure(&error))?;
        Home::of_server(at, claim, opening == Opening::New)
    }

    fn failure(&self, error: &ClaimError) -> String {
        let Nfs { server, path, .. } = &self.nfs;
        match error {
            ClaimError::Io(refused) if refused.kind() == std::io::ErrorKind::PermissionDenied => {
                format!(
                    "{server} does not let this host write to {path}: export it with `no_root_squash`, or give it to the user that root becomes there"
                )
            }
            other => other.to_string(),
        }
    }
}

fn with_advice(error: &NfsError) -> String {
    match error {
        NfsError::NotFound(_) => format!("{error}: make it there, and export it"),
        NfsError::Denied => format!("{error}: export the directory to its address, for writing"),
        NfsError::Unreachable(..) => {
            format!("{error}. Check the server, and the network between it and this host")
        }
        NfsError::Version | NfsError::Host(_) => error.to_string(),
    }
}

/// Refuses what no server can have.
pub(super) fn check(create: &DatastoreCreate, nfs: &Nfs) -> Result<(), Problem> {
    let invalid = |field: &str, detail: &str| Problem::invalid(format!("/nfs/{field}"), detail);
    if create.erase {
        return Err(Problem::invalid("/erase", "no directory is erased"));
    }
    let name = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    let named = nfs.server.len() <= LONGEST_NAME
        && nfs.server.chars().all(name)
        && nfs.server.starts_with(|letter: char| letter != '-');
    if !named && nfs.server.parse::<IpAddr>().is_err() {
        return Err(
            invalid("server", "neither a name nor an address of a server")
                .with_hint("give one like \"nas.lab\" or \"192.0.2.7\""),
        );
    }
    let path = Path::new(&nfs.path);
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute()
        || !path.components().all(plain)
        || nfs.path.len() > LONGEST_PATH
        || nfs.path.chars().any(char::is_control)
    {
        return Err(invalid("path", "not an absolute path")
            .with_hint("give one that the server exports, like \"/export/lodge\""));
    }
    if nfs.port == 0 {
        return Err(invalid("port", "there is no port 0").with_hint("NFS has port 2049"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(server: &str, path: &str, port: u16) -> Result<(), Problem> {
        let nfs = Nfs {
            server: server.to_owned(),
            path: path.to_owned(),
            port,
        };
        let create = DatastoreCreate {
            name: "nas".parse().unwrap(),
            disk: None,
            directory: None,
            nfs: None,
            erase: false,
            adopt: false,
        };
        check(&create, &nfs)
    }

    #[test]
    fn servers_and_paths_are_looked_at_before_anything_is_mounted() {
        for server in ["nas", "nas.lab.example", "192.0.2.7", "fd00::7", "nas_1"] {
            checked(server, "/export/lodge", 2049).unwrap();
        }
        checked("nas", "/with space", 1).unwrap();
        let long = "x".repeat(300);
        for server in ["", "-nas", "nas/x", "nas,vers=3", "na s", "[::1]", &long] {
            let problem = checked(server, "/export", 2049).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some("/nfs/server"), "{server}");
        }
        let long = format!("/{}", "x".repeat(2000));
        for path in ["", "export", "/../etc", "/a/../b", "/a\n", &long] {
            let problem = checked("nas", path, 2049).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some("/nfs/path"), "{path}");
        }
        let problem = checked("nas", "/export", 0).unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some("/nfs/port"));
    }
}
