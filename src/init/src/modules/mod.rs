//! Kernel modules: finding them by name or by a device's alias, and loading them with what they depend on.

mod coldplug;
mod glob;
mod index;
mod modprobe;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lodge_host::boot::{ModuleFailure, ModuleReport};
use lodge_host::disk::FilesystemKind;
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

/// Modules are loaded by this many threads at once: much of the time drivers wait for their hardware.
const WORKERS: usize = 4;

/// Loads modules into this kernel and keeps count.
#[derive(Debug)]
pub struct Loader {
    index: ModuleIndex,
    /// Aliases already looked up, so that sixteen equal devices cost one search.
    seen: HashSet<String>,
    /// Parameters from the kernel's command line (`MODULE.NAME=VALUE`).
    parameters: HashMap<String, String>,
    progress: Mutex<Progress>,
}

/// What all workers know.
#[derive(Debug, Default)]
struct Progress {
    /// Names already in the kernel, or refused by it: neither is tried again.
    done: HashSet<String>,
    report: ModuleReport,
}

impl Loader {
    /// A loader for the running kernel. Without an index there is nothing to load, which the report says.
    pub fn new() -> Self {
        let dir = Path::new("/lib/modules").join(lodge_host::system::kernel_release());
        let mut progress = Progress::default();
        let index = ModuleIndex::read(&dir).unwrap_or_else(|error| {
            progress.fail("modules.dep", &format!("{}: {error}", dir.display()));
            ModuleIndex::default()
        });
        let loaded = fs::read_to_string("/proc/modules").unwrap_or_default();
        let loaded = loaded.lines().filter_map(|line| line.split(' ').next());
        progress.done.extend(loaded.map(str::to_owned));
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        Self {
            index,
            seen: HashSet::new(),
            parameters: parameters(&command_line),
            progress: Mutex::new(progress),
        }
    }

    /// What was loaded and refused so far.
    pub fn report(&self) -> ModuleReport {
        self.progress().report.clone()
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

    /// Loads modules by their names, and whatever serves devices with these aliases.
    ///
    /// A name that does not exist, neither as a file nor in the kernel, is a failure; an alias nothing serves is not.
    pub fn load(&mut self, names: &[&str], aliases: &[String]) {
        let mut chains = Vec::new();
        for name in names {
            let modules = self.index.resolve(name);
            if modules.is_empty() && !self.index.is_builtin(name) {
                self.progress().fail(name, "there is no such module");
            }
            chains.extend(modules.into_iter().map(|module| self.index.order(module)));
        }
        for alias in aliases {
            if self.seen.insert(alias.clone()) {
                let modules = self.index.resolve(alias).into_iter();
                chains.extend(modules.map(|module| self.index.order(module)));
            }
        }
        self.run(chains);
    }

    /// Loads a filesystem. The kernel would ask for it at the mount; a process of its own for that takes longer.
    pub fn load_filesystem(&mut self, kind: FilesystemKind) {
        let mut aliases = vec![format!("fs-{}", kind.name())];
        if kind == FilesystemKind::Vfat {
            // The code page of file names on FAT.
            aliases.push("nls_cp437".to_owned());
        }
        self.load(&[], &aliases);
    }

    /// Works through chains of modules, each in its order.
    fn run(&self, chains: Vec<Vec<String>>) {
        let chains: VecDeque<Vec<String>> = {
            let progress = self.progress();
            let new =
                |chain: &Vec<String>| !chain.iter().all(|module| progress.done.contains(module));
            chains.into_iter().filter(new).collect()
        };
        let helpers = chains.len().min(WORKERS).saturating_sub(1);
        let queue = Mutex::new(chains);
        let work = || {
            while let Some(chain) = next(&queue) {
                for module in &chain {
                    self.insert(module);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                // Without helpers this thread does all of it.
                if std::thread::Builder::new()
                    .spawn_scoped(scope, work)
                    .is_err()
                {
                    break;
                }
            }
            work();
        });
    }

    /// Puts one file into the kernel, unless something it needs was refused.
    ///
    /// Two workers may come upon the same module: the kernel lets the second wait for the first.
    fn insert(&self, module: &str) {
        {
            let mut progress = self.progress();
            if progress.done.contains(module) {
                return;
            }
            let refused = self
                .index
                .dependencies(module)
                .find(|name| progress.has_failed(name));
            if let Some(name) = refused.map(str::to_owned) {
                progress.fail(module, &format!("it needs {name}, which was refused"));
                return;
            }
        }
        let parameters = self.parameters.get(module).map_or("", String::as_str);
        let result = match self.index.file(module) {
            Some(path) => insert_file(&path, parameters),
            None => Err("its file is not listed in modules.dep".to_owned()),
        };
        let mut progress = self.progress();
        match result {
            Ok(()) => progress.loaded(module),
            Err(reason) => progress.fail(module, &reason),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Loader {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    fn loaded(&mut self, module: &str) {
        if self.done.insert(module.to_owned()) {
            tracing::debug!("module {module} loaded");
            self.report.loaded += 1;
        }
    }

    fn fail(&mut self, module: &str, reason: &str) {
        if self.done.insert(module.to_owned()) {
            tracing::debug!("module {module}: {reason}");
            self.report.failed.push(ModuleFailure {
                name: module.to_owned(),
                reason: reason.to_owned(),
            });
        }
    }

    fn has_failed(&self, module: &str) -> bool {
        self.report
            .failed
            .iter()
            .any(|failure| failure.name == module)
    }
}

fn next(queue: &Mutex<VecDeque<Vec<String>>>) -> Option<Vec<String>> {
    queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .pop_front()
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
