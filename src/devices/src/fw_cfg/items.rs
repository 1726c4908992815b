//! What firmware can read: numbered items, and files with names.

use std::collections::BTreeMap;

/// Numbers of items without a name.
pub mod key {
    /// "QEMU": the device is there.
    pub const SIGNATURE: u16 = 0x00;
    /// Which interfaces there are: bit 0 ports, bit 1 DMA.
    pub const ID: u16 = 0x01;
    /// SMBIOS UUID, 16 bytes in the order in which it is written.
    pub const UUID: u16 = 0x02;
    /// vCPUs present, 16 bits.
    pub const CPUS: u16 = 0x05;
    /// Whether firmware offers a boot menu, 16 bits.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Highest APIC ID and one, 16 bits.
    pub const MAX_CPUS: u16 = 0x0f;
    /// The list of files.
    pub const FILE_DIRECTORY: u16 = 0x19;
    /// The first file.
    pub const FILE_FIRST: u16 = 0x20;
    /// Whether the timer is at input 2 of the I/O APIC, 32 bits.
    pub const TIMER_OVERRIDE: u16 = 0x8002;
}

const ID_PORTS: u32 = 1 << 0;
const ID_DMA: u32 = 1 << 1;

/// Length of a file's name in the directory, with its NUL.
const NAME: usize = 56;

/// Where the content of a file comes from.
pub trait Source: Send {
    /// Present content. As long every time as the first time: the directory tells the length.
    fn read(&self) -> Vec<u8>;

    /// Takes what the guest wrote at `offset`, which lies within the content; tells whether it may.
    fn write(&mut self, offset: usize, data: &[u8]) -> bool {
        let _ = (offset, data);
        false
    }
}

impl Source for Vec<u8> {
    fn read(&self) -> Vec<u8> {
        self.clone()
    }
}

impl<F: Fn() -> Vec<u8> + Send> Source for F {
    fn read(&self) -> Vec<u8> {
        self()
    }
}

struct File {
    length: usize,
    source: Box<dyn Source>,
}

/// All items.
#[derive(Default)]
pub struct Items {
    numbered: BTreeMap<u16, Vec<u8>>,
    files: BTreeMap<String, File>,
}

impl Items {
    /// What every machine says of the device itself.
    pub fn new() -> Self {
        let mut items = Self::default();
        items.set(key::SIGNATURE, b"QEMU");
        items.set(key::ID, &(ID_PORTS | ID_DMA).to_le_bytes());
        items
    }

    /// Sets an item without a name.
    pub fn set(&mut self, key: u16, content: &[u8]) {
        self.numbered.insert(key, content.to_vec());
    }

    /// Adds a file; one of the same name is replaced.
    ///
    /// # Panics
    /// When the name has more than 55 bytes: a mistake in the monitor.
    pub fn add_file(&mut self, name: &str, source: impl Source + 'static) {
        assert!(name.len() < NAME, "{name}: too long for the directory");
        let file = File {
            length: source.read().len(),
            source: Box::new(source),
        };
        self.files.insert(name.to_owned(), file);
    }

    /// What `key` stands for at the moment; nothing for what there is not.
    pub(super) fn content(&self, key: u16) -> Vec<u8> {
        if key == key::FILE_DIRECTORY {
            return self.directory();
        }
        if let Some(file) = self.file(key) {
            let mut content = file.source.read();
            content.resize(file.length, 0);
            return content;
        }
        self.numbered.get(&key).cloned().unwrap_or_default()
    }

    /// Hands the guest's bytes to the file `key`; tells whether it took them.
    pub(super) fn write(&mut self, key: u16, offset: u64, data: &[u8]) -> bool {
        let Some(file) = key
            .checked_sub(key::FILE_FIRST)
            .and_then(|number| self.files.values_mut().nth(number.into()))
        else {
            return false;
        };
        let Ok(offset) = usize::try_from(offset) else {
            return false;
        };
        let inside = offset
            .checked_add(data.len())
            .is_some_and(|end| end <= file.length);
        inside && file.source.write(offset, data)
    }

    fn file(&self, key: u16) -> Option<&File> {
        let number = key.checked_sub(key::FILE_FIRST)?;
        self.files.values().nth(number.into())
    }

    /// A count, then size, number and name of each file in the order of names; big endian.
    fn directory(&self) -> Vec<u8> {
        let mut bytes = (self.files.len() as u32).to_be_bytes().to_vec();
        for (number, (name, file)) in (key::FILE_FIRST..).zip(&self.files) {
            bytes.extend((file.length as u32).to_be_bytes());
            bytes.extend(number.to_be_bytes());
            bytes.extend([0; 2]);
            let end = bytes.len() + NAME;
            bytes.extend(name.as_bytes());
            bytes.resize(end, 0);
        }
        bytes
    }
}
