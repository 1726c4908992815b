//! Stand-ins for what a monitor provides, for tests.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::eventfd::{EfdFlags, EventFd as NixEventFd};
use vmm_sys_util::eventfd::EventFd;

use crate::console::{ConsoleSink, ConsoleSource};
use crate::interrupt::{InterruptLine, MsiMessage, MsiVector, Platform};
use crate::power::PowerControl;
use crate::vmgenid::{ID_LENGTH, IdPage};

/// A wired interrupt that remembers every level driven.
#[derive(Default)]
pub struct TestLine {
    /// Levels in order.
    pub levels: Mutex<Vec<bool>>,
}

impl TestLine {
    /// Low, as at power-on.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The level now.
    pub fn high(&self) -> bool {
        self.levels.lock().unwrap().last().copied().unwrap_or(false)
    }
}

impl InterruptLine for TestLine {
    fn set_level(&self, high: bool) {
        self.levels.lock().unwrap().push(high);
    }
}

/// Counts what a guest asked of its machine.
#[derive(Default)]
pub struct TestPower {
    /// Resets asked for.
    pub resets: AtomicU32,
    /// Power-offs asked for.
    pub power_offs: AtomicU32,
}

impl TestPower {
    /// Nothing asked for yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Resets and power-offs.
    pub fn counts(&self) -> (u32, u32) {
        let load = |counter: &AtomicU32| counter.load(Ordering::SeqCst);
        (load(&self.resets), load(&self.power_offs))
    }
}

impl PowerControl for TestPower {
    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }

    fn power_off(&self) {
        self.power_offs.fetch_add(1, Ordering::SeqCst);
    }
}

/// The page of a generation id.
#[derive(Clone, Default)]
pub struct TestPage(Arc<Mutex<[u8; ID_LENGTH]>>);

impl TestPage {
    /// All zeroes.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is in it.
    pub fn id(&self) -> [u8; ID_LENGTH] {
        *self.0.lock().unwrap()
    }
}

impl IdPage for TestPage {
    fn set(&mut self, id: [u8; ID_LENGTH]) {
        *self.0.lock().unwrap() = id;
    }
}

/// The far end of a console: what was written, and what is typed.
#[derive(Default)]
pub struct TestConsole {
    /// What the device wrote.
    pub written: Mutex<Vec<u8>>,
    /// What it has not read yet.
    pub typed: Mutex<Vec<u8>>,
}

impl ConsoleSink for TestConsole {
    fn write(&self, data: &[u8]) {
        self.written.lock().unwrap().extend_from_slice(data);
    }
}

impl ConsoleSource for TestConsole {
    fn read(&self, data: &mut [u8]) -> usize {
        let mut typed = self.typed.lock().unwrap();
        let count = data.len().min(typed.len());
        data[..count].copy_from_slice(&typed[..count]);
        typed.drain(..count);
        count
    }

    fn waiting(&self) -> usize {
        self.typed.lock().unwrap().len()
    }
}

/// A message-signalled interrupt that remembers.
pub struct TestVector {
    /// How it is set up, and what became of its messages.
    pub state: Mutex<VectorState>,
    irqfd: NixEventFd,
}

/// See [`TestVector`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VectorState {
    /// What it sends.
    pub message: MsiMessage,
    /// Sends nothing.
    pub masked: bool,
    /// Messages sent.
    pub sent: u32,
    /// Messages asked for while masked, which a real one drops.
    pub dropped: u32,
}

impl MsiVector for TestVector {
    fn trigger(&self) {
        let mut state = self.state.lock().unwrap();
        if state.masked {
            state.dropped += 1;
        } else {
            state.sent += 1;
        }
    }

    fn irqfd(&self) -> BorrowedFd<'_> {
        self.irqfd.as_fd()
    }

    fn configure(&self, message: MsiMessage, masked: bool) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.message = message;
        state.masked = masked;
        // An address a real hypervisor has no route for.
        if !masked && message.address == 0xbad0_0000 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    }
}

/// Interrupts and doorbells.
#[derive(Default)]
pub struct TestPlatform {
    /// Vectors in the order in which they were made.
    pub vectors: Mutex<Vec<Arc<TestVector>>>,
    /// Doorbells by address.
    pub doorbells: Mutex<BTreeMap<u64, RawFd>>,
    /// Doorbells are refused.
    pub refuse_doorbells: bool,
}

impl TestPlatform {
    /// Without vectors or doorbells.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The state of a vector.
    pub fn vector(&self, number: usize) -> VectorState {
        *self.vectors.lock().unwrap()[number].state.lock().unwrap()
    }

    /// Where doorbells are.
    pub fn doorbell_addresses(&self) -> Vec<u64> {
        self.doorbells.lock().unwrap().keys().copied().collect()
    }
}

impl Platform for TestPlatform {
    fn msi_vector(&self) -> io::Result<Arc<dyn MsiVector>> {
        let vector = Arc::new(TestVector {
            state: Mutex::new(VectorState {
                masked: true,
                ..VectorState::default()
            }),
            irqfd: NixEventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK)?,
        });
        self.vectors.lock().unwrap().push(Arc::clone(&vector));
        Ok(vector)
    }

    fn add_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        let mut doorbells = self.doorbells.lock().unwrap();
        if self.refuse_doorbells || doorbells.contains_key(&address) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        doorbells.insert(address, event.as_raw_fd());
        Ok(())
    }

    fn remove_doorbell(&self, address: u64, event: &EventFd) -> io::Result<()> {
        let mut doorbells = self.doorbells.lock().unwrap();
        if doorbells.get(&address) != Some(&event.as_raw_fd()) {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        doorbells.remove(&address);
        Ok(())
    }
}
