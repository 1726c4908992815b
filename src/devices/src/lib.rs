//! Device models of a guest's machine, and the buses they sit on.
//!
//! A device knows registers, queues and its own back end. It does not know who
//! calls it (a vCPU thread, through a [`bus::Bus`]), how an interrupt reaches
//! the guest ([`interrupt`]) or which hypervisor runs below.
//!
//! # How a monitor puts the machine together
//!
//! The monitor brings guest memory, two [`Bus`](bus::Bus)es (I/O ports and memory), an
//! [`InterruptLine`](interrupt::InterruptLine) for each wired input, a
//! [`Platform`](interrupt::Platform) for message-signalled interrupts and doorbells, and a
//! [`PowerControl`](power::PowerControl) that hears of resets and power-off.
//!
//! ```no_run
//! use std::sync::{Arc, Mutex};
//!
//! use lodge_devices::acpi_pm::AcpiPm;
//! use lodge_devices::bus::Bus;
//! use lodge_devices::cmos::{CMOS_PORTS, CMOS_PORTS_LENGTH, Cmos};
//! use lodge_devices::console::Console;
//! use lodge_devices::event_loop::EventLoop;
//! use lodge_devices::i8042::{I8042, I8042_PORTS, I8042_PORTS_LENGTH};
//! use lodge_devices::interrupt::{InterruptLine, Platform};
//! use lodge_devices::lifecycle::DeviceSet;
//! use lodge_devices::pci::{
//!     Address, CONFIG_PORTS, CONFIG_PORTS_LENGTH, ConfigPorts, EcamWindow, HostBridge, Lpc,
//!     PciRoot, Windows,
//! };
//! use lodge_devices::power::PowerControl;
//! use lodge_devices::serial::{COM1, SERIAL_PORTS_LENGTH, Serial};
//! use lodge_devices::virtio::VirtioDevice;
//! use lodge_devices::virtio::pci::{VirtioPci, VirtioPciOptions};
//! use lodge_devices::GuestMemory;
//!
//! fn machine(
//!     memory: &GuestMemory,
//!     irq: impl Fn(u32) -> Arc<dyn InterruptLine>,
//!     platform: Arc<dyn Platform>,
//!     power: Arc<dyn PowerControl>,
//!     disk: Box<dyn VirtioDevice>,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let (ports, mmio) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
//!     let mut devices = DeviceSet::new();
//!
//!     // Slow devices share one thread.
//!     let events = EventLoop::new()?;
//!     let handle = events.handle();
//!     events.spawn("devices", || { /* install a seccomp filter here */ })?;
//!
//!     // A console and the UART in front of it. `com1_console.attach(socket, scrollback)` shows it.
//!     let com1_console = Console::new(&handle)?;
//!     let com1 = Serial::with_console("com1", irq(COM1.1), &com1_console);
//!     ports.insert(COM1.0, SERIAL_PORTS_LENGTH, com1.clone())?;
//!     devices.add(com1);
//!
//!     let cmos = Cmos::new().with_alarm(irq(8), &handle)?;
//!     ports.insert(CMOS_PORTS, CMOS_PORTS_LENGTH, cmos.clone())?;
//!     devices.add(cmos);
//!
//!     let i8042 = Arc::new(Mutex::new(I8042::new(power.clone(), irq(1))));
//!     ports.insert(I8042_PORTS, I8042_PORTS_LENGTH, i8042.clone())?;
//!     devices.add(i8042);
//!
//!     // `pm.lock().unwrap().press_power_button()` asks the guest to shut down.
//!     let pm = Arc::new(Mutex::new(AcpiPm::new(irq(9), power.clone())));
//!     devices.add(pm.clone());
//!
//!     // The PCI bus. Ports at 0xCF8 include the reset register 0xCF9.
//!     let root = Arc::new(PciRoot::new());
//!     let config = Arc::new(Mutex::new(ConfigPorts::new(root.clone(), power.clone())));
//!     ports.insert(CONFIG_PORTS, CONFIG_PORTS_LENGTH, config.clone())?;
//!     devices.add(config);
//!     let ecam = EcamWindow { base: 0xe000_0000, length: 256 << 20 };
//!     let bridge = HostBridge::new(root.clone(), &mmio, Some(ecam)).ok_or("bad ECAM window")?;
//!     let bridge = Arc::new(Mutex::new(bridge));
//!     root.add(HostBridge::ADDRESS, bridge.clone())?;
//!     devices.add(bridge);
//!     // The LPC bridge puts the power management block at port 0x600.
//!     let lpc = Lpc::new(&ports, pm.clone(), Some(0x600)).ok_or("bad PM base")?;
//!     let lpc = Arc::new(Mutex::new(lpc));
//!     root.add(Lpc::ADDRESS, lpc.clone())?;
//!     devices.add(lpc);
//!
//!     // Virtio devices, each a function of its own.
//!     let disk = VirtioPci::new(VirtioPciOptions {
//!         name: "disk0".to_owned(),
//!         device: disk,
//!         memory: memory.clone(),
//!         platform: platform.clone(),
//!         memory_bus: mmio.clone(),
//!         complain: Arc::new(|device, what| eprintln!("{device}: {what}")),
//!     })?;
//!     root.add(Address::new(1, 0).ok_or("bad address")?, disk.clone())?;
//!     devices.add(disk);
//!
//!     // As firmware would: addresses for BARs, at start and after every `devices.reset()`.
//!     let windows = Windows { low: 0xc000_0000..0xe000_0000, high: 1 << 36..1 << 37 };
//!     root.assign_bars(&windows)?;
//!     Ok(())
//! }
//! ```
//!
//! vCPU threads then call [`Bus::read`](bus::Bus::read) and [`Bus::write`](bus::Bus::write) for every exit. Reset, pause,
//! save and restore go through the [`DeviceSet`](lifecycle::DeviceSet), with all vCPUs stopped; the order of calls
//! is in [`lifecycle`].
//!
//! What the machine description (ACPI) has to say is documented where it is decided: the
//! power management block in [`acpi_pm`], the clock in [`cmos`], the keyboard controller in
//! [`i8042`]. PCI functions with a wired interrupt are the SATA controller ([`ahci`]), pin A of device 31, and
//! network cards other than virtio's ([`e1000e`]), pin A of wherever they are.
//!
//! # Locks
//!
//! Each device has one lock, which the bus takes around an access. Below it come the bus
//! tables, the console and MSI-X vectors. Device threads never take a transport's lock: the
//! transport holds it while it waits for them.

pub mod acpi_pm;
pub mod ahci;
pub mod bus;
pub mod cmos;
pub mod console;
mod due;
pub mod e1000e;
pub mod event_loop;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod fw_cfg;
pub mod hotplug;
pub mod i6300esb;
pub mod i8042;
pub mod interrupt;
pub mod lifecycle;
pub mod nvme;
pub mod on_error;
pub mod pci;
pub mod pflash;
pub mod port92;
pub mod power;
pub mod pvpanic;
pub mod ramfb;
pub mod random;
pub mod serial;
pub mod state;
#[cfg(any(test, feature = "fuzzing"))]
mod sweep;
mod tap;
#[cfg(any(test, feature = "fuzzing"))]
mod test_machine;
#[cfg(test)]
mod test_wire;
pub mod throttle;
pub mod virtio;
pub mod vmgenid;

/// The memory of a guest as devices see it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
