//! The devices of a machine: which there are, and where they answer.

use std::ops::{Range, RangeInclusive};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use lodge_block::raw::RawDisk;
use lodge_devices::GuestMemory;
use lodge_devices::acpi_pm::AcpiPm;
use lodge_devices::bus::{Bus, SharedDevice};
use lodge_devices::cmos::{CMOS_PORTS, CMOS_PORTS_LENGTH, Cmos};
use lodge_devices::console::Console;
use lodge_devices::event_loop::LoopHandle;
use lodge_devices::i8042::{I8042, I8042_PORTS, I8042_PORTS_LENGTH};
use lodge_devices::interrupt::Platform;
use lodge_devices::lifecycle::{DeviceSet, Shared};
use lodge_devices::pci::{
    Address, CONFIG_PORTS, CONFIG_PORTS_LENGTH, ConfigPorts, EcamWindow, HostBridge, Lpc, PciRoot,
    Windows,
};
use lodge_devices::serial::{COM1, SERIAL_PORTS_LENGTH, Serial};
use lodge_devices::virtio::blk::{self, Block};
use lodge_devices::virtio::console::VirtioConsole;
use lodge_devices::virtio::net::{self, Net};
use lodge_devices::virtio::pci::{VirtioPci, VirtioPciOptions};
use lodge_devices::virtio::rng::Rng;
use lodge_devices::virtio::{Complain, VirtioDevice};
use lodge_vmm_proto::LaunchError;

use super::Failure;
use super::slots::{self, Slots};
use crate::interrupt::Interrupts;
use crate::layout::{ECAM_BASE, ECAM_LENGTH, PCI_WINDOW_BASE, PCI_WINDOW_END, PM_BASE, SCI};
use crate::power::Power;
use crate::vcpu::Buses;

/// Runs first on every device thread.
pub type Prologue = Arc<dyn Fn() + Send + Sync>;

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
    /// For threads of queues.
    pub queue_prologue: Prologue,
    /// Window for 64-bit memory BARs.
    pub high_window: Range<u64>,
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
    /// The virtio console's other end.
    pub console: Arc<Console>,
    /// The disks, in order.
    pub disks: Vec<blk::Handle>,
    nics: usize,
    pci: Arc<PciRoot>,
    windows: Windows,
    surroundings: Surroundings,
    slots: Slots,
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
        let mut hardware = Self {
            buses: Arc::new(Buses {
                ports: Arc::new(Bus::new()),
                memory: Arc::new(Bus::new()),
            }),
            devices: DeviceSet::new(),
            com1,
            pm,
            console,
            disks: Vec::new(),
            nics: 0,
            pci: Arc::new(PciRoot::new()),
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
        Ok(hardware)
    }

    fn add_chipset(&mut self) -> Result<(), Failure> {
        let impossible = || Failure::new(LaunchError::Internal, "chipset: bad address");
        let power = Arc::clone(&self.surroundings.power);
        let config = ConfigPorts::new(Arc::clone(&self.pci), power);
        self.add_port_device(CONFIG_PORTS, CONFIG_PORTS_LENGTH, config)?;
        self.devices.add(Arc::clone(&self.pm) as Shared);
        let ecam = EcamWindow {
            base: ECAM_BASE,
            length: ECAM_LENGTH,
        };
        let memory_bus = Arc::clone(&self.buses.memory);
        let bridge = HostBridge::new(Arc::clone(&self.pci), memory_bus, Some(ecam));
        self.add_function(
            HostBridge::ADDRESS,
            Arc::new(Mutex::new(bridge.ok_or_else(impossible)?)),
        )?;
        let lpc = Lpc::new(
            Arc::clone(&self.buses.ports),
            Arc::clone(&self.pm),
            Some(PM_BASE),
        );
        self.add_function(
            Lpc::ADDRESS,
            Arc::new(Mutex::new(lpc.ok_or_else(impossible)?)),
        )
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
        let power = Arc::clone(&self.surroundings.power);
        let keyboard = I8042::new(power, self.surroundings.interrupts.line(1));
        self.add_port_device(I8042_PORTS, I8042_PORTS_LENGTH, keyboard)?;
        let irq = self.surroundings.interrupts.line(8);
        let clock = Cmos::new().with_alarm(irq, &self.surroundings.events)?;
        self.place(
            CMOS_PORTS,
            CMOS_PORTS_LENGTH,
            Arc::clone(&clock) as SharedDevice,
        )?;
        self.devices.add(clock);
        Ok(())
    }

    fn add_slow_virtio_devices(&mut self) -> Result<(), Failure> {
        let kind = LaunchError::Internal;
        let rng = Box::new(Rng::new(&self.surroundings.events));
        self.add_virtio("rng", rng, slots::RNG, kind)?;
        let console = VirtioConsole::new(&self.surroundings.events, &self.console);
        self.add_virtio("console", Box::new(console), slots::CONSOLE, kind)
    }

    /// Adds a disk.
    ///
    /// # Errors
    /// When the host cannot serve it.
    pub fn add_disk(&mut self, disk: RawDisk, options: blk::Options) -> Result<(), Failure> {
        let name = format!("disk{}", self.disks.len());
        let prologue = Arc::clone(&self.surroundings.queue_prologue);
        let block = Block::new(disk, options, prologue)
            .map_err(Failure::doing(LaunchError::Disk, &name))?;
        self.disks.push(block.handle());
        self.add_virtio(&name, Box::new(block), slots::DISKS, LaunchError::Disk)
    }

    /// Adds a network interface on a tap, served by the kernel if there is a `vhost`.
    ///
    /// # Errors
    /// When the descriptors are not what they should be, or the host refuses.
    pub fn add_nic(
        &mut self,
        tap: OwnedFd,
        vhost: Option<OwnedFd>,
        options: net::Options,
    ) -> Result<(), Failure> {
        let name = format!("nic{}", self.nics);
        self.nics += 1;
        let prologue = Arc::clone(&self.surroundings.queue_prologue);
        let device = Net::new(tap, vhost, options, prologue)
            .map_err(Failure::doing(LaunchError::Nic, &name))?;
        self.add_virtio(&name, Box::new(device), slots::NICS, LaunchError::Nic)
    }

    fn add_virtio(
        &mut self,
        name: &str,
        device: Box<dyn VirtioDevice>,
        range: RangeInclusive<u8>,
        kind: LaunchError,
    ) -> Result<(), Failure> {
        let function = VirtioPci::new(VirtioPciOptions {
            name: name.to_owned(),
            device,
            memory: self.surroundings.memory.clone(),
            platform: Arc::new(self.surroundings.interrupts.clone()) as Arc<dyn Platform>,
            memory_bus: Arc::clone(&self.buses.memory),
            complain: Arc::clone(&self.surroundings.complain),
        })
        .map_err(Failure::doing(kind, name))?;
        let address = self
            .slots
            .take(range)
            .ok_or_else(|| Failure::new(kind, format!("{name}: all PCI slots are taken")))?;
        self.add_function(address, function)
    }

    /// Gives PCI devices their addresses, as firmware would.
    ///
    /// # Errors
    /// When the windows are full.
    pub fn assign_addresses(&self) -> Result<(), Failure> {
        self.pci
            .assign_bars(&self.windows)
            .map_err(Failure::doing(LaunchError::Internal, "PCI"))
    }

    fn add_function<F>(&mut self, address: Address, function: Arc<Mutex<F>>) -> Result<(), Failure>
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

    fn place(&self, base: u64, length: u64, device: SharedDevice) -> Result<(), Failure> {
        self.buses
            .ports
            .insert(base, length, device)
            .map_err(Failure::doing(LaunchError::Internal, "I/O ports"))
    }
}
