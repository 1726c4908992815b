//! The kernel's connections to targets.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::{HostIdentity, Nqn};
use crate::disk::attribute;
use crate::modules;

/// Where the kernel is told of a connection.
const FABRICS: &str = "/dev/nvme-fabrics";

/// Where it shows its controllers.
const CONTROLLERS: &str = "/sys/class/nvme";

const MODULES: [&str; 2] = ["nvme-fabrics", "nvme-tcp"];

/// How long what is read and written waits for a target that does not answer. Then it fails.
pub const FAIL_AFTER: Duration = Duration::from_secs(120);

/// Seconds between two signs of life, and between two tries to connect again, which never end.
const KEEP_ALIVE: u32 = 10;
const RECONNECT: u32 = 5;

/// A connection that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Address and port of the target.
    pub target: SocketAddr,
    /// The subsystem.
    pub nqn: Nqn,
    /// Who this host is.
    pub host: HostIdentity,
}

impl Wanted {
    fn options(&self) -> String {
        let (address, port) = (self.target.ip(), self.target.port());
        let (nqn, host) = (&self.nqn, self.host);
        let (hostnqn, fail) = (host.nqn(), FAIL_AFTER.as_secs());
        format!(
            "transport=tcp,traddr={address},trsvcid={port},nqn={nqn},hostnqn={hostnqn},hostid={},keep_alive_tmo={KEEP_ALIVE},\
             reconnect_delay={RECONNECT},ctrl_loss_tmo=-1,fast_io_fail_tmo={fail}",
            host.0
        )
    }

    /// Whether a controller is what is wanted.
    pub fn is(&self, controller: &Controller) -> bool {
        controller.nqn == self.nqn.as_str() && controller.target == Some(self.target)
    }
}

/// A controller: one end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// The kernel's name, e.g. `nvme1`.
    pub name: String,
    /// The subsystem.
    pub nqn: String,
    /// Address and port of the target.
    pub target: Option<SocketAddr>,
    /// As whom this host is connected.
    pub host: String,
    /// How it is.
    pub state: ControllerState,
    /// Its disks, by the kernel's names.
    pub disks: Vec<String>,
}

/// How a controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControllerState {
    /// It works.
    Live,
    /// The kernel connects, or tries to again.
    Connecting,
    /// It is about to go.
    Ending,
}

/// Connects. Returns when there is a controller, or it is clear that there will be none: after minutes, where the target stops in the
/// middle. The disks follow. Returns the kernel's name of the controller.
///
/// # Errors
/// The kernel's; it does not say much.
pub fn connect(wanted: &Wanted) -> io::Result<String> {
    modules::load(&MODULES)?;
    let mut fabrics = File::options().read(true).write(true).open(FABRICS)?;
    let options = wanted.options();
    // One call: it is the whole request.
    let taken = fabrics.write(options.as_bytes())?;
    if taken != options.len() {
        return Err(io::Error::other("the kernel did not take the request"));
    }
    let mut answer = [0; 128];
    let length = fabrics.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    instance(&answer).ok_or_else(|| io::Error::other("the kernel does not name the controller"))
}

/// `instance=0,cntlid=1`
fn instance(answer: &str) -> Option<String> {
    let mut fields = answer.trim().split(',');
    let number = fields.find_map(|field| field.strip_prefix("instance="))?;
    let number: u32 = number.parse().ok()?;
    Some(format!("nvme{number}"))
}

/// Ends a connection. Its disks are gone on return.
///
/// # Errors
/// When there is none of that name.
pub fn disconnect(controller: &str) -> io::Result<()> {
    let path = Path::new(CONTROLLERS).join(controller);
    fs::write(path.join("delete_controller"), "1")
}

/// The controllers that are reached by TCP.
///
/// # Errors
/// When they cannot be listed.
pub fn controllers() -> io::Result<Vec<Controller>> {
    controllers_in(Path::new(CONTROLLERS))
}

fn controllers_in(class: &Path) -> io::Result<Vec<Controller>> {
    let entries = match fs::read_dir(class) {
        // The kernel has no NVMe at all.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: Vec<Controller> = entries
        .flatten()
        .filter_map(|entry| controller(&entry.path()))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Reads one; `None` when it is something else, or has vanished meanwhile.
fn controller(path: &Path) -> Option<Controller> {
    let field = |name: &str| attribute(&path.join(name));
    if field("transport")? != "tcp" {
        return None;
    }
    let entries = fs::read_dir(path).ok()?.flatten();
    let disks: BTreeSet<String> = entries
        .filter_map(|entry| disk_of(entry.file_name().to_str()?))
        .collect();
    Some(Controller {
        name: path.file_name()?.to_str()?.to_owned(),
        nqn: field("subsysnqn")?,
        target: target(&field("address")?),
        host: field("hostnqn").unwrap_or_default(),
        state: match field("state")?.as_str() {
            "live" => ControllerState::Live,
            "new" | "resetting" | "connecting" => ControllerState::Connecting,
            _ => ControllerState::Ending,
        },
        disks: disks.into_iter().collect(),
    })
}

/// `traddr=10.0.0.5,trsvcid=4420,src_addr=10.0.0.1`
fn target(address: &str) -> Option<SocketAddr> {
    let field = |name: &str| {
        let mut fields = address.split(',').filter_map(|field| field.split_once('='));
        fields
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    };
    let ip: IpAddr = field("traddr")?.parse().ok()?;
    Some(SocketAddr::new(ip, field("trsvcid")?.parse().ok()?))
}

/// The disk that an entry below a controller is, or is a path to: `nvme0n1`, and `nvme0c1n1`, too.
fn disk_of(entry: &str) -> Option<String> {
    let (subsystem, rest) = number(entry.strip_prefix("nvme")?)?;
    let rest = match rest.strip_prefix('c') {
        Some(path) => number(path)?.1,
        None => rest,
    };
    let (namespace, rest) = number(rest.strip_prefix('n')?)?;
    rest.is_empty()
        .then(|| format!("nvme{subsystem}n{namespace}"))
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            target: "[fd00::5]:4420".parse().unwrap(),
            nqn: "nqn.2014-08.org.nvmexpress:disk".parse().unwrap(),
            host: HostIdentity(Uuid::nil()),
        }
    }

    #[test]
    fn the_kernel_is_told_all_that_matters() {
        let options = wanted().options();
        assert!(
            options.starts_with("transport=tcp,traddr=fd00::5,trsvcid=4420,nqn=nqn.2014-08.org.nvmexpress:disk,hostnqn=nqn."),
            "{options}"
        );
        assert!(
            options.ends_with(",ctrl_loss_tmo=-1,fast_io_fail_tmo=120"),
            "{options}"
        );
        assert_eq!(instance("instance=12,cntlid=1\n").unwrap(), "nvme12");
        for wrong in ["", "cntlid=1", "instance=", "instance=../x"] {
            assert_eq!(instance(wrong), None);
        }
    }

    #[test]
    fn disks_of_a_controller() {
        assert_eq!(disk_of("nvme0c1n2").as_deref(), Some("nvme0n2"));
        assert_eq!(disk_of("nvme10n1").as_deref(), Some("nvme10n1"));
        for other in ["nvme0", "nvme0n1p1", "hwmon3", "nvmen1", "nvme0c1", "ng0n1"] {
            assert_eq!(disk_of(other), None, "{other}");
        }
    }

    #[test]
    fn controllers_are_read() {
        let class = tempfile::tempdir().unwrap();
        let make = |name: &str, fields: &[(&str, &str)]| {
            let path = class.path().join(name);
            fs::create_dir(&path).unwrap();
            for (field, value) in fields {
                fs::write(path.join(field), value).unwrap();
            }
            path
        };
        make("nvme0", &[("transport", "pcie\n"), ("state", "live\n")]);
        let remote = make(
            "nvme1",
            &[
                ("transport", "tcp\n"),
                ("subsysnqn", "nqn.2014-08.org.nvmexpress:disk\n"),
                ("hostnqn", "nqn.2014-08.org:me\n"),
                ("address", "traddr=fd00::5,trsvcid=4420,src_addr=fd00::1\n"),
                ("state", "connecting\n"),
            ],
        );
        fs::create_dir(remote.join("nvme1c1n1")).unwrap();
        let found = controllers_in(class.path()).unwrap();
        let [controller] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(wanted().is(controller));
        assert_eq!(controller.state, ControllerState::Connecting);
        assert_eq!(controller.disks, ["nvme1n1"]);
        fs::write(remote.join("state"), "dead\n").unwrap();
        let found = controllers_in(class.path()).unwrap();
        assert_eq!(found[0].state, ControllerState::Ending);
        assert!(
            controllers_in(&class.path().join("none"))
                .unwrap()
                .is_empty()
        );
    }
}
