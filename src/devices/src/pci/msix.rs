//! The MSI-X capability, its table and its pending bits (PCI 3.0, 6.8.2).

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::config::ConfigSpace;
use super::refusal::Refusal;
use crate::interrupt::{MsiMessage, MsiVector, Platform};

/// Bytes of one table entry.
pub const TABLE_ENTRY_BYTES: u64 = 16;

const CAPABILITY_ID: u8 = 0x11;
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
const ENTRY_MASKED: u32 = 1;
/// Most vectors a capability can have.
const MAX_VECTORS: u16 = 2048;

/// The vectors of one function. Shared between the function, which a guest programs,
/// and the threads that raise interrupts.
pub struct Msix {
    vectors: Vec<Vector>,
    /// Whether the capability is on and not masked as a whole.
    open: AtomicBool,
}

struct Vector {
    line: Arc<dyn MsiVector>,
    entry: Mutex<Entry>,
    /// The line's descriptor was handed to a kernel back end, whose signals pass us by.
    kernel: AtomicBool,
    refusal: Refusal,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
    pending: bool,
    /// The line was last configured with this message and unmasked.
    live: bool,
}

const RESET_ENTRY: Entry = Entry {
    address: 0,
    data: 0,
    masked: true,
    pending: false,
    live: false,
};

/// The saved table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixState {
    entries: Vec<EntryState>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EntryState {
    address: u64,
    data: u32,
    masked: bool,
    #[serde(default)]
    pending: bool,
}

impl Msix {
    /// `count` vectors, 1 to 2048, from `platform`.
    ///
    /// # Errors
    /// When the platform has no more, or the count cannot be.
    pub fn new(platform: &dyn Platform, count: u16) -> io::Result<Self> {
        if !(1..=MAX_VECTORS).contains(&count) {
            return Err(io::Error::other(format!("{count} MSI-X vectors cannot be")));
        }
        let vector = |_| {
            Ok(Vector {
                line: platform.msi_vector()?,
                entry: Mutex::new(RESET_ENTRY),
                kernel: AtomicBool::new(false),
                refusal: Refusal::default(),
            })
        };
        Ok(Self {
            vectors: (0..count).map(vector).collect::<io::Result<_>>()?,
            open: AtomicBool::new(false),
        })
    }

    /// Adds the capability to `config` at build time; table and pending bits are at these
    /// offsets of BAR `bar` (multiples of 8). Returns the capability's offset.
    pub fn add_capability(
        &self,
        config: &mut ConfigSpace,
        bar: u8,
        table: u32,
        pending: u32,
    ) -> usize {
        let mut body = Vec::with_capacity(10);
        let size = self.vectors.len() as u16 - 1;
        body.extend(size.to_le_bytes());
        body.extend((table | u32::from(bar)).to_le_bytes());
        body.extend((pending | u32::from(bar)).to_le_bytes());
        let mut writable = [0; 10];
        writable[..2].copy_from_slice(&(ENABLE | FUNCTION_MASK).to_le_bytes());
        config.add_capability(CAPABILITY_ID, &body, &writable)
    }

    /// Number of vectors.
    pub fn count(&self) -> u16 {
        self.vectors.len() as u16
    }

    /// Whether the driver chose these vectors over a wired interrupt, by the capability at `capability`.
    pub fn enabled(config: &ConfigSpace, capability: usize) -> bool {
        config.u16(capability + 2) & ENABLE != 0
    }

    /// Follows the message control register of the capability at `capability`; to be
    /// called after configuration space may have changed.
    pub fn sync(&self, config: &ConfigSpace, capability: usize) {
        let control = config.u16(capability + 2);
        let open = control & (ENABLE | FUNCTION_MASK) == ENABLE;
        if self.open.swap(open, Ordering::SeqCst) == open {
            return;
        }
        for vector in &self.vectors {
            vector.apply(&mut vector.entry.lock().unwrap(), open);
        }
    }

    /// Raises `vector`; one that does not exist raises nothing. A masked one is left pending.
    pub fn trigger(&self, vector: u16) {
        let Some(vector) = self.vectors.get(usize::from(vector)) else {
            return;
        };
        let mut entry = vector.entry.lock().unwrap();
        if entry.live {
            vector.line.trigger();
        } else {
            entry.pending = true;
        }
    }

    /// The descriptor that raises `vector`, for a kernel back end.
    pub fn irqfd(&self, vector: u16) -> Option<BorrowedFd<'_>> {
        let vector = self.vectors.get(usize::from(vector))?;
        vector.kernel.store(true, Ordering::SeqCst);
        Some(vector.line.irqfd())
    }

    /// Reads the table at `offset` from its start.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            let Some(vector) = self.vector_at(at) else {
                *byte = 0;
                continue;
            };
            let bytes = vector.entry.lock().unwrap().to_bytes();
            *byte = bytes[(at % TABLE_ENTRY_BYTES) as usize];
        }
    }

    /// Writes the table at `offset` from its start. Entries take aligned doublewords and
    /// quadwords (PCI 3.0, 6.8.2); anything else is ignored.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len() as u64) {
            return;
        }
        let Some(vector) = self.vector_at(offset) else {
            return;
        };
        let mut entry = vector.entry.lock().unwrap();
        let mut bytes = entry.to_bytes();
        let at = (offset % TABLE_ENTRY_BYTES) as usize;
        bytes[at..at + data.len()].copy_from_slice(data);
        entry.set_bytes(bytes);
        vector.apply(&mut entry, self.open.load(Ordering::SeqCst));
    }

    /// Reads the pending bits at `offset` from their start. They cannot be written.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(8);
            *byte = 0;
            for (bit, vector) in self.vectors.iter().skip(first).take(8).enumerate() {
                *byte |= u8::from(vector.entry.lock().unwrap().pending) << bit;
            }
        }
    }

    /// Back to power-on: every vector masked. The capability's register is reset with the rest of
    /// configuration space.
    pub fn reset(&self) {
        self.open.store(false, Ordering::SeqCst);
        for vector in &self.vectors {
            vector.kernel.store(false, Ordering::SeqCst);
            let mut entry = vector.entry.lock().unwrap();
            *entry = RESET_ENTRY;
            vector.apply(&mut entry, false);
        }
    }

    /// The present table.
    pub fn save(&self) -> MsixState {
        let entry = |vector: &Vector| {
            let entry = vector.entry.lock().unwrap();
            EntryState {
                address: entry.address,
                data: entry.data,
                masked: entry.masked,
                pending: entry.pending,
            }
        };
        MsixState {
            entries: self.vectors.iter().map(entry).collect(),
        }
    }

    /// Takes back a saved table; [`Msix::sync`] must follow.
    ///
    /// # Errors
    /// When the number of vectors differs; nothing is changed then.
    pub fn check(&self, state: &MsixState) -> Result<(), String> {
        if state.entries.len() != self.vectors.len() {
            return Err(format!(
                "msix: {} vectors, not {}",
                state.entries.len(),
                self.vectors.len()
            ));
        }
        Ok(())
    }

    /// Takes back a table that [`Msix::check`] accepted; [`Msix::sync`] must follow.
    pub fn restore(&self, state: &MsixState) {
        self.open.store(false, Ordering::SeqCst);
        for (vector, saved) in self.vectors.iter().zip(&state.entries) {
            let mut entry = vector.entry.lock().unwrap();
            *entry = Entry {
                address: saved.address & !3,
                data: saved.data,
                masked: saved.masked,
                pending: saved.pending,
                live: false,
            };
            vector.apply(&mut entry, false);
        }
    }

    fn vector_at(&self, offset: u64) -> Option<&Vector> {
        let index = usize::try_from(offset / TABLE_ENTRY_BYTES).ok()?;
        self.vectors.get(index)
    }
}

impl Vector {
    /// Makes the line agree with `entry` and with the function as a whole.
    fn apply(&self, entry: &mut Entry, open: bool) {
        let was_live = entry.live;
        let message = MsiMessage {
            address: entry.address,
            data: entry.data,
        };
        entry.live = open && !entry.masked;
        if let Err(error) = self.line.configure(message, !entry.live) {
            self.refusal.log(&error, message);
            entry.live = false;
        }
        if !entry.live {
            return;
        }
        // Signals of a kernel back end are not seen here while masked, so one
        // may have been lost. An interrupt too many does no harm, one too few hangs a driver.
        let maybe_missed = !was_live && self.kernel.load(Ordering::SeqCst);
        if std::mem::take(&mut entry.pending) || maybe_missed {
            self.line.trigger();
        }
    }
}

impl Entry {
    fn to_bytes(self) -> [u8; TABLE_ENTRY_BYTES as usize] {
        let mut bytes = [0; TABLE_ENTRY_BYTES as usize];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.data.to_le_bytes());
        bytes[12..].copy_from_slice(&u32::from(self.masked).to_le_bytes());
        bytes
    }

    fn set_bytes(&mut self, bytes: [u8; TABLE_ENTRY_BYTES as usize]) {
        let [address, rest] = [0, 8].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        });
        // The lowest two address bits are read-only zero.
        self.address = address & !3;
        self.data = rest as u32;
        self.masked = (rest >> 32) as u32 & ENTRY_MASKED != 0;
    }
}
