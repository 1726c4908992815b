//! A machine with every device that sits on a bus, to be read and written at every offset and width, in order and
//! at random: nothing panics, and it can be reset, saved and restored at any point.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

#[cfg(test)]
use lodge_block::raw::RawDisk;
use vm_memory::GuestAddress;

use crate::GuestMemory;
use crate::acpi_pm::{AcpiPm, PM_BLOCK_LENGTH};
use crate::ahci::{Ahci, AhciOptions, Cdrom, Drive};
use crate::bus::Bus;
use crate::cmos::{CMOS_PORTS, CMOS_PORTS_LENGTH, Cmos};
use crate::console::Console;
#[cfg(test)]
use crate::e1000e::{E1000e, E1000eOptions};
use crate::event_loop::LoopHandle;
use crate::fw_cfg::{FW_CFG_PORTS, FW_CFG_PORTS_LENGTH, FwCfg, Items};
#[cfg(test)]
use crate::hotplug::HOTPLUG_SLOTS;
use crate::hotplug::{HOTPLUG_PORTS, HOTPLUG_PORTS_LENGTH, Hotplug};
use crate::i6300esb::Watchdog;
use crate::i8042::{I8042, I8042_PORTS, I8042_PORTS_LENGTH};
use crate::lifecycle::DeviceSet;
#[cfg(test)]
use crate::nvme::{self, Nvme, NvmeDiskOptions, NvmeOptions};
use crate::pci::{
    Address, CONFIG_PORTS, CONFIG_PORTS_LENGTH, ConfigPorts, EcamWindow, HostBridge, Lpc, PciRoot,
    Windows,
};
use crate::port92::{PORT_92, PORT_92_LENGTH, Port92};
use crate::pvpanic::{PVPANIC_PORT, PVPANIC_PORT_LENGTH, PvPanic};
use crate::serial::{COM1, COM2, SERIAL_PORTS_LENGTH, Serial};
use crate::test_machine::{TestLine, TestPage, TestPlatform, TestPower};
#[cfg(test)]
use crate::test_wire::{self, MAC};
use crate::virtio::VirtioDevice;
use crate::virtio::console::VirtioConsole;
use crate::virtio::input::Tablet;
use crate::virtio::pci::{BAR_BYTES, VirtioPci, VirtioPciOptions};
use crate::virtio::rng::Rng;
use crate::virtio::vsock::Vsock;
use crate::vmgenid::VmGenId;

const ECAM: u64 = 0xe000_0000;
const PM: u64 = 0x600;
const WATCHDOG: u8 = 7;

/// The machine. Nothing in it reaches beyond the process.
pub struct Machine {
    /// I/O ports.
    pub ports: Arc<Bus>,
    /// Memory-mapped registers.
    pub memory: Arc<Bus>,
    /// What devices reach by DMA.
    pub ram: GuestMemory,
    /// All devices.
    pub devices: DeviceSet,
    root: Arc<PciRoot>,
    events: LoopHandle,
    /// First address and length of what is behind the first BARs.
    bars: Vec<(u64, u64)>,
    sata: u64,
    watchdog: u64,
}

fn windows() -> Windows {
    Windows {
        low: 0xc000_0000..ECAM,
        high: 1 << 36..1 << 37,
    }
}

fn ram() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap()
}

/// A controller with an empty CD-ROM drive.
fn sata(memory_bus: &Arc<Bus>, ram: &GuestMemory) -> Arc<Mutex<Ahci>> {
    let mut drives = [const { None }; 6];
    drives[1] = Some(Drive::Cdrom(Cdrom::new(None, "sweep")));
    Ahci::new(AhciOptions {
        name: "sata".to_owned(),
        drives,
        memory: ram.clone(),
        platform: TestPlatform::new(),
        line: TestLine::new(),
        memory_bus: memory_bus.clone(),
        prologue: Arc::new(|| {}),
        complain: Arc::new(|_, _| {}),
    })
    .unwrap()
}

/// What has a thread and a file behind it, which fuzzing does without.
#[cfg(test)]
const NVME_SLOT: u64 = 5;

/// What has a tap behind it.
#[cfg(test)]
const CARD_SLOT: u64 = 6;

/// A network card whose cable nobody else holds.
#[cfg(test)]
fn card(memory_bus: &Arc<Bus>, ram: &GuestMemory) -> Arc<Mutex<E1000e>> {
    E1000e::new(E1000eOptions {
        name: "card".to_owned(),
        tap: test_wire::wire().0,
        mac: MAC,
        memory: ram.clone(),
        platform: TestPlatform::new(),
        line: TestLine::new(),
        memory_bus: memory_bus.clone(),
        prologue: Arc::new(|| {}),
    })
    .unwrap()
}

/// A controller with a small disk.
#[cfg(test)]
fn nvme(memory_bus: &Arc<Bus>, ram: &GuestMemory) -> Arc<Mutex<Nvme>> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    Nvme::new(NvmeOptions {
        name: "disk0".to_owned(),
        image: RawDisk::open(file.into()).unwrap(),
        disk: NvmeDiskOptions {
            read_only: false,
            serial: "sweep".to_owned(),
            queues: 2,
        },
        memory: ram.clone(),
        platform: TestPlatform::new(),
        memory_bus: memory_bus.clone(),
        prologue: Arc::new(|| {}),
        complain: Arc::new(|_, _| {}),
    })
    .unwrap()
}

/// The machine after power-on, with its BARs placed. Its slow devices are served by `events`.
///
/// # Panics
/// When the process is out of descriptors.
pub fn machine(events: &LoopHandle) -> Machine {
    let handle = events.clone();
    let ram = ram();
    let (ports, memory) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
    let power = TestPower::new();
    let mut devices = DeviceSet::new();
    for (name, (base, _)) in [("com1", COM1), ("com2", COM2)] {
        let console = Console::new(&handle).unwrap();
        let serial = Serial::with_console(name, TestLine::new(), &console);
        ports
            .insert(base, SERIAL_PORTS_LENGTH, serial.clone())
            .unwrap();
        devices.add(serial);
    }
    let cmos = Cmos::new().with_alarm(TestLine::new(), &handle).unwrap();
    ports
        .insert(CMOS_PORTS, CMOS_PORTS_LENGTH, cmos.clone())
        .unwrap();
    devices.add(cmos);
    let i8042 = Arc::new(Mutex::new(I8042::new(power.clone(), TestLine::new())));
    ports
        .insert(I8042_PORTS, I8042_PORTS_LENGTH, i8042.clone())
        .unwrap();
    devices.add(i8042);
    let pm = Arc::new(Mutex::new(AcpiPm::new(TestLine::new(), power.clone())));
    devices.add(pm.clone());
    let generation = VmGenId::new(Box::new(TestPage::new()), pm.clone()).unwrap();
    devices.add(Arc::new(Mutex::new(generation)));
    let hotplug = Hotplug::new(pm.clone(), Arc::new(|_| {}));
    let hotplug = Arc::new(Mutex::new(hotplug));
    // Something to tell, and something to eject.
    #[cfg(test)]
    for slot in HOTPLUG_SLOTS {
        hotplug.lock().unwrap().added(slot);
        hotplug.lock().unwrap().ask(slot);
    }
    ports
        .insert(HOTPLUG_PORTS, HOTPLUG_PORTS_LENGTH, hotplug.clone())
        .unwrap();
    devices.add(hotplug);
    let root = Arc::new(PciRoot::new());
    let config = Arc::new(Mutex::new(ConfigPorts::new(root.clone(), power.clone())));
    ports
        .insert(CONFIG_PORTS, CONFIG_PORTS_LENGTH, config.clone())
        .unwrap();
    devices.add(config);
    let window = EcamWindow {
        base: ECAM,
        length: 256 << 20,
    };
    let bridge = HostBridge::new(root.clone(), &memory, Some(window)).unwrap();
    let bridge = Arc::new(Mutex::new(bridge));
    root.add(HostBridge::ADDRESS, bridge.clone()).unwrap();
    devices.add(bridge);
    let lpc = Lpc::new(&ports, pm, Some(PM as u16)).unwrap();
    let lpc = Arc::new(Mutex::new(lpc));
    root.add(Lpc::ADDRESS, lpc.clone()).unwrap();
    devices.add(lpc);
    let text = Console::new(&handle).unwrap();
    let virtio: [(&str, Box<dyn VirtioDevice>); 4] = [
        ("rng", Box::new(Rng::new(&handle))),
        ("console", Box::new(VirtioConsole::new(&handle, &text))),
        ("vsock", Box::new(Vsock::parked(&handle))),
        ("tablet", Box::new(Tablet::new(&handle))),
    ];
    for (slot, (name, device)) in (1..).zip(virtio) {
        let function = VirtioPci::new(VirtioPciOptions {
            name: name.to_owned(),
            device,
            memory: ram.clone(),
            platform: TestPlatform::new(),
            memory_bus: memory.clone(),
            complain: Arc::new(|_, _| {}),
        });
        let function = function.unwrap();
        root.add(Address::new(slot, 0).unwrap(), function.clone())
            .unwrap();
        devices.add(function);
    }
    let watchdog = Watchdog::new(&memory, &handle, Arc::new(|| {})).unwrap();
    root.add(Address::new(WATCHDOG, 0).unwrap(), watchdog.clone())
        .unwrap();
    devices.add(watchdog);
    let sata = sata(&memory, &ram);
    root.add(Ahci::ADDRESS, sata.clone()).unwrap();
    devices.add(sata);
    #[cfg(test)]
    {
        let nvme = nvme(&memory, &ram);
        let slot = Address::new(NVME_SLOT as u8, 0).unwrap();
        root.add(slot, nvme.clone()).unwrap();
        devices.add(nvme);
        let card = card(&memory, &ram);
        let slot = Address::new(CARD_SLOT as u8, 0).unwrap();
        root.add(slot, card.clone()).unwrap();
        devices.add(card);
    }
    let port92 = Arc::new(Mutex::new(Port92::new(power.clone())));
    ports
        .insert(PORT_92, PORT_92_LENGTH, port92.clone())
        .unwrap();
    devices.add(port92);
    let pvpanic = Arc::new(Mutex::new(PvPanic::new(power, Arc::new(|_| {}))));
    ports
        .insert(PVPANIC_PORT, PVPANIC_PORT_LENGTH, pvpanic.clone())
        .unwrap();
    devices.add(pvpanic);
    let mut items = Items::new();
    items.add_file("etc/file", vec![7; 100]);
    let fw_cfg = Arc::new(Mutex::new(FwCfg::new(ram.clone(), items)));
    ports
        .insert(FW_CFG_PORTS, FW_CFG_PORTS_LENGTH, fw_cfg.clone())
        .unwrap();
    devices.add(fw_cfg);
    root.assign_bars(&windows()).unwrap();
    let mut machine = Machine {
        ports,
        memory,
        ram,
        devices,
        root,
        events: handle,
        bars: Vec::new(),
        sata: 0,
        watchdog: 0,
    };
    machine.enable();
    machine
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.events.stop();
    }
}

impl Machine {
    /// Turns memory decoding on, as drivers do, and notes where the BARs are.
    fn enable(&mut self) {
        self.bars.clear();
        let virtio = [1_u64, 2, 3, 4].map(|slot| (slot, BAR_BYTES));
        #[cfg(test)]
        let others = [(NVME_SLOT, nvme::BAR_BYTES)];
        #[cfg(not(test))]
        let others = [];
        for (slot, length) in virtio.into_iter().chain(others) {
            let base = ECAM + (slot << 15);
            self.memory.write(base + 4, &[6, 0]);
            let mut bar = [0; 8];
            self.memory.read(base + 0x10, &mut bar);
            self.bars.push((u64::from_le_bytes(bar) & !0xf, length));
        }
        self.watchdog = self.bar(u64::from(WATCHDOG) << 3, 0x10);
        // Function 2 of device 31, whose registers are behind the last BAR.
        self.sata = self.bar(0xfa, 0x24);
        #[cfg(test)]
        {
            let [registers, vectors] = [0x10, 0x1c].map(|offset| self.bar(CARD_SLOT << 3, offset));
            // As far as there is anything.
            self.bars.push((registers, 0x6000));
            self.bars.push((registers + 0xb600, 0x40));
            self.bars.push((vectors, 0x4000));
        }
    }

    /// Turns a function on; the address in its BAR at `offset`, of 32 bits.
    fn bar(&self, function: u64, offset: u64) -> u64 {
        let base = ECAM + (function << 12);
        self.memory.write(base + 4, &[6, 0]);
        let mut bar = [0; 4];
        self.memory.read(base + offset, &mut bar);
        u64::from(u32::from_le_bytes(bar) & !0xf)
    }

    /// Bus (`true` for ports), first address and length of everything there is.
    pub fn ranges(&self) -> Vec<(bool, u64, u64)> {
        let mut ranges = vec![
            (true, COM1.0, SERIAL_PORTS_LENGTH),
            (true, COM2.0, SERIAL_PORTS_LENGTH),
            (true, CMOS_PORTS, CMOS_PORTS_LENGTH),
            (true, I8042_PORTS, I8042_PORTS_LENGTH),
            (true, CONFIG_PORTS, CONFIG_PORTS_LENGTH),
            (true, PM, PM_BLOCK_LENGTH),
            (true, PORT_92, PORT_92_LENGTH),
            (true, PVPANIC_PORT, PVPANIC_PORT_LENGTH),
            (true, FW_CFG_PORTS, FW_CFG_PORTS_LENGTH),
            (false, ECAM + (0xfa << 12), 0x1000),
            (false, self.sata, 0x1000),
            (false, self.watchdog, 0x10),
        ];
        for slot in [0_u64, 1, 2, 3, 4, 5, 6, 7, 8, 31] {
            ranges.push((false, ECAM + (slot << 15), 0x1000));
        }
        let bars = self.bars.iter();
        ranges.extend(bars.map(|&(base, length)| (false, base, length)));
        ranges.push((true, HOTPLUG_PORTS, HOTPLUG_PORTS_LENGTH));
        ranges
    }

    /// One of the two buses.
    pub fn bus(&self, ports: bool) -> &Bus {
        if ports { &self.ports } else { &self.memory }
    }

    /// Power-on again, with the BARs placed as by firmware.
    ///
    /// # Panics
    /// When there is no place for a BAR.
    pub fn power_cycle(&mut self) {
        self.devices.reset();
        self.root.assign_bars(&windows()).unwrap();
        self.enable();
    }
}
