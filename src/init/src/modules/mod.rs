//! Kernel modules: finding them by name or by a device's alias, and loading them with what they depend on.

mod coldplug;
mod glob;
mod index;
mod modprobe;

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;

use lodge_host::boot::{ModuleFailure, ModuleReport};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

pub use coldplug::device_aliases;
pub use index::{ModuleIndex, normalize};
pub use modprobe::modprobe;

/// `MODULE_INIT_COMPRESSED_FILE` of `linux/module.h`: the kernel unpacks the file itself.
const COMPRESSED: u32 = 4;

/// What a driver whose hardware is not there is reported with.
pub(crate) const NO_HARDWARE: &str = "no such hardware here";

/// How deep soft dependencies may lead to each other.
const SOFT_DEPTH: u32 = 4;

/// Loads modules into this kernel and keeps count.
#[derive(Debug)]
pub struct Loader {
    index: ModuleIndex,
    /// Names already in the kernel, or refused by it: neither is tried again.
    done: HashSet<String>,
    /// Aliases already looked up, so that sixteen equal devices cost one search.
    seen: HashSet<String>,
    /// Parameters from the kernel's command line (`MODULE.NAME=VALUE`).
    parameters: HashMap<String, String>,
    report: ModuleReport,
}

impl Loader {
    /// A loader for the running kernel. Without an index there is nothing to load, which the report says.
    pub fn new() -> Self {
        let dir = Path::new("/lib/modules").join(lodge_host::system::kernel_release());
        let mut report = ModuleReport::default();
        let index = ModuleIndex::read(&dir).unwrap_or_else(|error| {
            report.failed.push(ModuleFailure {
                name: "modules.dep".to_owned(),
                reason: format!("{}: {error}", dir.display()),
            });
            ModuleIndex::default()
        });
        let loaded = fs::read_to_string("/proc/modules").unwrap_or_default();
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        Self {
            index,
            done: loaded
                .lines()
                .filter_map(|line| line.split(' ').next())
                .map(str::to_owned)
                .collect(),
            seen: HashSet::new(),
            parameters: parameters(&command_line),
            report,
        }
    }

    /// What was loaded and refused so far.
    pub fn report(&self) -> &ModuleReport {
        &self.report
    }

    /// Makes the device nodes whose drivers load when they are opened. Says what did not work.
    pub fn make_static_nodes(&self) -> Vec<String> {
        let nodes = self.index.static_nodes().into_iter();
        let results =
            nodes.map(|(name, minor)| (name, make_node(&Path::new("/dev").join(name), minor)));
        results
            .filter_map(|(name, result)| result.err().map(|error| format!("/dev/{name}: {error}")))
            .collect()
    }

    /// Loads a module by its name. One that does not exist, neither as a file nor in the kernel, is a failure.
    pub fn load(&mut self, name: &str) {
        let modules: Vec<String> = self
            .index
            .resolve(name)
            .into_iter()
            .map(str::to_owned)
            .collect();
        if modules.is_empty() && !self.index.is_builtin(name) && self.done.insert(normalize(name)) {
            self.fail(name, "there is no such module");
        }
        for module in modules {
            self.load_module(&module, 0);
        }
    }

    /// Loads whatever serves a device with this alias; usually nothing does, or it is built in. Says whether
    /// anything was loaded.
    pub fn load_alias(&mut self, alias: &str) -> bool {
        if !self.seen.insert(alias.to_owned()) {
            return false;
        }
        let before = self.report.loaded;
        let modules: Vec<String> = self
            .index
            .resolve(alias)
            .into_iter()
            .map(str::to_owned)
            .collect();
        for module in modules {
            self.load_module(&module, 0);
        }
        self.report.loaded != before
    }

    /// Loads one module after everything it needs. Says whether it is there.
    fn load_module(&mut self, module: &str, depth: u32) -> bool {
        if self.done.contains(module) {
            return self.is_there(module);
        }
        let soft = if depth < SOFT_DEPTH {
            self.index.soft(module)
        } else {
            index::Soft::default()
        };
        self.load_soft(&soft.pre, depth);
        let depends: Vec<String> = self.index.dependencies(module).map(str::to_owned).collect();
        let ready = depends.iter().all(|name| self.insert(name)) && self.insert(module);
        if ready {
            self.load_soft(&soft.post, depth);
        }
        ready
    }

    fn load_soft(&mut self, names: &[String], depth: u32) {
        for name in names {
            let modules: Vec<String> = self
                .index
                .resolve(name)
                .into_iter()
                .map(str::to_owned)
                .collect();
            for module in modules {
                self.load_module(&module, depth + 1);
            }
        }
    }

    /// Puts one file into the kernel.
    fn insert(&mut self, module: &str) -> bool {
        if self.done.contains(module) {
            return self.is_there(module);
        }
        let Some(path) = self.index.file(module) else {
            self.fail(module, "its file is not listed in modules.dep");
            return false;
        };
        let parameters = self.parameters.get(module).map_or("", String::as_str);
        match insert_file(&path, parameters) {
            Ok(()) => {
                tracing::debug!("module {module} loaded");
                self.done.insert(module.to_owned());
                self.report.loaded += 1;
                true
            }
            Err(reason) => {
                self.fail(module, &reason);
                false
            }
        }
    }

    /// Of a module that was tried: whether the kernel took it.
    fn is_there(&self, module: &str) -> bool {
        !self
            .report
            .failed
            .iter()
            .any(|failure| failure.name == module)
    }

    fn fail(&mut self, module: &str, reason: &str) {
        tracing::debug!("module {module}: {reason}");
        self.done.insert(module.to_owned());
        self.report.failed.push(ModuleFailure {
            name: module.to_owned(),
            reason: reason.to_owned(),
        });
    }
}

impl Default for Loader {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a node for a miscellaneous device, for root only.
fn make_node(path: &Path, minor: u32) -> std::io::Result<()> {
    const MISC_MAJOR: u64 = 10;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let device = makedev(MISC_MAJOR, minor.into());
    match mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, device) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// finit_module(2). A module that is there already is fine.
fn insert_file(path: &Path, parameters: &str) -> Result<(), String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let parameters = CString::new(parameters).unwrap_or_default();
    let compressed = path.extension().is_some_and(|extension| extension != "ko");
    let flags = if compressed {
        ModuleInitFlags::from_bits_retain(COMPRESSED)
    } else {
        ModuleInitFlags::empty()
    };
    match finit_module(&file, &parameters, flags) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        // What drivers answer when their hardware is not there.
        Err(Errno::ENODEV) => Err(NO_HARDWARE.to_owned()),
        Err(Errno::EOPNOTSUPP) if compressed => {
            Err("this kernel does not load compressed modules".to_owned())
        }
        Err(errno) => Err(errno.desc().to_owned()),
    }
}

/// `MODULE.NAME=VALUE` words of the kernel's command line, joined by module.
fn parameters(command_line: &str) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = HashMap::new();
    for word in command_line.split_whitespace() {
        let key = word.split('=').next().unwrap_or(word);
        if let Some((module, _)) = key.split_once('.') {
            let list = all.entry(normalize(module)).or_default();
            if !list.is_empty() {
                list.push(' ');
            }
            list.push_str(&word[module.len() + 1..]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_on_the_command_line() {
        let all =
            parameters("quiet kvm-amd.nested=0 root=/dev/sda1 kvm_amd.npt=1 usb.x lodge.log=debug");
        assert_eq!(all["kvm_amd"], "nested=0 npt=1");
        assert_eq!(all["usb"], "x");
        assert!(!all.contains_key("root"));
    }
}
