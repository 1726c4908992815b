//! Every device on a bus, read and written at every offset and width, in order and at random:
//! nothing panics, and the machine can be reset, saved and restored at any point.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vm_memory::GuestAddress;

use crate::GuestMemory;
use crate::acpi_pm::{AcpiPm, PM_BLOCK_LENGTH};
use crate::ahci::{Ahci, AhciOptions, Cdrom, Drive};
use crate::bus::Bus;
use crate::cmos::{CMOS_PORTS, CMOS_PORTS_LENGTH, Cmos};
use crate::console::Console;
use crate::event_loop::{EventLoop, LoopHandle};
use crate::fw_cfg::{FW_CFG_PORTS, FW_CFG_PORTS_LENGTH, FwCfg, Items};
use crate::i8042::{I8042, I8042_PORTS, I8042_PORTS_LENGTH};
use crate::lifecycle::{DeviceSet, LifecycleError};
use crate::pci::{
    Address, CONFIG_PORTS, CONFIG_PORTS_LENGTH, ConfigPorts, EcamWindow, HostBridge, Lpc, PciRoot,
    Windows,
};
use crate::port92::{PORT_92, PORT_92_LENGTH, Port92};
use crate::pvpanic::{PVPANIC_PORT, PVPANIC_PORT_LENGTH, PvPanic};
use crate::serial::{COM1, COM2, SERIAL_PORTS_LENGTH, Serial};
use crate::test_machine::{TestLine, TestPage, TestPlatform, TestPower};
use crate::virtio::VirtioDevice;
use crate::virtio::console::VirtioConsole;
use crate::virtio::pci::{BAR_BYTES, VirtioPci, VirtioPciOptions};
use crate::virtio::rng::Rng;
use crate::virtio::vsock;
use crate::vmgenid::VmGenId;

const ECAM: u64 = 0xe000_0000;
const PM: u64 = 0x600;
const WIDTHS: [usize; 4] = [1, 2, 4, 8];

struct Machine {
    ports: Arc<Bus>,
    memory: Arc<Bus>,
    root: Arc<PciRoot>,
    devices: DeviceSet,
    events: LoopHandle,
    bars: Vec<u64>,
    sata: u64,
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
fn sata(memory_bus: &Arc<Bus>) -> Arc<Mutex<Ahci>> {
    let mut drives = [const { None }; 6];
    drives[1] = Some(Drive::Cdrom(Cdrom::new(None, "sweep")));
    Ahci::new(AhciOptions {
        name: "sata".to_owned(),
        drives,
        memory: ram(),
        platform: TestPlatform::new(),
        line: TestLine::new(),
        memory_bus: memory_bus.clone(),
        prologue: Arc::new(|| {}),
        complain: Arc::new(|_, _| {}),
    })
    .unwrap()
}

fn machine() -> Machine {
    let events = EventLoop::new().unwrap();
    let handle = events.handle();
    events.spawn("sweep", || {}).unwrap();
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
    let bridge = HostBridge::new(root.clone(), memory.clone(), Some(window)).unwrap();
    let bridge = Arc::new(Mutex::new(bridge));
    root.add(HostBridge::ADDRESS, bridge.clone()).unwrap();
    devices.add(bridge);
    let lpc = Lpc::new(ports.clone(), pm, Some(PM as u16)).unwrap();
    let lpc = Arc::new(Mutex::new(lpc));
    root.add(Lpc::ADDRESS, lpc.clone()).unwrap();
    devices.add(lpc);
    let text = Console::new(&handle).unwrap();
    let virtio: [(&str, Box<dyn VirtioDevice>); 3] = [
        ("rng", Box::new(Rng::new(&handle))),
        ("console", Box::new(VirtioConsole::new(&handle, &text))),
        ("vsock", Box::new(vsock::tests::parked(&handle))),
    ];
    for (slot, (name, device)) in (1..).zip(virtio) {
        let function = VirtioPci::new(VirtioPciOptions {
            name: name.to_owned(),
            device,
            memory: ram(),
            platform: TestPlatform::new(),
            memory_bus: memory.clone(),
            complain: Arc::new(|_, _| {}),
        });
        let function = function.unwrap();
        root.add(Address::new(slot, 0).unwrap(), function.clone())
            .unwrap();
        devices.add(function);
    }
    let sata = sata(&memory);
    root.add(Ahci::ADDRESS, sata.clone()).unwrap();
    devices.add(sata);
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
    let fw_cfg = Arc::new(Mutex::new(FwCfg::new(ram(), items)));
    ports
        .insert(FW_CFG_PORTS, FW_CFG_PORTS_LENGTH, fw_cfg.clone())
        .unwrap();
    devices.add(fw_cfg);
    root.assign_bars(&windows()).unwrap();
    let mut machine = Machine {
        ports,
        memory,
        root,
        devices,
        events: handle,
        bars: Vec::new(),
        sata: 0,
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
        for slot in [1_u64, 2, 3] {
            let base = ECAM + (slot << 15);
            self.memory.write(base + 4, &[6, 0]);
            let mut bar = [0; 8];
            self.memory.read(base + 0x10, &mut bar);
            self.bars.push(u64::from_le_bytes(bar) & !0xf);
        }
        // Function 2 of device 31, whose registers are behind the last BAR.
        let base = ECAM + (0xfa << 12);
        self.memory.write(base + 4, &[6, 0]);
        let mut bar = [0; 4];
        self.memory.read(base + 0x24, &mut bar);
        self.sata = u64::from(u32::from_le_bytes(bar) & !0xf);
    }

    /// Bus (`true` for ports), first address and length of everything there is.
    fn ranges(&self) -> Vec<(bool, u64, u64)> {
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
        ];
        for slot in [0_u64, 1, 2, 3, 4, 31] {
            ranges.push((false, ECAM + (slot << 15), 0x1000));
        }
        ranges.extend(self.bars.iter().map(|&base| (false, base, BAR_BYTES)));
        ranges
    }

    fn bus(&self, ports: bool) -> &Bus {
        if ports { &self.ports } else { &self.memory }
    }

    fn power_cycle(&mut self) {
        self.devices.reset();
        self.root.assign_bars(&windows()).unwrap();
        self.enable();
    }
}

#[test]
fn every_offset_at_every_width() {
    let mut machine = machine();
    for (ports, base, length) in machine.ranges() {
        for value in [0x00, 0xff, 0x5a] {
            // From before the range to after it.
            for address in base.saturating_sub(8)..base + length + 8 {
                for width in WIDTHS {
                    let mut data = [0; 8];
                    machine.bus(ports).read(address, &mut data[..width]);
                    machine.bus(ports).write(address, &[value; 8][..width]);
                    machine.bus(ports).read(address, &mut data[..width]);
                }
            }
        }
        machine.power_cycle();
    }
}

#[test]
fn the_set_saves_and_restores() {
    let mut machine = machine();
    assert!(matches!(
        machine.devices.save(),
        Err(LifecycleError::Running)
    ));
    machine.devices.pause();
    let saved = machine.devices.save().unwrap();
    assert_eq!(saved.devices.len(), 16);
    let mut other = self::machine();
    assert!(matches!(
        other.devices.restore(&saved),
        Err(LifecycleError::Running)
    ));
    other.devices.pause();
    let mut fewer = saved.clone();
    fewer.devices.pop();
    assert!(matches!(
        other.devices.restore(&fewer),
        Err(LifecycleError::Devices { .. })
    ));
    // A release before some devices came.
    let earlier = |(name, _): &(String, _)| !["vmgenid", "pvpanic"].contains(&name.as_str());
    let mut old = saved.clone();
    old.devices.retain(earlier);
    assert_eq!(old.devices.len(), 14);
    other.devices.restore(&old).unwrap();
    let mut twice = saved.clone();
    twice.devices.push(saved.devices[0].clone());
    assert!(matches!(
        other.devices.restore(&twice),
        Err(LifecycleError::Devices { .. })
    ));
    let mut mixed = saved.clone();
    mixed.devices[0].1 = mixed.devices[2].1.clone();
    assert!(matches!(
        other.devices.restore(&mixed),
        Err(LifecycleError::Restore { .. })
    ));
    other.devices.restore(&saved).unwrap();
    assert_eq!(other.devices.save().unwrap(), saved);
    other.devices.resume();
    machine.devices.resume();
}

/// Paths to everything in a saved state that is not a list or structure itself.
fn leaves(value: &serde_json::Value, path: String, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                leaves(field, format!("{path}/{name}"), found);
            }
        }
        serde_json::Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, format!("{path}/{index}"), found);
            }
        }
        _ => found.push(path),
    }
}

fn forged() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        any::<u8>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<bool>().prop_map(Into::into),
        Just(serde_json::Value::Null),
        Just(serde_json::json!([])),
        Just(serde_json::json!("x")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_anywhere(steps in proptest::collection::vec(
        (any::<proptest::sample::Index>(), 0..0x8008_u64, 0..4_usize, any::<[u8; 8]>(), 0..40_u8), 0..400,
    )) {
        let mut machine = machine();
        for (range, offset, width, mut data, kind) in steps {
            let ranges = machine.ranges();
            let (ports, base, length) = ranges[range.index(ranges.len())];
            let address = base + offset % (length + 8);
            let data = &mut data[..WIDTHS[width]];
            match kind {
                0 => {
                    machine.devices.pause();
                    let saved = machine.devices.save().unwrap();
                    machine.devices.restore(&saved).unwrap();
                    prop_assert_eq!(machine.devices.save().unwrap(), saved);
                    machine.devices.resume();
                }
                1 => machine.power_cycle(),
                2..20 => machine.bus(ports).read(address, data),
                _ => machine.bus(ports).write(address, data),
            }
        }
    }

    /// A saved state from a stranger: each device takes it or leaves it, and works on.
    #[test]
    fn any_saved_state(
        forgeries in proptest::collection::vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), forged()), 1..8),
        steps in proptest::collection::vec((any::<proptest::sample::Index>(), 0..0x8008_u64, 0..4_usize, any::<[u8; 8]>()), 0..50),
    ) {
        let mut machine = machine();
        machine.devices.pause();
        let saved = machine.devices.save().unwrap();
        for (device, leaf, value) in forgeries {
            let (name, state) = &saved.devices[device.index(saved.devices.len())];
            let mut paths = Vec::new();
            leaves(&state.body, String::new(), &mut paths);
            if paths.is_empty() {
                continue;
            }
            let mut state = state.clone();
            *state.body.pointer_mut(&paths[leaf.index(paths.len())]).unwrap() = value;
            let device = machine.devices.iter().find(|device| device.lock().unwrap().name() == name);
            let _ = device.unwrap().lock().unwrap().restore(&state);
        }
        machine.devices.resume();
        for (range, offset, width, mut data) in steps {
            let ranges = machine.ranges();
            let (ports, base, length) = ranges[range.index(ranges.len())];
            let address = base + offset % (length + 8);
            machine.bus(ports).read(address, &mut data[..WIDTHS[width]]);
            machine.bus(ports).write(address, &data[..WIDTHS[width]]);
        }
        machine.power_cycle();
    }
}
