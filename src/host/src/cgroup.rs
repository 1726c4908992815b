//! Control groups (v2): one leaf per guest, so that limits hold, usage is exact and a kill reaches everything.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the unified hierarchy is mounted.
pub const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// Controllers a leaf wants; those the kernel lacks are done without.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "io"];

/// Where the unified hierarchy really is: [`CGROUP_MOUNT`] on the appliance, elsewhere on some older systems.
pub fn mount_point() -> Option<PathBuf> {
    let mounts = crate::disk::mounts().ok()?;
    mounts
        .into_iter()
        .find(|m| m.filesystem == "cgroup2")
        .map(|m| m.target)
}

/// A group that holds leaves and no processes.
#[derive(Debug, Clone)]
pub struct CgroupTree {
    path: PathBuf,
}

impl CgroupTree {
    /// Makes (or finds) the group `name` under `mount`, with every controller there is handed on to its leaves.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when `mount` is not a unified hierarchy.
    pub fn create(mount: &Path, name: &str) -> io::Result<Self> {
        check_name(name)?;
        let offered =
            fs::read_to_string(mount.join("cgroup.controllers")).map_err(|e| match e.kind() {
                ErrorKind::NotFound => io::Error::new(
                    ErrorKind::Unsupported,
                    format!("{} is not a cgroup v2 hierarchy", mount.display()),
                ),
                _ => e,
            })?;
        let path = mount.join(name);
        create_dir(&path)?;
        hand_on(mount, &offered);
        let offered = fs::read_to_string(path.join("cgroup.controllers"))?;
        hand_on(&path, &offered);
        Ok(Self { path })
    }

    /// The controllers leaves really have.
    pub fn controllers(&self) -> io::Result<Vec<String>> {
        let text = fs::read_to_string(self.path.join("cgroup.subtree_control"))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Makes (or finds) a leaf. `name` is a plain file name, such as a guest's UUID.
    pub fn leaf(&self, name: &str) -> io::Result<Cgroup> {
        check_name(name)?;
        let path = self.path.join(name);
        create_dir(&path)?;
        Ok(Cgroup { path })
    }

    /// The processors leaves may be kept to, as cpuset(7) lists them. [`ErrorKind::NotFound`] without that controller.
    pub fn processors(&self) -> io::Result<String> {
        let text = fs::read_to_string(self.path.join("cpuset.cpus.effective"))?;
        Ok(text.trim().to_owned())
    }

    /// Every leaf there is, by name.
    pub fn leaves(&self) -> io::Result<Vec<(String, Cgroup)>> {
        let mut leaves = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                leaves.push((name, Cgroup { path: entry.path() }));
            }
        }
        Ok(leaves)
    }
}

/// A leaf: a group with processes.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
}

/// Limits of a leaf. `None` lifts a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// Share of processor time under contention, 1 to 10000; the default is 100.
    pub cpu_weight: Option<u32>,
    /// Most processor time, in thousandths of one processor.
    pub cpu_max_millis: Option<u64>,
    /// The processors it runs on, as cpuset(7) lists them (`0-3,8`).
    pub cpus: Option<String>,
    /// Most memory, in bytes; the kernel kills beyond it.
    pub memory_max: Option<u64>,
    /// Most processes and threads.
    pub pids_max: Option<u64>,
}

/// What a leaf has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupUsage {
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Of it, in user space (for a monitor this includes the guest's own time), in microseconds.
    pub cpu_user_us: u64,
    /// Time it was held back by `cpu_max_millis`, in microseconds.
    pub cpu_throttled_us: u64,
    /// Memory now, in bytes, page cache included.
    pub memory: u64,
    /// Most memory ever, in bytes; zero on kernels before 5.19.
    pub memory_peak: u64,
    /// Times the kernel killed something for want of memory.
    pub oom_kills: u64,
    /// Processes and threads now.
    pub pids: u64,
}

/// One processor's worth of time is shared out in slices of this length, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// What a group's `cpu.weight` and `cpu.max` say when nothing was said about them.
const DEFAULT_WEIGHT: &str = "100";
const NO_QUOTA: &str = "max 100000";

/// The processors that there are, and those that may come.
const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

impl Cgroup {
    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process, with all its threads, into the leaf.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Sets every limit, also of processes that are in it already. Without their controllers, memory and numbers are not limited.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when a limit on processors has no controller. Some of the limits may have been set.
    pub fn set_limits(&self, limits: &CgroupLimits) -> io::Result<()> {
        let max = |value: Option<u64>| value.map_or_else(|| "max".to_owned(), |v| v.to_string());
        let weight = limits.cpu_weight.map(|weight| weight.to_string());
        self.write_wanted("cpu.weight", weight.as_deref(), DEFAULT_WEIGHT)?;
        // Below one millisecond per slice the kernel refuses.
        let quota = limits
            .cpu_max_millis
            .map(|m| m.saturating_mul(CPU_PERIOD_US / 1000).max(1000))
            .map(|quota| format!("{quota} {CPU_PERIOD_US}"));
        self.write_wanted("cpu.max", quota.as_deref(), NO_QUOTA)?;
        match &limits.cpus {
            Some(cpus) => self.write("cpuset.cpus", cpus)?,
            None => self.give_all_cpus()?,
        }
        self.write_optional("memory.max", &max(limits.memory_max))?;
        self.write_optional("pids.max", &max(limits.pids_max))
    }

    /// What it has used. Files of controllers the kernel lacks count as zero.
    pub fn usage(&self) -> io::Result<CgroupUsage> {
        let cpu = self.read("cpu.stat")?;
        let memory_events = self.read_optional("memory.events")?;
        Ok(CgroupUsage {
            cpu_us: keyed(&cpu, "usage_usec"),
            cpu_user_us: keyed(&cpu, "user_usec"),
            cpu_throttled_us: keyed(&cpu, "throttled_usec"),
            memory: number(&self.read_optional("memory.current")?),
            memory_peak: number(&self.read_optional("memory.peak")?),
            oom_kills: keyed(&memory_events, "oom_kill"),
            pids: number(&self.read_optional("pids.current")?),
        })
    }

    /// Whether any process is in it.
    pub fn populated(&self) -> io::Result<bool> {
        Ok(keyed(&self.read("cgroup.events")?, "populated") != 0)
    }

    /// Kills every process in it at once (`SIGKILL`). They are gone when [`Cgroup::populated`] says no.
    pub fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Removes the leaf. [`ErrorKind::ResourceBusy`] while a process is in it; one that is already gone is fine.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.path.join(file))
    }

    fn read_optional(&self, file: &str) -> io::Result<String> {
        match self.read(file) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
            other => other,
        }
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        // Not `fs::write`: the kernel's files are there already, and must not be created elsewhere by mistake.
        use io::Write;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(self.path.join(file))?;
        file.write_all(value.as_bytes())
    }

    /// Lets it run on any processor. A group that was given some cannot be given none, which meant any, while it has processes.
    fn give_all_cpus(&self) -> io::Result<()> {
        if self.read_optional("cpuset.cpus")?.trim().is_empty() {
            return Ok(());
        }
        let possible = fs::read_to_string(POSSIBLE_CPUS)?;
        self.write("cpuset.cpus", possible.trim())
    }

    /// Writes what is wanted, or `otherwise` where the file is there at all.
    fn write_wanted(&self, file: &str, wanted: Option<&str>, otherwise: &str) -> io::Result<()> {
        match wanted {
            Some(value) => self.write(file, value),
            None => self.write_optional(file, otherwise),
        }
    }

    fn write_optional(&self, file: &str, value: &str) -> io::Result<()> {
        match self.write(file, value) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// A group's name is one component of a path, and never one of the kernel's files.
fn check_name(name: &str) -> io::Result<()> {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if name.is_empty() || name.len() > 128 || !plain {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "not a name for a control group",
        ));
    }
    Ok(())
}

fn create_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Hands controllers on to the groups inside `group`, one by one, because one that is refused fails the whole write.
fn hand_on(group: &Path, offered: &str) {
    let group = Cgroup {
        path: group.to_owned(),
    };
    for name in offered
        .split_whitespace()
        .filter(|name| CONTROLLERS.contains(name))
    {
        if let Err(error) = group.write("cgroup.subtree_control", &format!("+{name}")) {
            tracing::warn!(controller = name, group = %group.path.display(), %error, "cgroup controller not available");
        }
    }
}

/// The value of `key` in lines `key value`.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .map_or(0, number)
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn keyed_values_need_the_whole_key() {
        let text = "usage_usec 12\nuser_usec 7\nnr_throttled 1\nthrottled_usec 3\n";
        assert_eq!(keyed(text, "usage_usec"), 12);
        assert_eq!(keyed(text, "throttled_usec"), 3);
        assert_eq!(keyed(text, "throttled"), 0);
    }

    #[test]
    fn names_cannot_leave_the_tree() {
        for name in ["", ".", "..", "a/b", "cgroup.procs", "a b", "a\n"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("0190a3e2-7c1b-7f3e-8a7e-000000000001").is_ok());
    }

    #[test]
    fn not_a_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        let error = CgroupTree::create(dir.path(), "x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    /// A group as the kernel makes it, of which only some files are looked at.
    fn group(files: &[&str]) -> (tempfile::TempDir, Cgroup) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let path = dir.path().to_owned();
        (dir, Cgroup { path })
    }

    #[test]
    fn limits_on_processors_need_their_controllers_and_others_do_not() {
        let limits = CgroupLimits {
            cpu_weight: Some(200),
            cpu_max_millis: Some(1500),
            cpus: Some("0-3,8".to_owned()),
            memory_max: Some(64 << 20),
            pids_max: None,
        };
        let (_dir, leaf) = group(&["cpu.weight", "cpu.max", "cpuset.cpus"]);
        leaf.set_limits(&limits).unwrap();
        assert_eq!(leaf.read("cpu.weight").unwrap(), "200");
        assert_eq!(leaf.read("cpu.max").unwrap(), "150000 100000");
        assert_eq!(leaf.read("cpuset.cpus").unwrap(), "0-3,8");
        let (_dir, leaf) = group(&["cpu.weight", "cpu.max"]);
        let error = leaf.set_limits(&limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let (_dir, leaf) = group(&[]);
        leaf.set_limits(&CgroupLimits::default()).unwrap();
    }

    /// On a machine where this user may make groups: limits, membership, usage, kill, removal.
    #[test]
    fn a_leaf_holds_and_kills_a_process() {
        let name = format!("lodge-test-{}", std::process::id());
        let Ok(tree) = CgroupTree::create(&mount_point().unwrap_or_default(), &name) else {
            eprintln!("skipped: no writable cgroup v2 hierarchy here");
            return;
        };
        let leaf = tree.leaf("guest").unwrap();
        let controllers = tree.controllers().unwrap();
        let has = |name: &str| controllers.iter().any(|controller| controller == name);
        let limits = CgroupLimits {
            cpu_weight: has("cpu").then_some(200),
            cpu_max_millis: has("cpu").then_some(1500),
            cpus: has("cpuset").then(|| "0".to_owned()),
            memory_max: Some(64 << 20),
            pids_max: Some(16),
        };
        leaf.set_limits(&limits).unwrap();
        if has("cpu") {
            assert_eq!(leaf.read("cpu.weight").unwrap().trim(), "200");
            assert_eq!(leaf.read("cpu.max").unwrap().trim(), "150000 100000");
        }
        if has("cpuset") {
            assert!(!tree.processors().unwrap().is_empty());
            assert_eq!(leaf.read("cpuset.cpus").unwrap().trim(), "0");
        }
        leaf.set_limits(&CgroupLimits::default()).unwrap();
        if has("cpu") {
            assert_eq!(leaf.read("cpu.weight").unwrap().trim(), DEFAULT_WEIGHT);
            assert_eq!(leaf.read("cpu.max").unwrap().trim(), NO_QUOTA);
        }
        if has("cpuset") {
            let possible = fs::read_to_string(POSSIBLE_CPUS).unwrap();
            assert_eq!(leaf.read("cpuset.cpus").unwrap(), possible);
        }
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        leaf.add(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(leaf.populated().unwrap());
        // So it is with a process in it.
        leaf.set_limits(&limits).unwrap();
        leaf.set_limits(&CgroupLimits::default()).unwrap();
        assert_eq!(leaf.remove().unwrap_err().kind(), ErrorKind::ResourceBusy);
        // On a machine whose controllers are taken by the old hierarchies the values are zero, but can be read.
        leaf.usage().unwrap();
        assert_eq!(tree.leaves().unwrap().len(), 1);
        leaf.kill().unwrap();
        child.wait().unwrap();
        leaf.remove().unwrap();
        leaf.remove().unwrap();
        fs::remove_dir(&tree.path).unwrap();
    }
}
