//! The controller as a PCI function: 8086:2922, registers behind BAR 5 (ICH9 datasheet, chapter 14).

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use super::hba::Hba;
use super::interrupts::Interrupts;
use super::issue::PortLink;
use super::{Attached, Drive, PORTS, Surroundings, Thread};
use crate::GuestMemory;
use crate::bus::{Bus, BusDevice, read_doublewords, write_doublewords};
use crate::interrupt::{InterruptLine, Platform};
use crate::pci::{
    Address, BarKind, Bars, ConfigSpace, Header, Msi, PciFunction, command, register,
};
use crate::virtio::{Complain, Prologue};

/// The only BAR, and its size.
const BAR: usize = 5;
const BAR_BYTES: u64 = 0x1000;

/// MAP (ICH9 datasheet, 14.1.29): the controller is in AHCI mode.
const MAP: usize = 0x90;
const MAP_AHCI: u8 = 0x40;
/// PCS (14.1.30): ports that are on, and in its second byte those with a device. Linux turns
/// on those it uses.
const PCS: usize = 0x92;

/// What a controller is built from.
pub struct AhciOptions {
    /// Unique name in the machine, e.g. `sata`.
    pub name: String,
    /// What is plugged into each port.
    pub drives: [Option<Drive>; PORTS],
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Where its message-signalled interrupt comes from.
    pub platform: Arc<dyn Platform>,
    /// INTA#, level-triggered.
    pub line: Arc<dyn InterruptLine>,
    /// Where the BAR answers.
    pub memory_bus: Arc<Bus>,
    /// Runs first on each drive's thread.
    pub prologue: Prologue,
    /// Who hears what goes wrong.
    pub complain: Complain,
}

/// The controller.
pub struct Ahci {
    pub(super) name: String,
    pub(super) config: ConfigSpace,
    bars: Bars,
    msi_capability: usize,
    pub(super) hba: Arc<Hba>,
    pub(super) drives: [Option<Arc<dyn Attached>>; PORTS],
    pub(super) threads: Vec<Box<dyn Thread>>,
    pub(super) paused: bool,
}

impl Ahci {
    /// Where it belongs. Function 0 of the device must exist.
    pub const ADDRESS: Address = match Address::new(0x1f, 2) {
        Some(address) => address,
        None => unreachable!(),
    };

    /// Builds the function with its drives, whose threads start at once. It goes on the bus by
    /// [`PciRoot::add`](crate::pci::PciRoot::add).
    ///
    /// # Errors
    /// When the platform has no more interrupts, or the process no more threads or descriptors.
    pub fn new(options: AhciOptions) -> io::Result<Arc<Mutex<Self>>> {
        let AhciOptions {
            name,
            drives,
            memory,
            platform,
            line,
            memory_bus,
            prologue,
            complain,
        } = options;
        let attached = drives
            .each_ref()
            .map(|drive| drive.as_ref().map(Drive::attached));
        let mut config = header(&attached);
        let msi_capability = Msi::add_capability(&mut config);
        let interrupts = Interrupts::new(Msi::new(&*platform)?, line);
        let hba = Arc::new(Hba::new(&memory, attached.clone(), interrupts)?);
        let mut threads = Vec::new();
        for (port, drive) in drives.into_iter().enumerate() {
            let Some(drive) = drive else { continue };
            let (device, complain) = (format!("{name} port {port}"), Arc::clone(&complain));
            let surroundings = Surroundings {
                name: format!("sata-{port}"),
                prologue: Arc::clone(&prologue),
                complain: Arc::new(move |what| complain(&device, what)),
            };
            let link = PortLink::new(Arc::clone(&hba), port, memory.clone());
            let mut thread = drive.spawn(link, surroundings)?;
            thread.start();
            threads.push(thread);
        }
        let function = Arc::new(Mutex::new(Self {
            name,
            config,
            bars: Bars::new(&memory_bus),
            msi_capability,
            hba,
            drives: attached,
            threads,
            paused: false,
        }));
        let myself = Arc::downgrade(&function);
        function.lock().unwrap().attach_bar(myself)?;
        Ok(function)
    }

    fn attach_bar(&mut self, myself: Weak<Mutex<Self>>) -> io::Result<()> {
        self.bars
            .add(&mut self.config, BAR, BAR_BYTES, BarKind::Memory32, myself)
            .map_err(io::Error::other)
    }

    /// Makes everything agree with configuration space after it may have changed.
    pub(super) fn sync(&mut self) {
        let control = self.config.u16(register::COMMAND);
        let (config, capability) = (&self.config, self.msi_capability);
        self.hba
            .sync(control & command::BUS_MASTER != 0, |interrupts| {
                interrupts.sync(config, capability, control);
            });
        self.bars.sync(&self.config);
    }
}

fn header(drives: &[Option<Arc<dyn Attached>>; PORTS]) -> ConfigSpace {
    let mut config = ConfigSpace::new(&Header {
        vendor: 0x8086,
        device: 0x2922,
        revision: 2,
        class: 0x01_06_01,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
        multifunction: false,
    });
    // INTA#.
    config.define(register::INTERRUPT_LINE + 1, &[1], &[0]);
    config.define(MAP, &[MAP_AHCI], &[0]);
    let on = (1_u8 << PORTS) - 1;
    let present = (0..PORTS).filter(|&port| drives[port].is_some());
    let present = present.fold(0, |all, port| all | 1 << port);
    config.define(PCS, &[on, present], &[on, 0]);
    config
}

impl PciFunction for Ahci {
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

impl BusDevice for Ahci {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        read_doublewords(offset, BAR_BYTES, data, |at| self.hba.read(at));
    }

    /// Registers take aligned doublewords and quadwords (AHCI 1.3.1, 3); anything else is ignored.
    fn write(&mut self, offset: u64, data: &[u8]) {
        write_doublewords(offset, BAR_BYTES, data, |at, value| {
            self.hba.write(at, value);
        });
    }
}
