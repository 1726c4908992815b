//! The kernel's target: what of this machine others can use (Linux, `drivers/nvme/target/configfs.c`).

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::Nqn;
use crate::disk::{MountFlags, attribute, mount};
use crate::modules;

/// Where configfs is, and the target in it.
const CONFIGFS: &str = "/sys/kernel/config";
const TARGET: &str = "/sys/kernel/config/nvmet";

const MODULES: [&str; 2] = ["nvmet", "nvmet-tcp"];

const FLAGS: MountFlags = MountFlags::MS_NOSUID
    .union(MountFlags::MS_NODEV)
    .union(MountFlags::MS_NOEXEC);

/// What disks that are exported call themselves.
const MODEL: &str = "Lodge export";

/// Letters of a serial number (NVM Express 1.4, section 5.15.2.2).
const SERIAL: usize = 20;

/// Ports of one target, at most: one for each address.
const MOST_PORTS: u16 = 1024;

/// A device that others can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// What it is known by; subsystem, serial number and disk are named after it.
    pub id: Uuid,
    /// The device.
    pub device: PathBuf,
    /// Who may use it.
    pub allowed: Allowed,
    /// Where the target listens; an unspecified address is every one of its kind.
    pub listen: SocketAddr,
}

/// Who may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Everybody who reaches it.
    Any,
    /// Hosts of these names.
    Hosts(Vec<Nqn>),
}

impl Export {
    /// Name of its subsystem.
    pub fn nqn(&self) -> Nqn {
        Nqn::of_uuid(self.id)
    }

    /// Its serial number.
    pub fn serial(&self) -> String {
        let mut serial = self.id.simple().to_string();
        // The first digits of ids are their time, the last ones differ.
        serial.split_off(serial.len() - SERIAL)
    }
}

/// What could not be done, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The kernel has no target.
    #[error("this kernel cannot export disks: {0}")]
    Unsupported(io::Error),
    /// The address is not one of this host, or taken.
    #[error("the target cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// Something else.
    #[error("{}: {}", .0.display(), .1)]
    Failed(PathBuf, io::Error),
}

/// Exports a device, as far as it is not yet.
///
/// # Errors
/// [`TargetError`]. What was done until then stays; [`unexport`] removes it.
pub fn export(wanted: &Export) -> Result<(), TargetError> {
    prepare().map_err(TargetError::Unsupported)?;
    export_in(Path::new(TARGET), wanted)
}

/// Whoever uses it loses it.
///
/// # Errors
/// [`TargetError`]; nothing is an error that is not there.
pub fn unexport(subsystem: &Nqn) -> Result<(), TargetError> {
    unexport_in(Path::new(TARGET), subsystem)
}

/// Devices that others can use now.
pub fn exported_devices() -> Vec<PathBuf> {
    exported_in(Path::new(TARGET))
}

/// Has the target there.
fn prepare() -> io::Result<()> {
    if Path::new(TARGET).exists() {
        return Ok(());
    }
    modules::load(&MODULES)?;
    if Path::new(TARGET).exists() {
        return Ok(());
    }
    mount("configfs", Path::new(CONFIGFS), "configfs", FLAGS, "")?;
    fs::metadata(TARGET).map(drop)
}

fn exported_in(target: &Path) -> Vec<PathBuf> {
    let mut devices = Vec::new();
    for subsystem in entries(&target.join("subsystems")) {
        for namespace in entries(&subsystem.join("namespaces")) {
            if attribute(&namespace.join("enable")).as_deref() == Some("1") {
                devices.extend(attribute(&namespace.join("device_path")).map(PathBuf::from));
            }
        }
    }
    devices
}

fn export_in(target: &Path, wanted: &Export) -> Result<(), TargetError> {
    let subsystem = target.join("subsystems").join(wanted.nqn().as_str());
    make(&subsystem)?;
    set(&subsystem.join("attr_serial"), &wanted.serial())?;
    set(&subsystem.join("attr_model"), MODEL)?;
    let any = wanted.allowed == Allowed::Any;
    set(
        &subsystem.join("attr_allow_any_host"),
        if any { "1" } else { "0" },
    )?;
    if let Allowed::Hosts(hosts) = &wanted.allowed {
        for host in hosts {
            let known = target.join("hosts").join(host.as_str());
            make(&known)?;
            link(&known, &subsystem.join("allowed_hosts").join(host.as_str()))?;
        }
    }
    enable(&subsystem, wanted)?;
    let port = port_for(target, wanted.listen)?;
    let name = wanted.nqn();
    let listening = link(&subsystem, &port.join("subsystems").join(name.as_str()));
    listening.map_err(|error| match error {
        TargetError::Failed(_, error) => {
            remove_unused_port(&port);
            TargetError::Listen(wanted.listen, error)
        }
        other => other,
    })
}

/// Its only namespace. Ids are fixed: to who uses it, it is the same disk whenever it is exported.
fn enable(subsystem: &Path, wanted: &Export) -> Result<(), TargetError> {
    let namespace = subsystem.join("namespaces/1");
    make(&namespace)?;
    let device = wanted.device.display().to_string();
    let on = attribute(&namespace.join("enable")).as_deref() == Some("1");
    if on && attribute(&namespace.join("device_path")) == Some(device.clone()) {
        return Ok(());
    }
    if on {
        set(&namespace.join("enable"), "0")?;
    }
    set(&namespace.join("device_path"), &device)?;
    let id = wanted.id.to_string();
    set(&namespace.join("device_uuid"), &id)?;
    set(&namespace.join("device_nguid"), &id)?;
    set(&namespace.join("enable"), "1")
}

/// The port on that address, made if there is none.
fn port_for(target: &Path, listen: SocketAddr) -> Result<PathBuf, TargetError> {
    let (kind, address, number) = (family(listen), listen.ip(), listen.port());
    let ports = target.join("ports");
    let is = |port: &PathBuf| {
        let field = |name: &str| attribute(&port.join(name));
        field("addr_trtype").as_deref() == Some("tcp")
            && field("addr_traddr").and_then(|text| text.parse::<IpAddr>().ok()) == Some(address)
            && field("addr_trsvcid").and_then(|text| text.parse().ok()) == Some(number)
    };
    if let Some(port) = entries(&ports).into_iter().find(is) {
        return Ok(port);
    }
    let free = (1..MOST_PORTS).map(|number| ports.join(number.to_string()));
    let port = free.into_iter().find(|port| !port.exists());
    let port = port.ok_or_else(|| {
        TargetError::Failed(ports.clone(), io::Error::other("too many addresses"))
    })?;
    make(&port)?;
    set(&port.join("addr_trtype"), "tcp")?;
    set(&port.join("addr_adrfam"), kind)?;
    set(&port.join("addr_traddr"), &address.to_string())?;
    set(&port.join("addr_trsvcid"), &number.to_string())?;
    Ok(port)
}

fn family(listen: SocketAddr) -> &'static str {
    match listen {
        SocketAddr::V4(_) => "ipv4",
        SocketAddr::V6(_) => "ipv6",
    }
}

fn unexport_in(target: &Path, name: &Nqn) -> Result<(), TargetError> {
    for port in entries(&target.join("ports")) {
        let link = port.join("subsystems").join(name.as_str());
        if link.symlink_metadata().is_ok() {
            done(&link, fs::remove_file(&link))?;
        }
        remove_unused_port(&port);
    }
    let subsystem = target.join("subsystems").join(name.as_str());
    for host in entries(&subsystem.join("allowed_hosts")) {
        done(&host, fs::remove_file(&host))?;
    }
    for namespace in entries(&subsystem.join("namespaces")) {
        set(&namespace.join("enable"), "0")?;
        done(&namespace, fs::remove_dir(&namespace))?;
    }
    done(&subsystem, fs::remove_dir(&subsystem))?;
    for host in entries(&target.join("hosts")) {
        // Those that something else allows stay: the kernel refuses.
        let _ = fs::remove_dir(host);
    }
    Ok(())
}

/// A port that no subsystem is behind does not listen, and is in nobody's way but ours.
fn remove_unused_port(port: &Path) {
    if entries(&port.join("subsystems")).is_empty() {
        // What else is there was made by somebody else.
        let _ = fs::remove_dir(port);
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn make(folder: &Path) -> Result<(), TargetError> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|error| TargetError::Failed(folder.to_owned(), error)),
    }
}

fn link(to: &Path, at: &Path) -> Result<(), TargetError> {
    match symlink(to, at) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|error| TargetError::Failed(at.to_owned(), error)),
    }
}

/// Writes what is not so already: some of it cannot be written while it is used.
fn set(path: &Path, value: &str) -> Result<(), TargetError> {
    if attribute(path).as_deref() == Some(value) {
        return Ok(());
    }
    fs::write(path, value).map_err(|error| TargetError::Failed(path.to_owned(), error))
}

fn done(path: &Path, result: io::Result<()>) -> Result<(), TargetError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(TargetError::Failed(path.to_owned(), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel makes along with a folder.
    fn folders(target: &Path, export: &Export) {
        let subsystem = target.join("subsystems").join(export.nqn().as_str());
        for folder in [
            target.join("hosts"),
            target.join("ports/1/subsystems"),
            subsystem.join("namespaces"),
            subsystem.join("allowed_hosts"),
        ] {
            fs::create_dir_all(folder).unwrap();
        }
        for (field, value) in [
            ("trtype", "tcp\n"),
            ("traddr", "0.0.0.0\n"),
            ("trsvcid", "4420\n"),
        ] {
            let path = target.join("ports/1").join(format!("addr_{field}"));
            fs::write(path, value).unwrap();
        }
    }

    fn example(allowed: Allowed) -> Export {
        Export {
            id: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            device: "/dev/sdb1".into(),
            allowed,
            listen: "0.0.0.0:4420".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_written() {
        let target = tempfile::tempdir().unwrap();
        let target = target.path();
        let host: Nqn = "nqn.2014-08.org:friend".parse().unwrap();
        let export = example(Allowed::Hosts(vec![host.clone()]));
        folders(target, &export);
        assert!(exported_in(target).is_empty());
        // The second time there is nothing to be done.
        for _ in 0..2 {
            export_in(target, &export).unwrap();
        }
        assert_eq!(exported_in(target), [PathBuf::from("/dev/sdb1")]);
        let subsystem = target.join("subsystems").join(export.nqn().as_str());
        let read = |path: &str| fs::read_to_string(subsystem.join(path)).unwrap();
        assert_eq!(read("attr_allow_any_host"), "0");
        assert_eq!(read("attr_serial"), "cdef0123456789abcdef");
        assert_eq!(read("namespaces/1/device_uuid"), export.id.to_string());
        let allowed = subsystem.join("allowed_hosts").join(host.as_str());
        assert_eq!(
            fs::read_link(allowed).unwrap(),
            target.join("hosts").join(host.as_str())
        );
        let behind = target
            .join("ports/1/subsystems")
            .join(export.nqn().as_str());
        assert_eq!(fs::read_link(behind).unwrap(), subsystem);
    }

    #[test]
    fn everybody_is_allowed_only_when_it_is_said() {
        let target = tempfile::tempdir().unwrap();
        let export = example(Allowed::Any);
        folders(target.path(), &export);
        export_in(target.path(), &export).unwrap();
        let subsystem = target.path().join("subsystems").join(export.nqn().as_str());
        let any = fs::read_to_string(subsystem.join("attr_allow_any_host"));
        assert_eq!(any.unwrap(), "1");
        assert!(entries(&subsystem.join("allowed_hosts")).is_empty());
    }

    #[test]
    fn what_is_not_exported_is_not_missed() {
        let target = tempfile::tempdir().unwrap();
        unexport_in(target.path(), &example(Allowed::Any).nqn()).unwrap();
        assert!(exported_in(&target.path().join("none")).is_empty());
    }
}
