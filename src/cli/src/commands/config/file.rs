//! Configurations in files: sealed with a passphrase, or plain.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lodge_api::auth::MIN_PASSWORD;
use lodge_api::configuration::MAX_BODY;
use lodge_client::ClientError;
use serde_json::Value;
use uuid::Uuid;

use super::sealed::{self, Cost};
use crate::commands::export::failed;
use crate::context::ask_password;

/// What a request has beside the configuration, at most.
const ROOM: usize = 64 << 10;

/// Longest configuration that a host takes, in bytes of JSON without spaces.
const LONGEST: usize = MAX_BODY - ROOM;

/// Longest file that is read: a person may have put spaces into a plain one.
const LONGEST_FILE: u64 = 2 * MAX_BODY as u64;

/// Where the passphrase comes from.
pub(super) enum Passphrase {
    /// From a person.
    Asked,
    /// The first line of a file.
    File(PathBuf),
}

impl Passphrase {
    /// A new one, which a person gives twice.
    pub(super) fn choose(&self) -> Result<String, ClientError> {
        let text = self.get("New passphrase: ")?;
        if matches!(self, Self::Asked)
            && std::io::stdin().is_terminal()
            && ask_password("Once more: ")? != text
        {
            let text = "the passphrases differ; nothing was written";
            return Err(ClientError::Usage(text.to_owned()));
        }
        if text.chars().count() < MIN_PASSWORD {
            return Err(ClientError::Usage(format!(
                "the passphrase is too short: use at least {MIN_PASSWORD} characters"
            )));
        }
        Ok(text)
    }

    fn get(&self, question: &str) -> Result<String, ClientError> {
        let path = match self {
            Self::Asked => return ask_password(question),
            Self::File(path) => path,
        };
        let text = std::fs::read_to_string(path).map_err(|source| failed(path, source))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

/// Refuses early what [`write`] would refuse.
pub(super) fn require_free(path: &Path, force: bool) -> Result<(), ClientError> {
    if !force && path.symlink_metadata().is_ok() {
        let text = format!(
            "{} is there already; give --force to replace it",
            path.display()
        );
        return Err(ClientError::Usage(text));
    }
    Ok(())
}

/// Writes a configuration, whole or not at all, so that nobody else can read it.
pub(super) fn write(
    path: &Path,
    configuration: &Value,
    passphrase: Option<&str>,
    force: bool,
) -> Result<(), ClientError> {
    let refused = |text: String| ClientError::Usage(format!("{}: {text}", path.display()));
    let content = serde_json::to_vec(configuration).map_err(|error| refused(error.to_string()))?;
    if content.len() > LONGEST {
        let length = content.len();
        return Err(refused(format!(
            "the configuration has {length} bytes, and no host takes more than {LONGEST} back"
        )));
    }
    let content = match passphrase {
        Some(passphrase) => sealed::seal(content, passphrase, Cost::USUAL).map_err(refused)?,
        None => {
            let text = serde_json::to_string_pretty(configuration);
            (text.map_err(|error| refused(error.to_string()))? + "\n").into_bytes()
        }
    };
    require_free(path, force)?;
    write_whole(path, &content).map_err(|source| failed(path, source))
}

fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let digits = Uuid::new_v4().simple().to_string();
    let part = folder.join(format!(".lodge-{}.part", &digits[..12]));
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // It may never have been there.
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// Reads a configuration from a file of either kind.
pub(super) fn read(path: &Path, passphrase: &Passphrase) -> Result<Value, ClientError> {
    let refused = |text: String| ClientError::Usage(format!("{}: {text}", path.display()));
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut content))
        .map_err(|source| failed(path, source))?;
    if content.len() as u64 > LONGEST_FILE {
        return Err(refused(format!(
            "it is larger than {LONGEST_FILE} bytes, which no configuration is"
        )));
    }
    if sealed::is_sealed(&content) {
        let passphrase = passphrase.get("Passphrase: ")?;
        content = sealed::open(&content, &passphrase).map_err(refused)?;
    } else if content.trim_ascii_start().first() != Some(&b'{') {
        return Err(refused("this is no configuration of a host".to_owned()));
    }
    serde_json::from_slice(&content)
        .map_err(|error| refused(format!("this is no configuration of a host: {error}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use serde_json::json;

    fn passphrase(folder: &Path, text: &str) -> Passphrase {
        let path = folder.join("passphrase");
        std::fs::write(&path, text).unwrap();
        Passphrase::File(path)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "passphrase").collect()
    }

    #[test]
    fn files_of_both_kinds_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let configuration = json!({"format": 1, "hostname": "alpha"});
        let right = passphrase(
            folder.path(),
            "a good one\nand a line that does not count\n",
        );
        let text = right.choose().unwrap();
        assert_eq!(text, "a good one");
        for (name, text) in [("sealed", Some(text.as_str())), ("plain", None)] {
            let path = folder.path().join(name);
            write(&path, &configuration, text, false).unwrap();
            assert_eq!(read(&path, &right).unwrap(), configuration);
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let readable = std::fs::read(&path).unwrap();
            let readable = readable.windows(5).any(|bytes| bytes == b"alpha");
            assert_eq!(readable, name == "plain");
        }
        let wrong = passphrase(folder.path(), "another one");
        let error = read(&folder.path().join("sealed"), &wrong).unwrap_err();
        assert!(error.to_string().contains("wrong passphrase"), "{error}");
    }

    #[test]
    fn a_file_is_replaced_by_force_only_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.lodge");
        write(&path, &json!({"number": 1}), None, false).unwrap();
        let error = write(&path, &json!({"number": 2}), None, false).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        let any = passphrase(folder.path(), "");
        assert_eq!(read(&path, &any).unwrap(), json!({"number": 1}));
        write(&path, &json!({"number": 3}), None, true).unwrap();
        assert_eq!(read(&path, &any).unwrap(), json!({"number": 3}));
        let nowhere = folder.path().join("nowhere/host.lodge");
        assert!(write(&nowhere, &json!({}), None, true).is_err());
        assert_eq!(names(folder.path()), ["host.lodge"]);
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let any = passphrase(folder.path(), "short");
        assert!(any.choose().unwrap_err().to_string().contains("too short"));
        let path = folder.path().join("file");
        for content in [&b""[..], b"PK\x03\x04", b"[1]", b"{", b"LODGECFG", b"{} {}"] {
            std::fs::write(&path, content).unwrap();
            let said = read(&path, &any).unwrap_err().to_string();
            assert!(said.contains("file: "), "{said}");
        }
        let file = File::create(&path).unwrap();
        file.set_len(LONGEST_FILE + 1).unwrap();
        let said = read(&path, &any).unwrap_err().to_string();
        assert!(said.contains("larger"), "{said}");
        let big = json!({"text": "x".repeat(LONGEST)});
        let said = write(&path, &big, None, true).unwrap_err().to_string();
        assert!(said.contains("no host takes more"), "{said}");
    }
}
