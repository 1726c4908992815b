//! The card as a PCI function: 8086:10d3, registers behind BAR 0, vectors behind BAR 3 (82574
//! datasheet, chapter 9).

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::card::Card;
use super::handle::E1000eHandle;
use super::interrupts::{Capabilities, Interrupts, VECTORS};
use super::session::Worker;
use super::{DEVICE_ID, VENDOR_ID};
use crate::GuestMemory;
use crate::bus::{Bus, BusDevice, read_doublewords, write_doublewords};
use crate::interrupt::{InterruptLine, Platform};
use crate::pci::{
    BarKind, Bars, ConfigSpace, Header, Msi, Msix, PciFunction, TABLE_ENTRY_BYTES, command,
    register,
};
use crate::tap::Tap;
use crate::virtio::Prologue;
use crate::virtio::queue_thread::QueueThread;

/// The registers, and their size.
const REGISTERS: usize = 0;
const REGISTERS_BYTES: u64 = 0x2_0000;
/// The vectors, their size, and where the pending bits are.
const VECTORS_BAR: u8 = 3;
const VECTORS_BYTES: u64 = 0x4000;
const PENDING: u64 = 0x2000;

/// Ethernet controller.
const PCI_CLASS: u32 = 0x02_00_00;

/// What a card is built from.
pub struct E1000eOptions {
    /// Unique name in the machine, e.g. `nic0`.
    pub name: String,
    /// The other end of its cable, opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    pub tap: OwnedFd,
    /// Its address, individual and not all zeroes.
    pub mac: [u8; 6],
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Where its message-signalled interrupts come from.
    pub platform: Arc<dyn Platform>,
    /// INTA#, level-triggered.
    pub line: Arc<dyn InterruptLine>,
    /// Where the BARs answer.
    pub memory_bus: Arc<Bus>,
    /// Runs first on its thread.
    pub prologue: Prologue,
}

/// The card.
pub struct E1000e {
    pub(super) name: String,
    pub(super) config: ConfigSpace,
    bars: Bars,
    capabilities: Capabilities,
    pub(super) msix: Arc<Msix>,
    /// What is behind the vectors' BAR, which only knows it weakly.
    vectors: Arc<Mutex<Vectors>>,
    pub(super) card: Arc<Card>,
    pub(super) thread: QueueThread<Worker>,
    pub(super) paused: bool,
}

impl E1000e {
    /// Builds the function, whose thread starts at once. It goes on the bus by
    /// [`PciRoot::add`](crate::pci::PciRoot::add).
    ///
    /// # Errors
    /// When the tap is no such tap, the platform has no more interrupts, or the process no more
    /// threads or descriptors.
    pub fn new(options: E1000eOptions) -> io::Result<Arc<Mutex<Self>>> {
        Self::with(options, Tap::new)
    }

    /// A card driven by hand on a socket that carries whole packets with their headers.
    ///
    /// # Errors
    /// As for [`E1000e::new`].
    #[cfg(feature = "fuzzing")]
    pub fn on_socket(options: E1000eOptions) -> io::Result<Arc<Mutex<Self>>> {
        Self::with(options, Tap::carrying)
    }

    fn with(
        options: E1000eOptions,
        open: fn(OwnedFd) -> io::Result<Tap>,
    ) -> io::Result<Arc<Mutex<Self>>> {
        let tap = open(options.tap)?;
        // Nothing is left undone in packets for a driver: it could not be told.
        tap.set_offload(0)?;
        let mut config = header();
        let msix = Arc::new(Msix::new(&*options.platform, VECTORS)?);
        let capabilities = Capabilities {
            msi: Msi::add_capability(&mut config),
            msix: msix.add_capability(&mut config, VECTORS_BAR, 0, PENDING as u32),
        };
        let msi = Msi::new(&*options.platform)?;
        let interrupts = Interrupts::new(Arc::clone(&msix), msi, options.line);
        let card = Arc::new(Card::new(options.memory, options.mac, interrupts)?);
        let worker = Worker::new(Arc::clone(&card), tap);
        let mut thread = QueueThread::spawn("nic", options.prologue, worker)?;
        thread.start(());
        let function = Arc::new(Mutex::new(Self {
            name: options.name,
            config,
            bars: Bars::new(&options.memory_bus),
            capabilities,
            vectors: Arc::new(Mutex::new(Vectors(Arc::clone(&msix)))),
            msix,
            card,
            thread,
            paused: false,
        }));
        function.lock().unwrap().attach_bars(&function)?;
        Ok(function)
    }

    /// What the monitor keeps when the card itself is on its bus.
    pub fn handle(&self) -> E1000eHandle {
        E1000eHandle::new(&self.card)
    }

    fn attach_bars(&mut self, myself: &Arc<Mutex<Self>>) -> io::Result<()> {
        let kind = BarKind::Memory32;
        let config = &mut self.config;
        let registers = Arc::downgrade(myself);
        self.bars
            .add(config, REGISTERS, REGISTERS_BYTES, kind, registers)
            .map_err(io::Error::other)?;
        let vectors = Arc::downgrade(&self.vectors);
        self.bars
            .add(config, VECTORS_BAR.into(), VECTORS_BYTES, kind, vectors)
            .map_err(io::Error::other)
    }

    /// Makes everything agree with configuration space after it may have changed.
    pub(super) fn sync(&mut self) {
        let (config, capabilities) = (&self.config, &self.capabilities);
        let bus_master = config.u16(register::COMMAND) & command::BUS_MASTER != 0;
        self.card.sync(bus_master, |interrupts, registers| {
            interrupts.sync(config, capabilities, registers);
        });
        self.bars.sync(&self.config);
    }
}

fn header() -> ConfigSpace {
    let mut config = ConfigSpace::new(&Header {
        vendor: VENDOR_ID,
        device: DEVICE_ID,
        revision: 0,
        class: PCI_CLASS,
        subsystem_vendor: VENDOR_ID,
        subsystem: 0,
        multifunction: false,
    });
    // INTA#.
    config.define(register::INTERRUPT_LINE + 1, &[1], &[0]);
    config
}

impl PciFunction for E1000e {
    fn config_read(&mut self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        self.sync();
    }

    fn bar_requests(&self) -> Vec<(usize, u64, BarKind)> {
        self.bars.requests()
    }

    fn set_bar(&mut self, index: usize, base: u64) {
        self.bars.set(&mut self.config, index, base);
        self.sync();
    }

    fn bar_ranges(&self) -> Vec<Range<u64>> {
        self.bars.ranges(&self.config)
    }
}

/// The registers, which take doublewords (82574 datasheet, 10.1.1).
impl BusDevice for E1000e {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        read_doublewords(offset, REGISTERS_BYTES, data, |at| self.card.read(at));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        write_doublewords(offset, REGISTERS_BYTES, data, |at, value| {
            self.card.write(at, value);
        });
    }
}

/// What is behind BAR 3.
struct Vectors(Arc<Msix>);

impl BusDevice for Vectors {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match offset.checked_sub(PENDING) {
            Some(offset) => self.0.read_pending(offset, data),
            None => self.0.read_table(offset, data),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // Beyond the table there is nothing to write.
        if offset < u64::from(VECTORS) * TABLE_ENTRY_BYTES {
            self.0.write_table(offset, data);
        }
    }
}
