//! The hosts a person knows: `~/.config/lodge/remotes.toml`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{BaseUrl, ClientError, Fingerprint};

/// A host and how to get in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Where it is.
    pub url: BaseUrl,
    /// The certificate it must show.
    pub fingerprint: Fingerprint,
    /// Who is logged in, for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Session or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A remote that is not there or cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// No remote of that name.
    #[error(
        "there is no remote \"{0}\"; `lodge remote list` shows them, `lodge remote add` adds one"
    )]
    Unknown(String),
    /// No remote at all.
    #[error("no remote is set up yet; add your host with `lodge remote add NAME https://ADDRESS`")]
    None,
    /// The name is taken.
    #[error("there already is a remote \"{0}\"; remove it first with `lodge remote remove {0}`")]
    Exists(String),
    /// The name cannot be used.
    #[error("\"{0}\" cannot be the name of a remote: use letters, digits, '-', '_' and '.'")]
    BadName(String),
}

impl From<RemoteError> for ClientError {
    fn from(error: RemoteError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// All remotes of a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remotes {
    /// The one used when a command names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// By name.
    #[serde(default)]
    pub remotes: BTreeMap<String, Remote>,
}

impl Remotes {
    /// Where they are kept: `$LODGE_CONFIG_DIR`, else `$XDG_CONFIG_HOME/lodge`, else `~/.config/lodge`.
    ///
    /// # Errors
    /// When none of these is set.
    pub fn path() -> Result<PathBuf, ClientError> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let directory = variable("LODGE_CONFIG_DIR")
            .or_else(|| variable("XDG_CONFIG_HOME").map(|base| base.join("lodge")))
            .or_else(|| variable("HOME").map(|home| home.join(".config/lodge")))
            .ok_or_else(|| {
                ClientError::Usage(
                    "set HOME or LODGE_CONFIG_DIR: there is no place for the remotes".to_owned(),
                )
            })?;
        Ok(directory.join("remotes.toml"))
    }

    /// Reads them; none when the file does not exist.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn load(path: &Path) -> Result<Self, ClientError> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| ClientError::Usage(format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(file_error(path, error)),
        }
    }

    /// Replaces the file in one step. It holds credentials, so only its owner may read it.
    ///
    /// # Errors
    /// When it cannot be written; the old file stays.
    pub fn save(&self, path: &Path) -> Result<(), ClientError> {
        let text = toml::to_string(self).map_err(|error| ClientError::Usage(error.to_string()))?;
        let failed = |error| file_error(path, error);
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(failed)?;
        }
        let temporary = path.with_extension(format!("toml.{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(error)
        })
    }

    /// Adds a remote; the first one becomes the default.
    ///
    /// # Errors
    /// When the name is taken or unusable.
    pub fn add(&mut self, name: &str, remote: Remote) -> Result<(), RemoteError> {
        let usable = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !usable {
            return Err(RemoteError::BadName(name.to_owned()));
        }
        if self.remotes.contains_key(name) {
            return Err(RemoteError::Exists(name.to_owned()));
        }
        self.remotes.insert(name.to_owned(), remote);
        self.default.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    /// Removes a remote; another one becomes the default if it was it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn remove(&mut self, name: &str) -> Result<Remote, RemoteError> {
        let remote = self
            .remotes
            .remove(name)
            .ok_or_else(|| RemoteError::Unknown(name.to_owned()))?;
        if self.default.as_deref() == Some(name) {
            self.default = self.remotes.keys().next().cloned();
        }
        Ok(remote)
    }

    /// The named remote, or the default one.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: Option<&str>) -> Result<(&str, &Remote), RemoteError> {
        let name = name.or(self.default.as_deref()).ok_or(RemoteError::None)?;
        self.remotes
            .get_key_value(name)
            .map(|(name, remote)| (name.as_str(), remote))
            .ok_or_else(|| RemoteError::Unknown(name.to_owned()))
    }
}

fn file_error(path: &Path, source: std::io::Error) -> ClientError {
    ClientError::File {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn remote() -> Remote {
        Remote {
            url: "10.0.0.1".parse().unwrap(),
            fingerprint: Fingerprint::of(b"x"),
            user: Some("admin".to_owned()),
            token: Some("secret".to_owned()),
        }
    }

    #[test]
    fn survives_the_disk_and_stays_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/remotes.toml");
        assert_eq!(Remotes::load(&path).unwrap(), Remotes::default());
        let mut remotes = Remotes::default();
        remotes.add("lab", remote()).unwrap();
        remotes.save(&path).unwrap();
        assert_eq!(Remotes::load(&path).unwrap(), remotes);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn the_default_follows() {
        let mut remotes = Remotes::default();
        assert_eq!(remotes.find(None), Err(RemoteError::None));
        remotes.add("a", remote()).unwrap();
        remotes.add("b", remote()).unwrap();
        assert_eq!(
            remotes.add("a", remote()),
            Err(RemoteError::Exists("a".to_owned()))
        );
        assert_eq!(remotes.find(None).unwrap().0, "a");
        remotes.remove("a").unwrap();
        assert_eq!(remotes.find(None).unwrap().0, "b");
        assert!(matches!(
            remotes.find(Some("a")),
            Err(RemoteError::Unknown(_))
        ));
        assert!(matches!(
            remotes.add("a:b", remote()),
            Err(RemoteError::BadName(_))
        ));
    }
}
