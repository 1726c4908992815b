//! The devices of a machine: which there are, and where they answer.

use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Mutex};

use lodge_block::engine::{IoError, Spares};
use lodge_devices::GuestMemory;
use lodge_devices::acpi_pm::AcpiPm;
use lodge_devices::bus::{Bus, SharedDevice};
use lodge_devices::cmos::{CMOS_PORTS, CMOS_PORTS_LENGTH, Cmos};
use lodge_devices::console::Console;
use lodge_devices::event_loop::LoopHandle;
use lodge_devices::fw_cfg::{FW_CFG_PORTS, FW_CFG_PORTS_LENGTH, FwCfg};
use lodge_devices::hotplug::Hotplug;
use lodge_devices::i8042::{I8042, I8042_PORTS, I8042_PORTS_LENGTH};
use lodge_devices::lifecycle::{DeviceSet, Shared};
use lodge_devices::pci::{
    Address, CONFIG_PORTS, CONFIG_PORTS_LENGTH, ConfigPorts, EcamWindow, HostBridge, Lpc, PciRoot,
    Windows,
};
use lodge_devices::port92::{PORT_92, PORT_92_LENGTH, Port92};
use lodge_devices::pvpanic::{OnPanic, PVPANIC_PORT, PVPANIC_PORT_LENGTH, PvPanic};
use lodge_devices::serial::{COM1, SERIAL_PORTS_LENGTH, Serial};
use lodge_devices::virtio::balloon;
use lodge_devices::virtio::blk;
use lodge_devices::virtio::console::VirtioConsole;
use lodge_devices::virtio::input::Tablet;
use lodge_devices::virtio::rng::Rng;
use lodge_devices::virtio::{Complain, VirtioDevice};
use lodge_devices::vmgenid::VmGenId;
use lodge_vmm_proto::LaunchError;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::Failure;
use super::chipset::Chipset;
use super::disks::{DiskUse, PluggedDisk};
use super::display::Display;
use super::nics::PluggedNic;
use super::pirq::Pirqs;
use super::plug::Ejections;
use super::sata::Sata;
use super::slots::{self, Slots};
use crate::firmware::{Flash, Place};
use crate::interrupt::Interrupts;
use crate::layout::{
    ECAM_BASE, ECAM_LENGTH, KEYBOARD, MOUSE, PCI_WINDOW_BASE, PCI_WINDOW_END, PM_BASE, SCI,
};
use crate::power::Power;
use crate::vcpu::Buses;

/// Runs first on every device thread.
pub type Prologue = Arc<dyn Fn() + Send + Sync>;

/// Hears on any thread why a disk cannot go on, by its serial number.
pub type OnStuck = Arc<dyn Fn(&str, IoError) + Send + Sync>;

/// What devices are built from.
pub struct Surroundings {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Wired interrupts, message-signalled ones, doorbells.
    pub interrupts: Interrupts,
    /// Reset and power-off.
    pub power: Arc<Power>,
    /// The loop that serves slow devices.
    pub events: LoopHandle,
    /// Who hears what goes wrong in devices.
    pub complain: Complain,
    /// Who hears that the guest's system has crashed.
    pub on_panic: OnPanic,
    /// Who hears that a disk holds back requests, by its serial number, and pauses the guest.
    pub on_stuck: OnStuck,
    /// For threads of queues.
    pub queue_prologue: Prologue,
    /// For the thread that shows the screen.
    pub viewers_prologue: Prologue,
    /// Window for 64-bit memory BARs.
    pub high_window: Range<u64>,
    /// Who puts the chipset in order.
    pub set_up_by: SetUpBy,
}

/// Who gives the chipset and PCI devices their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetUpBy {
    /// We do, as firmware would have: the guest's kernel finds everything in place.
    Monitor,
    /// Firmware does; at power-on nothing has an address.
    Firmware,
}

/// A machine's devices.
pub struct Hardware {
    /// Where they answer.
    pub buses: Arc<Buses>,
    /// All of them, for reset and pause.
    pub devices: DeviceSet,
    /// The serial port's other end.
    pub com1: Arc<Console>,
    /// The power button.
    pub pm: Arc<Mutex<AcpiPm>>,
    /// The generation id, once it is placed.
    pub generation: Option<Arc<Mutex<VmGenId>>>,
    /// The virtio console's other end.
    pub console: Arc<Console>,
    /// The disks, in the order of the guest's configuration.
    pub(super) disks: Vec<PluggedDisk>,
    /// The network interfaces, in the order of the guest's configuration.
    pub(super) nics: Vec<PluggedNic>,
    /// What was done with disks that are out.
    pub(super) use_of_gone: DiskUse,
    /// For disks that are plugged in.
    pub(super) spares: Spares,
    /// The registers by which devices come and go.
    pub(super) hotplug: Arc<Mutex<Hotplug>>,
    /// What the guest has ejected.
    pub(super) ejections: Arc<Ejections>,
    /// The memory balloon.
    pub balloon: balloon::Handle,
    /// What is plugged into the SATA controller.
    pub sata: Sata,
    /// Screen, keyboard and pointer, where firmware shows itself.
    pub display: Option<Display>,
    /// The tablet beside them, until it has its place.
    tablet: Option<Tablet>,
    /// Where one can boot from.
    pub place: Place,
    /// Battery-backed memory.
    pub cmos: Arc<Mutex<Cmos>>,
    pub(super) pci: Arc<PciRoot>,
    host_bridge: Arc<Mutex<HostBridge>>,
    lpc: Arc<Mutex<Lpc>>,
    /// The wires of PCI functions' interrupts.
    pub(super) pirqs: Pirqs,
    windows: Windows,
    pub(super) surroundings: Surroundings,
    pub(super) slots: Slots,
}

impl Hardware {
    /// The chipset and what every machine has.
    ///
    /// # Errors
    /// When the host is out of descriptors or threads.
    pub fn new(surroundings: Surroundings) -> Result<Self, Failure> {
        let interrupts = &surroundings.interrupts;
        let pm = Arc::new(Mutex::new(AcpiPm::new(
            interrupts.line(SCI),
            Arc::clone(&surroundings.power) as _,
        )));
        let com1 = Console::new(&surroundings.events)?;
        let console = Console::new(&surroundings.events)?;
        let buses = Arc::new(Buses {
            ports: Arc::new(Bus::new()),
            memory: Arc::new(Bus::new()),
        });
        let pci = Arc::new(PciRoot::new());
        let impossible = || Failure::new(LaunchError::Internal, "chipset: bad address");
        let ours = surroundings.set_up_by == SetUpBy::Monitor;
        let ecam = ours.then_some(EcamWindow {
            base: ECAM_BASE,
            length: ECAM_LENGTH,
        });
        let host_bridge = HostBridge::new(Arc::clone(&pci), &buses.memory, ecam);
        let pm_base = ours.then_some(PM_BASE);
        let lpc = Lpc::new(&buses.ports, Arc::clone(&pm), pm_base);
        let lpc = lpc.ok_or_else(impossible)?;
        let pirqs = Pirqs::new(interrupts, &lpc.routing());
        let clock = Cmos::new().with_alarm(interrupts.line(8), &surroundings.events)?;
        let balloon = super::balloon::device(&surroundings.queue_prologue)?;
        let ejections = Ejections::new()?;
        let hotplug = Self::hotplug(&pm, &pci, &ejections);
        let mut hardware = Self {
            buses,
            devices: DeviceSet::new(),
            com1,
            pm,
            generation: None,
            console,
            disks: Vec::new(),
            nics: Vec::new(),
            use_of_gone: DiskUse::default(),
            spares: Spares::new(blk::DEPTH),
            hotplug,
            ejections,
            balloon: balloon.handle(),
            sata: Sata::default(),
            display: None,
            tablet: None,
            place: Place::default(),
            cmos: clock,
            pci,
            host_bridge: Arc::new(Mutex::new(host_bridge.ok_or_else(impossible)?)),
            lpc: Arc::new(Mutex::new(lpc)),
            pirqs,
            windows: Windows {
                low: PCI_WINDOW_BASE..PCI_WINDOW_END,
                high: surroundings.high_window.clone(),
            },
            surroundings,
            slots: Slots::default(),
        };
        hardware.add_chipset()?;
        hardware.add_legacy_devices()?;
        hardware.add_slow_virtio_devices()?;
        let kind = LaunchError::Internal;
        hardware.add_virtio("balloon", Box::new(balloon), slots::BALLOON, kind)?;
        Ok(hardware)
    }

    fn add_chipset(&mut self) -> Result<(), Failure> {
        let power = Arc::clone(&self.surroundings.power);
        let config = ConfigPorts::new(Arc::clone(&self.pci), power);
        self.add_port_device(CONFIG_PORTS, CONFIG_PORTS_LENGTH, config)?;
        self.devices.add(Arc::clone(&self.pm) as Shared);
        self.add_function(HostBridge::ADDRESS, Arc::clone(&self.host_bridge))?;
        self.add_function(Lpc::ADDRESS, Arc::clone(&self.lpc))?;
        self.add_hotplug()
    }

    fn add_legacy_devices(&mut self) -> Result<(), Failure> {
        let (port, irq) = COM1;
        let line = self.surroundings.interrupts.line(irq as u8);
        let serial = Serial::with_console("com1", line, &self.com1);
        self.place(
            port,
            SERIAL_PORTS_LENGTH,
            Arc::clone(&serial) as SharedDevice,
        )?;
        self.devices.add(serial);
        self.add_keyboard_controller()?;
        let power = Arc::clone(&self.surroundings.power);
        self.add_port_device(PORT_92, PORT_92_LENGTH, Port92::new(power))?;
        let power = Arc::clone(&self.surroundings.power);
        let panic = PvPanic::new(power, Arc::clone(&self.surroundings.on_panic));
        self.add_port_device(PVPANIC_PORT, PVPANIC_PORT_LENGTH, panic)?;
        self.place(
            CMOS_PORTS,
            CMOS_PORTS_LENGTH,
            Arc::clone(&self.cmos) as SharedDevice,
        )?;
        self.devices.add(Arc::clone(&self.cmos) as Shared);
        Ok(())
    }

    /// The keyboard controller: bare, or with keyboard, mouse and a screen where there is firmware to use them.
    fn add_keyboard_controller(&mut self) -> Result<(), Failure> {
        let power = Arc::clone(&self.surroundings.power);
        let keyboard = self.surroundings.interrupts.line(KEYBOARD);
        if self.surroundings.set_up_by == SetUpBy::Monitor {
            let bare = I8042::new(power, keyboard);
            return self.add_port_device(I8042_PORTS, I8042_PORTS_LENGTH, bare);
        }
        let mouse = self.surroundings.interrupts.line(MOUSE);
        let prologue = Arc::clone(&self.surroundings.viewers_prologue);
        let memory = self.surroundings.memory.clone();
        let tablet = Tablet::new(&self.surroundings.events);
        let irqs = [keyboard, mouse];
        let display = Display::new(memory, power, irqs, tablet.handle(), prologue)?;
        self.tablet = Some(tablet);
        let controller = Arc::clone(display.controller()) as SharedDevice;
        self.place(I8042_PORTS, I8042_PORTS_LENGTH, controller)?;
        for device in display.devices() {
            self.devices.add(device);
        }
        self.display = Some(display);
        Ok(())
    }

    /// The device that tells firmware about the machine. To be added last: what it serves depends on all others.
    ///
    /// # Errors
    /// When its ports are taken.
    pub fn add_fw_cfg(&mut self, device: FwCfg) -> Result<(), Failure> {
        self.add_port_device(FW_CFG_PORTS, FW_CFG_PORTS_LENGTH, device)
    }

    /// The flash chip with firmware's variables.
    ///
    /// # Errors
    /// When something else is there.
    pub fn add_flash(&mut self, flash: &Flash) -> Result<(), Failure> {
        let Range { start, end } = flash.range;
        self.buses
            .memory
            .insert(start, end - start, Arc::clone(&flash.chip) as SharedDevice)
            .map_err(Failure::doing(LaunchError::Internal, "flash"))?;
        self.devices.add(Arc::clone(&flash.chip) as Shared);
        Ok(())
    }

    /// The chipset as ACPI tables describe it.
    pub fn chipset(&self, apic_ids: Vec<u8>) -> Chipset {
        let memory = &self.surroundings.memory;
        Chipset {
            root: Arc::clone(&self.pci),
            host_bridge: Arc::clone(&self.host_bridge),
            lpc: Arc::clone(&self.lpc),
            apic_ids,
            low_memory_end: memory
                .find_region(GuestAddress(0))
                .map_or(0, GuestMemoryRegion::len),
            high_window: self.windows.high.clone(),
            keyboard: self.display.is_some(),
        }
    }

    fn add_slow_virtio_devices(&mut self) -> Result<(), Failure> {
        let kind = LaunchError::Internal;
        let rng = Box::new(Rng::new(&self.surroundings.events));
        self.add_virtio("rng", rng, slots::RNG, kind)?;
        let console = VirtioConsole::new(&self.surroundings.events, &self.console);
        self.add_virtio("console", Box::new(console), slots::CONSOLE, kind)?;
        Ok(())
    }

    /// Adds the tablet, where there is a screen to point at. It takes no slot from disks and network interfaces, which keep
    /// the places they had in releases without it.
    ///
    /// # Errors
    /// When the host is out of descriptors.
    pub fn add_tablet(&mut self) -> Result<(), Failure> {
        if let Some(tablet) = self.tablet.take() {
            let kind = LaunchError::Internal;
            self.add_virtio("tablet", Box::new(tablet), slots::TABLET, kind)?;
        }
        Ok(())
    }

    pub(super) fn add_virtio(
        &mut self,
        name: &str,
        device: Box<dyn VirtioDevice>,
        range: RangeInclusive<u8>,
        kind: LaunchError,
    ) -> Result<Address, Failure> {
        let function = self
            .virtio_parts()
            .build(name, device)
            .map_err(Failure::doing(kind, name))?;
        self.add_in_slot(name, function, range, None, kind)
    }

    /// Puts a function into `slot` if it is given, or else the first free one of `range`.
    pub(super) fn add_in_slot<F>(
        &mut self,
        name: &str,
        function: Arc<Mutex<F>>,
        range: RangeInclusive<u8>,
        slot: Option<u8>,
        kind: LaunchError,
    ) -> Result<Address, Failure>
    where
        F: lodge_devices::pci::PciFunction + 'static,
    {
        let address = self.take_slot(name, range, slot, kind)?;
        self.add_function(address, function)?;
        Ok(address)
    }

    /// The slot that is given, or else a free one of `range`, or any.
    pub(super) fn take_slot(
        &mut self,
        name: &str,
        range: RangeInclusive<u8>,
        slot: Option<u8>,
        kind: LaunchError,
    ) -> Result<Address, Failure> {
        if let Some(slot) = slot {
            let taken = || {
                let message = format!("{name} was saved in PCI slot {slot}, which is taken");
                Failure::new(LaunchError::State, message)
            };
            return self.slots.take_of(std::iter::once(slot)).ok_or_else(taken);
        }
        self.slots
            .take(range)
            .ok_or_else(|| Failure::new(kind, format!("{name}: all PCI slots are taken")))
    }

    /// Gives PCI devices their addresses, as firmware would, unless firmware does.
    ///
    /// # Errors
    /// When the windows are full.
    pub fn assign_addresses(&self) -> Result<(), Failure> {
        if self.surroundings.set_up_by == SetUpBy::Firmware {
            return Ok(());
        }
        self.pci
            .assign_bars(&self.windows)
            .map_err(Failure::doing(LaunchError::Internal, "PCI"))
    }

    pub(super) fn add_function<F>(
        &mut self,
        address: Address,
        function: Arc<Mutex<F>>,
    ) -> Result<(), Failure>
    where
        F: lodge_devices::pci::PciFunction + 'static,
    {
        self.pci
            .add(address, Arc::clone(&function) as _)
            .map_err(Failure::doing(LaunchError::Internal, "PCI"))?;
        self.devices.add(function);
        Ok(())
    }

    fn add_port_device<D>(&mut self, base: u64, length: u64, device: D) -> Result<(), Failure>
    where
        D: lodge_devices::bus::BusDevice + lodge_devices::lifecycle::Device + 'static,
    {
        let device = Arc::new(Mutex::new(device));
        self.place(base, length, Arc::clone(&device) as SharedDevice)?;
        self.devices.add(device);
        Ok(())
    }

    pub(super) fn place(
        &self,
        base: u64,
        length: u64,
        device: SharedDevice,
    ) -> Result<(), Failure> {
        self.buses
            .ports
            .insert(base, length, device)
            .map_err(Failure::doing(LaunchError::Internal, "I/O ports"))
    }
}
