//! Directories of NFS servers, mounted by the kernel alone (NFSv4, RFC 8881).

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::mount::{MountFlags, detach, mount};
use crate::modules;

/// How long a server may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Minor versions, in the order they are tried. From 4.2 on holes are known, and some servers share extents. Others say that they speak it, and do
/// not: the reads of Linux, which leave holes out (READ_PLUS, RFC 7862, section 15.10), fail with NFS-Ganesha 4.3.
const VERSIONS: [&str; 3] = ["4.2", "4.1", "4.0"];

/// What is not answered within a minute fails (10 s, then 20 s, then 30 s), so that nobody waits for ever for a server that is gone, and guests
/// are paused instead of hanging.
const BOUNDS: &str = "proto=tcp,softerr,timeo=100,retrans=2";

/// Where the kernel keeps what it calls itself to servers.
const CLIENT_ID: &str = "/sys/module/nfs/parameters/nfs4_unique_id";

/// A directory of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsExport {
    /// The server's address.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// Absolute path there.
    pub path: PathBuf,
}

/// A directory of a server that could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum NfsError {
    /// Nobody answers there.
    #[error("{0} does not answer: {1}")]
    Unreachable(SocketAddr, #[source] io::Error),
    /// The server has no such directory.
    #[error("the server has no directory \"{0}\"")]
    NotFound(String),
    /// The server lets this host not in.
    #[error("the server does not let this host in")]
    Denied,
    /// The server knows no NFSv4.
    #[error("the server does not speak NFS version 4")]
    Version,
    /// Anything else.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// Has the kernel call itself `id` to servers. Hosts of the same name would take each other for one that has restarted, and lose their locks.
///
/// # Errors
/// When the kernel has no NFS client.
pub fn name_nfs_client(id: &str) -> io::Result<()> {
    // The first mount would have it loaded, under the name of the host alone.
    if !Path::new(CLIENT_ID).exists() {
        modules::load(&["nfs"])?;
    }
    std::fs::write(CLIENT_ID, id)
}

/// Mounts a directory of a server on `target`, which is made if it is missing.
///
/// # Errors
/// [`NfsError`]; nothing is mounted then.
pub fn mount_nfs(export: &NfsExport, target: &Path, flags: MountFlags) -> Result<(), NfsError> {
    // The kernel would try for minutes.
    let server = SocketAddr::new(export.address, export.port);
    TcpStream::connect_timeout(&server, PATIENCE)
        .map_err(|error| NfsError::Unreachable(server, error))?;
    let source = export.source();
    for version in VERSIONS {
        match mount(&source, target, "nfs4", flags, &export.options(version)) {
            Err(error) if is_of_version(&error) => {}
            Err(error) => return Err(export.refusal(error)),
            Ok(()) if speaks(target) => return Ok(()),
            Ok(()) => {
                tracing::info!(version, %source, "the server does not speak this version of NFS well");
                detach(target)?;
            }
        }
    }
    Err(NfsError::Version)
}

/// Whether what is written to a file is what is read then, as a disk's holes and data are. Where nothing can be written it is not looked at.
fn speaks(directory: &Path) -> bool {
    let trial = directory.join(format!(".lodge-trial-{}", std::process::id()));
    let mut made = OpenOptions::new();
    made.read(true).write(true).create(true).truncate(true);
    let Ok(file) = made.mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&trial) else {
        return true;
    };
    let outcome = reads_back(&file, &trial);
    if let Err(error) = std::fs::remove_file(&trial) {
        tracing::warn!(%error, path = %trial.display(), "a file of a trial stays");
    }
    outcome.unwrap_or_else(|error| {
        tracing::debug!(%error, "trial of a server");
        // A server that has gone is found out by others.
        error.raw_os_error() == Some(libc::ETIMEDOUT)
    })
}

fn reads_back(file: &File, path: &Path) -> io::Result<bool> {
    const BLOCK: usize = 4096;
    let mut written = vec![0; 4 * BLOCK];
    written[..BLOCK].fill(0x5a);
    file.write_all_at(&written[..2 * BLOCK], 0)?;
    file.set_len(written.len() as u64)?;
    file.sync_all()?;
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, hole, BLOCK as i64, BLOCK as i64) {
        Ok(()) | Err(Errno::EOPNOTSUPP) => {}
        Err(errno) => return Err(errno.into()),
    }
    // Past the page cache; NFS wants no alignment.
    let mut direct = OpenOptions::new();
    let direct = direct.read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut read = vec![0xff; written.len()];
    direct.read_exact_at(&mut read, 0)?;
    Ok(read == written)
}

impl NfsExport {
    /// What the mount table calls it.
    fn source(&self) -> String {
        let path = self.path.display();
        match self.address {
            IpAddr::V4(address) => format!("{address}:{path}"),
            IpAddr::V6(address) => format!("[{address}]:{path}"),
        }
    }

    fn options(&self, version: &str) -> String {
        let Self { address, port, .. } = self;
        let bounds = match address {
            IpAddr::V4(_) => BOUNDS.to_owned(),
            IpAddr::V6(_) => BOUNDS.replace("proto=tcp,", "proto=tcp6,"),
        };
        format!("vers={version},addr={address},port={port},{bounds}")
    }

    fn refusal(&self, error: io::Error) -> NfsError {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTDIR) => {
                NfsError::NotFound(self.path.display().to_string())
            }
            Some(Errno::EACCES | Errno::EPERM) => NfsError::Denied,
            _ => NfsError::Host(error),
        }
    }
}

/// Whether a server that refuses so may speak an older version.
fn is_of_version(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn export(address: &str, port: u16) -> NfsExport {
        NfsExport {
            address: address.parse().unwrap(),
            port,
            path: "/export/lab".into(),
        }
    }

    #[test]
    fn the_kernel_is_told_address_and_bounds() {
        let four = export("192.0.2.7", 2049);
        assert_eq!(four.source(), "192.0.2.7:/export/lab");
        assert_eq!(
            four.options("4.2"),
            "vers=4.2,addr=192.0.2.7,port=2049,proto=tcp,softerr,timeo=100,retrans=2"
        );
        let six = export("fd00::7", 20490);
        assert_eq!(six.source(), "[fd00::7]:/export/lab");
        assert_eq!(
            six.options("4.1"),
            "vers=4.1,addr=fd00::7,port=20490,proto=tcp6,softerr,timeo=100,retrans=2"
        );
    }

    #[test]
    fn nobody_is_waited_for_who_does_not_listen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let target = tempfile::tempdir().unwrap();
        let error = mount_nfs(
            &export("127.0.0.1", port),
            target.path(),
            MountFlags::empty(),
        );
        let error = error.unwrap_err();
        assert!(matches!(error, NfsError::Unreachable(..)), "{error}");
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }

    #[test]
    fn a_trial_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        // The filesystem of the test may not read past its cache at any address.
        if let Ok(same) = reads_back(&file.unwrap(), &path) {
            assert!(same);
        }
        std::fs::remove_file(path).unwrap();
        speaks(directory.path());
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        assert!(speaks(Path::new("/proc")), "nothing can be written there");
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let export = export("192.0.2.7", 2049);
        let of = |errno: Errno| export.refusal(io::Error::from(errno)).to_string();
        assert!(of(Errno::ENOENT).contains("/export/lab"));
        assert!(of(Errno::EACCES).contains("does not let"));
        assert!(is_of_version(&Errno::EPROTONOSUPPORT.into()));
        assert!(!is_of_version(&Errno::ETIMEDOUT.into()));
    }
}
