//! The controller as a PCI function: registers, doorbells and MSI-X table behind BAR 0.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use lodge_block::raw::RawDisk;

use super::admin::Worker;
use super::doorbells::{Doorbells, Wrong};
use super::handle::NvmeHandle;
use super::kernel_doorbells::KernelDoorbells;
use super::registers::{Change, Registers, status};
use super::session::Session;
use super::shared::{Event, Shared};
use super::{
    DEVICE, DOORBELL_PAIR_BYTES, DOORBELLS, MAX_QUEUES, MIN_QUEUES, NvmeDiskOptions, SUBSYSTEM,
    SUBSYSTEM_VENDOR, VENDOR,
};
use crate::GuestMemory;
use crate::bus::{Bus, BusDevice};
use crate::interrupt::Platform;
use crate::pci::{BarKind, Bars, ConfigSpace, Header, Msix, PciFunction, command, register};
use crate::virtio::queue_thread::QueueThread;
use crate::virtio::{Complain, Prologue};

const BAR: u8 = 0;
/// Bytes of the BAR.
pub const BAR_BYTES: u64 = 0x4000;
const MSIX_TABLE: u64 = 0x2000;
const MSIX_PENDING: u64 = 0x3000;

/// Non-volatile memory controller, NVM Express.
const CLASS: u32 = 0x01_08_02;

/// What a controller is built from.
pub struct NvmeOptions {
    /// Unique name in the machine, e.g. `disk0`.
    pub name: String,
    /// The disk behind it.
    pub image: RawDisk,
    /// How it shows itself.
    pub disk: NvmeDiskOptions,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Interrupts and doorbells.
    pub platform: Arc<dyn Platform>,
    /// Where the BAR answers.
    pub memory_bus: Arc<Bus>,
    /// Runs first on each thread.
    pub prologue: Prologue,
    /// Who hears what goes wrong.
    pub complain: Complain,
}

/// A controller with its disk.
pub struct Nvme {
    pub(super) config: ConfigSpace,
    bars: Bars,
    msix_capability: usize,
    pub(super) registers: Registers,
    pub(super) shared: Arc<Shared>,
    admin: QueueThread<Worker>,
    /// What an enabled controller has for its driver, while no thread has it.
    pub(super) session: Option<Session>,
    /// The threads have it.
    running: bool,
    pub(super) paused: bool,
}

impl Nvme {
    /// Builds the function with its threads, which start at once. It goes on the bus by
    /// [`PciRoot::add`](crate::pci::PciRoot::add).
    ///
    /// # Errors
    /// When the platform has no more interrupts, or the process no more threads or descriptors.
    pub fn new(options: NvmeOptions) -> io::Result<Arc<Mutex<Self>>> {
        let queues = options.disk.queues.clamp(MIN_QUEUES, MAX_QUEUES);
        let read_only = options.disk.read_only || options.image.read_only();
        // One for each completion queue.
        let msix = Msix::new(&*options.platform, queues + 1)?;
        let mut config = ConfigSpace::new(&Header {
            vendor: VENDOR,
            device: DEVICE,
            revision: 2,
            class: CLASS,
            subsystem_vendor: SUBSYSTEM_VENDOR,
            subsystem: SUBSYSTEM,
            multifunction: false,
        });
        let (table, pending) = (MSIX_TABLE as u32, MSIX_PENDING as u32);
        let msix_capability = msix.add_capability(&mut config, BAR, table, pending);
        let shared = Arc::new(Shared {
            name: options.name,
            memory: options.memory,
            image: Arc::new(options.image),
            options: NvmeDiskOptions {
                read_only,
                queues,
                ..options.disk
            },
            statistics: Arc::default(),
            throttle: Arc::default(),
            errors: Arc::default(),
            doorbells: Doorbells::new(queues)?,
            kernel_doorbells: KernelDoorbells::new(options.platform),
            msix,
            write_cache: AtomicBool::new(true),
            status: AtomicU32::new(0),
            shutdown: AtomicBool::new(false),
            events: AtomicU32::new(0),
            complain: options.complain,
        });
        let worker = Worker::new(&shared, &options.prologue)?;
        let function = Arc::new(Mutex::new(Self {
            config,
            bars: Bars::new(&options.memory_bus),
            msix_capability,
            registers: Registers::default(),
            shared,
            admin: QueueThread::spawn("nvme-admin", options.prologue, worker)?,
            session: None,
            running: false,
            paused: false,
        }));
        let myself = Arc::downgrade(&function);
        function.lock().unwrap().attach_bar(myself)?;
        Ok(function)
    }

    fn attach_bar(&mut self, myself: Weak<Mutex<Self>>) -> io::Result<()> {
        let (index, kind) = (BAR.into(), BarKind::Registers64);
        self.bars
            .add(&mut self.config, index, BAR_BYTES, kind, myself)
            .map_err(io::Error::other)
    }

    /// What the monitor keeps when the controller itself is on its bus.
    pub fn handle(&self) -> NvmeHandle {
        NvmeHandle::new(Arc::clone(&self.shared))
    }

    /// Makes everything agree with configuration space after it may have changed.
    pub(super) fn sync(&mut self) {
        self.shared.msix.sync(&self.config, self.msix_capability);
        if self.bars.sync(&self.config) {
            let base = self.bars.mapped(BAR.into());
            self.shared
                .kernel_doorbells
                .move_to(base, &self.shared.doorbells);
        }
        self.settle();
    }

    /// Lets the threads have the session if they may: the controller is not paused and the function may access
    /// memory. Otherwise takes it back.
    pub(super) fn settle(&mut self) {
        let bus_master = self.config.u16(register::COMMAND) & command::BUS_MASTER != 0;
        let may_run = bus_master && !self.paused;
        if self.running && !may_run {
            self.session = self.admin.stop();
            self.running = false;
        }
        if may_run && let Some(session) = self.session.take() {
            // Before the driver can ring any.
            session.open(&self.shared.doorbells);
            self.admin.start(session);
            self.running = true;
        }
    }

    /// Forgets everything that is for the driver. Commands under way are finished.
    pub(super) fn forget_session(&mut self) {
        self.session = None;
        if std::mem::take(&mut self.running) {
            self.admin.stop();
        }
        self.shared.status.store(0, Ordering::SeqCst);
        self.shared.shutdown.store(false, Ordering::SeqCst);
        self.shared.events.store(0, Ordering::SeqCst);
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match self.registers.write(offset, value) {
            Change::Nothing => {}
            Change::Enable => self.enable(),
            Change::Disable => self.forget_session(),
            Change::Shutdown => self.shut_down(),
        }
    }

    fn enable(&mut self) {
        if !self.registers.acceptable() {
            return self.shared.fail("it is configured for what is not offered");
        }
        let session = Session::new(&self.registers);
        if let Err(problem) = session.check(&self.shared) {
            return self.shared.fail(&problem);
        }
        self.shared.status.store(status::READY, Ordering::SeqCst);
        self.session = Some(session);
        self.settle();
    }

    /// The admin thread says when everything written is durable.
    fn shut_down(&mut self) {
        let shared = &self.shared;
        let under_way = status::SHUTTING_DOWN | status::SHUT_DOWN;
        if shared.status.load(Ordering::SeqCst) & under_way == 0 {
            shared
                .status
                .fetch_or(status::SHUTTING_DOWN, Ordering::SeqCst);
            shared.shutdown.store(true, Ordering::SeqCst);
            shared.doorbells.ring(0);
        }
    }

    fn ring(&self, number: u64, value: u32) {
        if !self.running {
            return;
        }
        let event = match self.shared.doorbells.write(number, value) {
            Ok(()) => return,
            Err(Wrong::Register) => Event::DoorbellRegister,
            Err(Wrong::Value) => Event::DoorbellValue,
        };
        self.shared.report(event);
    }
}

impl PciFunction for Nvme {
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

impl BusDevice for Nvme {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset {
            MSIX_TABLE..MSIX_PENDING => self.shared.msix.read_table(offset - MSIX_TABLE, data),
            MSIX_PENDING.. => self.shared.msix.read_pending(offset - MSIX_PENDING, data),
            _ => {
                let status = self.shared.status.load(Ordering::SeqCst);
                for (at, byte) in (offset..DOORBELLS).zip(data) {
                    let word = self.registers.read(at & !3, status).to_le_bytes();
                    *byte = word[(at % 4) as usize];
                }
            }
        }
    }

    /// Registers take aligned doublewords and quadwords (NVM Express 1.4, 3.1); anything else is ignored.
    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= MSIX_TABLE {
            return self.shared.msix.write_table(offset - MSIX_TABLE, data);
        }
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len() as u64) {
            return;
        }
        for (at, word) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            match at.checked_sub(DOORBELLS) {
                Some(within) => self.ring(within / (DOORBELL_PAIR_BYTES / 2), value),
                None => self.write_register(at, value),
            }
        }
    }
}
