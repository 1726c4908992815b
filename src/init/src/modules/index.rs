//! What `depmod` wrote about the kernel's modules: files, dependencies, aliases.
//!
//! The text files are read, not the binary ones: they are small here, and their format is documented and simple.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::glob;

/// How deep soft dependencies may lead to each other.
const SOFT_DEPTH: u32 = 4;

/// The modules of one kernel.
#[derive(Debug, Default)]
pub struct ModuleIndex {
    dir: PathBuf,
    /// Module name to its file and what it depends on, from `modules.dep`.
    modules: HashMap<String, Entry>,
    /// Names built into the kernel.
    builtin: Vec<String>,
    /// Alias patterns by what is before the first colon (the bus), or by themselves where there is none.
    aliases: HashMap<String, Vec<Alias>>,
    /// Soft dependencies: load before, load after.
    soft: HashMap<String, Soft>,
}

#[derive(Debug, Default)]
struct Entry {
    file: String,
    depends: Vec<String>,
}

#[derive(Debug, Default, Clone)]
struct Soft {
    pre: Vec<String>,
    post: Vec<String>,
}

#[derive(Debug)]
struct Alias {
    pattern: String,
    prefix: usize,
    module: String,
}

/// A module in file names has either hyphens or underscores; the kernel only knows underscores.
pub fn normalize(name: &str) -> String {
    name.replace('-', "_")
}

/// The module's name in the path of its file.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normalize(file.split(".ko").next().unwrap_or(file))
}

impl ModuleIndex {
    /// Reads the indexes in `dir`, which is `/lib/modules/RELEASE`.
    ///
    /// # Errors
    /// When `modules.dep` cannot be read. The others may be missing.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut index = Self {
            dir: dir.to_owned(),
            ..Self::default()
        };
        index.parse_dep(&fs::read_to_string(dir.join("modules.dep"))?);
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        index.parse_alias(&text("modules.alias"));
        index.parse_softdep(&text("modules.softdep"));
        index.builtin = text("modules.builtin").lines().map(name_of).collect();
        index.builtin.sort_unstable();
        Ok(index)
    }

    /// Lines `FILE: DEPENDENCY…`, paths relative to the folder.
    fn parse_dep(&mut self, text: &str) {
        for line in text.lines() {
            let Some((file, depends)) = line.split_once(':') else {
                continue;
            };
            let entry = Entry {
                file: file.to_owned(),
                depends: depends.split_whitespace().map(name_of).collect(),
            };
            self.modules.insert(name_of(file), entry);
        }
    }

    /// Lines `alias PATTERN MODULE`.
    fn parse_alias(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some("alias"), Some(pattern), Some(module)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let alias = Alias {
                prefix: glob::literal_prefix(pattern).len(),
                pattern: pattern.to_owned(),
                module: normalize(module),
            };
            self.aliases
                .entry(bus(pattern).to_owned())
                .or_default()
                .push(alias);
        }
    }

    /// Lines `softdep MODULE [pre: NAME…] [post: NAME…]`.
    fn parse_softdep(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else {
                continue;
            };
            let soft = self.soft.entry(normalize(module)).or_default();
            let mut list = &mut soft.pre;
            for word in words {
                match word {
                    "pre:" => list = &mut soft.pre,
                    "post:" => list = &mut soft.post,
                    name => list.push(name.to_owned()),
                }
            }
        }
    }

    /// The modules a name or alias stands for: itself if there is such a module, else every module one of whose aliases
    /// matches, in the order of the file. Nothing for what is built in or not known.
    pub fn resolve(&self, name: &str) -> Vec<&str> {
        let normal = normalize(name);
        if let Some((module, _)) = self.modules.get_key_value(&normal) {
            return vec![module];
        }
        if self.is_builtin(&normal) {
            return Vec::new();
        }
        let mut found: Vec<&str> = Vec::new();
        // Names without a colon are written with hyphens or underscores, like modules.
        for text in [name, normal.as_str()] {
            for key in keys(text) {
                for alias in self.aliases.get(key).into_iter().flatten() {
                    let fits = text.starts_with(&alias.pattern[..alias.prefix])
                        && glob::matches(&alias.pattern, text);
                    if fits && !found.contains(&alias.module.as_str()) {
                        found.push(&alias.module);
                    }
                }
            }
            if name == normal || name.contains(':') {
                break;
            }
        }
        found
    }

    /// Whether the kernel has it without loading.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.binary_search(&normalize(name)).is_ok()
    }

    /// The file of a module.
    pub fn file(&self, module: &str) -> Option<PathBuf> {
        self.modules
            .get(module)
            .map(|entry| self.dir.join(&entry.file))
    }

    /// What must be loaded before `module`, in the order to load it. `depmod` lists all of it, nearest first.
    pub fn dependencies(&self, module: &str) -> impl Iterator<Item = &str> {
        let depends = self
            .modules
            .get(module)
            .map(|entry| entry.depends.as_slice());
        depends.unwrap_or_default().iter().rev().map(String::as_str)
    }

    /// Device nodes whose drivers load when they are opened: name below `/dev` and minor number (the major number is 10,
    /// miscellaneous devices). `depmod` has an alias for the name and one for the number.
    pub fn static_nodes(&self) -> Vec<(&str, u32)> {
        let minor = |module: &str| {
            let numbers = self
                .aliases
                .keys()
                .filter_map(|key| Some((key, key.strip_prefix("char-major-10-")?)));
            let mut own = numbers.filter(|(key, _)| {
                self.aliases[*key]
                    .iter()
                    .any(|alias| alias.module == module)
            });
            own.find_map(|(_, number)| number.parse().ok())
        };
        let named = self.aliases.get("devname").into_iter().flatten();
        named
            .filter_map(|alias| {
                Some((
                    alias.pattern.strip_prefix("devname:")?,
                    minor(&alias.module)?,
                ))
            })
            .collect()
    }

    /// Everything to load for `module`, in order, each once: soft dependencies that come before it, what it needs, itself,
    /// soft dependencies that come after.
    pub fn order(&self, module: &str) -> Vec<String> {
        let mut order = Vec::new();
        self.add_in_order(module, SOFT_DEPTH, &mut order);
        order
    }

    fn add_in_order(&self, module: &str, depth: u32, order: &mut Vec<String>) {
        if order.iter().any(|name| name == module) {
            return;
        }
        let needed: Vec<&str> = self.dependencies(module).chain([module]).collect();
        for name in needed {
            let soft = self.soft.get(name).filter(|_| depth > 0);
            for early in soft.into_iter().flat_map(|soft| &soft.pre) {
                for module in self.resolve(early) {
                    self.add_in_order(module, depth - 1, order);
                }
            }
            if !order.iter().any(|known| known == name) {
                order.push(name.to_owned());
            }
            for late in soft.into_iter().flat_map(|soft| &soft.post) {
                for module in self.resolve(late) {
                    self.add_in_order(module, depth - 1, order);
                }
            }
        }
    }
}

/// The key a pattern is filed under: what is before the first colon, or before the first hyphen if there is no colon and
/// what follows is not all literal, or else all of it.
fn bus(pattern: &str) -> &str {
    let special = ['*', '?', '['];
    match pattern.split_once(':') {
        // ACPI's are `acpi*:PNP0C0F:*`.
        Some((bus, _)) => bus.trim_end_matches(special),
        None if pattern.contains(special) => pattern.split('-').next().unwrap_or(pattern),
        None => pattern,
    }
}

/// The keys under which patterns for `text` are filed.
fn keys(text: &str) -> impl Iterator<Item = &str> {
    let (first, second) = match text.split_once(':') {
        Some((bus, _)) => (bus, None),
        None => (text, text.split_once('-').map(|(head, _)| head)),
    };
    std::iter::once(first).chain(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> ModuleIndex {
        let mut index = ModuleIndex {
            dir: PathBuf::from("/lib/modules/6"),
            ..ModuleIndex::default()
        };
        index.parse_dep(
            "kernel/virt/lib/irqbypass.ko:\n\
             kernel/arch/x86/kvm/kvm.ko: kernel/virt/lib/irqbypass.ko\n\
             kernel/arch/x86/kvm/kvm-amd.ko.xz: kernel/drivers/crypto/ccp/ccp.ko kernel/arch/x86/kvm/kvm.ko.xz kernel/virt/lib/irqbypass.ko\n\
             kernel/drivers/net/virtio_net.ko:\nkernel/fs/xfs/xfs.ko:\nkernel/drivers/acpi/button.ko:\nkernel/crc32c-intel.ko:\nnonsense\n",
        );
        index.parse_alias(
            "# comment\nalias virtio:d00000001v* virtio_net\nalias fs-xfs xfs\nalias acpi*:PNP0C0C:* button\n\
             alias cpu:type:x86,ven*fam*mod*:feature:*00C2* kvm-amd\nalias short\nalias crc32c crc32c_intel\nalias net-pf-16-proto-16-family-nlctrl x\n\
             alias block-major-7-* virtio_net\nalias devname:net/tun xfs\nalias char-major-10-200 xfs\nalias devname:odd button\n",
        );
        index.parse_softdep(
            "softdep xfs pre: crc32c post: quota-v2 button\nsoftdep\nsoftdep ext4 pre: crypto-crc32c\n",
        );
        index.builtin = vec!["ext4".into(), "loop".into()];
        index
    }

    #[test]
    fn names_and_aliases() {
        let index = index();
        assert_eq!(index.resolve("kvm-amd"), ["kvm_amd"]);
        assert_eq!(index.resolve("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(index.resolve("fs-xfs"), ["xfs"]);
        assert_eq!(index.resolve("acpi:PNP0C0C:"), ["button"]);
        assert_eq!(index.resolve("acpi:LNXPWRBN:PNP0C0C:"), ["button"]);
        assert_eq!(
            index.resolve("cpu:type:x86,ven0002fam0017mod0031:feature:,0000,00C2"),
            ["kvm_amd"]
        );
        assert!(index.resolve("virtio:d00000002v00001AF4").is_empty());
        assert!(index.resolve("ext4").is_empty());
        assert!(index.resolve("").is_empty());
        assert_eq!(index.resolve("block-major-7-12"), ["virtio_net"]);
        assert_eq!(index.static_nodes(), [("net/tun", 200)]);
        assert!(index.is_builtin("loop") && !index.is_builtin("xfs"));
    }

    #[test]
    fn dependencies_come_deepest_first() {
        let index = index();
        let depends: Vec<&str> = index.dependencies("kvm_amd").collect();
        assert_eq!(depends, ["irqbypass", "kvm", "ccp"]);
        assert_eq!(index.dependencies("nobody").count(), 0);
        assert_eq!(
            index.file("kvm_amd").unwrap(),
            Path::new("/lib/modules/6/kernel/arch/x86/kvm/kvm-amd.ko.xz")
        );
    }

    #[test]
    fn soft_dependencies_around_what_is_needed() {
        let index = index();
        assert_eq!(index.order("xfs"), ["crc32c_intel", "xfs", "button"]);
        assert_eq!(
            index.order("kvm_amd"),
            ["irqbypass", "kvm", "ccp", "kvm_amd"]
        );
        assert_eq!(index.order("irqbypass"), ["irqbypass"]);
    }

    #[test]
    fn soft_dependencies_in_a_circle() {
        let mut index = index();
        index.parse_softdep("softdep button pre: xfs\n");
        let order = index.order("button");
        assert_eq!(order.iter().filter(|name| *name == "button").count(), 1);
        assert_eq!(order.iter().filter(|name| *name == "xfs").count(), 1);
    }

    /// Every installed kernel's own indexes can be read and are consistent.
    #[test]
    fn this_machine_s_kernels() {
        let Ok(dirs) = fs::read_dir("/lib/modules") else {
            eprintln!("skipped: no kernels installed here");
            return;
        };
        for dir in dirs {
            let dir = dir.unwrap().path();
            let Ok(index) = ModuleIndex::read(&dir) else {
                continue;
            };
            for module in index.modules.keys() {
                assert!(
                    index
                        .dependencies(module)
                        .all(|d| index.modules.contains_key(d)),
                    "{module}"
                );
            }
        }
    }
}
