use std::sync::{Arc, Mutex, Weak};

use proptest::prelude::*;

use super::*;
use crate::acpi_pm::AcpiPm;
use crate::bus::{Bus, BusDevice};
use crate::lifecycle::Device;
use crate::state::{DeviceState, RestoreError};
use crate::test_machine::{TestLine, TestPlatform, TestPower};

const ECAM: EcamWindow = EcamWindow {
    base: 0xe000_0000,
    length: 256 << 20,
};

/// A function with a BAR of each kind and an MSI-X capability, whose BARs read as their number.
struct Card {
    config: ConfigSpace,
    bars: Bars,
    msix: Msix,
    msix_capability: usize,
}

struct Region(u8);

impl BusDevice for Region {
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(self.0);
    }

    fn write(&mut self, _: u64, _: &[u8]) {}
}

type SharedRegion = Arc<Mutex<dyn BusDevice>>;

fn card(bus: &Arc<Bus>, platform: &TestPlatform) -> (Card, [SharedRegion; 2]) {
    let mut config = ConfigSpace::new(&Header {
        vendor: 0x1234,
        device: 0x5678,
        revision: 9,
        class: 0x02_00_00,
        subsystem_vendor: 0x1af4,
        subsystem: 1,
        multifunction: false,
    });
    let regions: [SharedRegion; 2] = [1, 2].map(|n| Arc::new(Mutex::new(Region(n))) as _);
    let mut bars = Bars::new(bus);
    let weak: Vec<Weak<_>> = regions.iter().map(Arc::downgrade).collect();
    bars.add(&mut config, 0, 0x1000, BarKind::Memory32, weak[0].clone())
        .unwrap();
    bars.add(&mut config, 2, 0x4000, BarKind::Memory64, weak[1].clone())
        .unwrap();
    let msix = Msix::new(platform, 3).unwrap();
    let msix_capability = msix.add_capability(&mut config, 2, 0x0, 0x800);
    let card = Card {
        config,
        bars,
        msix,
        msix_capability,
    };
    (card, regions)
}

impl PciFunction for Card {
    fn config_read(&mut self, offset: usize, data: &mut [u8]) {
        assert!(offset + data.len() <= CONFIG_BYTES && offset % 4 + data.len() <= 4);
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= CONFIG_BYTES && offset % 4 + data.len() <= 4);
        self.config.write(offset, data);
        self.msix.sync(&self.config, self.msix_capability);
        self.bars.sync(&self.config);
    }

    fn bar_requests(&self) -> Vec<(usize, u64, BarKind)> {
        self.bars.requests()
    }

    fn set_bar(&mut self, index: usize, base: u64) {
        self.bars.set(&mut self.config, index, base);
        self.bars.sync(&self.config);
    }
}

impl Device for Card {
    fn name(&self) -> &str {
        "card"
    }

    fn reset(&mut self) {
        self.config.reset();
        self.bars.sync(&self.config);
    }

    fn save(&self) -> DeviceState {
        DeviceState::new("card", 1, &self.config.save())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let config = state.decode("card", 1)?;
        self.config
            .restore(&config)
            .map_err(|problem| RestoreError::Invalid {
                kind: "card",
                problem,
            })
    }
}

/// A bus with bridge, LPC and one card at 00:03.0.
struct Rig {
    ports: Arc<Bus>,
    memory: Arc<Bus>,
    root: Arc<PciRoot>,
    power: Arc<TestPower>,
    platform: Arc<TestPlatform>,
    bridge: Arc<Mutex<HostBridge>>,
    lpc: Arc<Mutex<Lpc>>,
    card: Arc<Mutex<Card>>,
    _regions: [SharedRegion; 2],
}

fn rig() -> Rig {
    let (ports, memory) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
    let (power, platform) = (TestPower::new(), TestPlatform::new());
    let root = Arc::new(PciRoot::new());
    let config = ConfigPorts::new(root.clone(), power.clone());
    let config = Arc::new(Mutex::new(config));
    ports
        .insert(CONFIG_PORTS, CONFIG_PORTS_LENGTH, config)
        .unwrap();
    let bridge = HostBridge::new(root.clone(), &memory, Some(ECAM)).unwrap();
    let bridge = Arc::new(Mutex::new(bridge));
    root.add(HostBridge::ADDRESS, bridge.clone()).unwrap();
    let pm = AcpiPm::new(TestLine::new(), power.clone());
    let lpc = Lpc::new(&ports, Arc::new(Mutex::new(pm)), Some(0x600)).unwrap();
    let lpc = Arc::new(Mutex::new(lpc));
    root.add(Lpc::ADDRESS, lpc.clone()).unwrap();
    let (card, _regions) = card(&memory, &platform);
    let card = Arc::new(Mutex::new(card));
    root.add(Address::new(3, 0).unwrap(), card.clone()).unwrap();
    Rig {
        ports,
        memory,
        root,
        power,
        platform,
        bridge,
        lpc,
        card,
        _regions,
    }
}

impl Rig {
    /// Configuration read by ports.
    fn get(&self, device: u32, register: u32) -> u32 {
        let address = 1 << 31 | device << 11 | register;
        self.ports.write(0xcf8, &address.to_le_bytes());
        let mut data = [0; 4];
        self.ports.read(0xcfc, &mut data);
        u32::from_le_bytes(data)
    }

    fn put(&self, device: u32, register: u32, value: u32) {
        let address = 1 << 31 | device << 11 | register;
        self.ports.write(0xcf8, &address.to_le_bytes());
        self.ports.write(0xcfc, &value.to_le_bytes());
    }

    fn ecam(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.memory.read(ECAM.base + offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Which region of the card answers at `address`.
    fn region(&self, address: u64) -> u8 {
        let mut data = [0];
        self.memory.read(address, &mut data);
        data[0]
    }
}

#[test]
fn both_mechanisms_show_the_same() {
    let rig = rig();
    for (device, id) in [
        (0, 0x29c0_8086),
        (31, 0x2918_8086),
        (3, 0x5678_1234),
        (1, u32::MAX),
    ] {
        assert_eq!(rig.get(device, 0), id);
        assert_eq!(rig.ecam(u64::from(device) << 15), id);
    }
    assert_eq!(rig.get(0, 8), 0x0600_0000);
    assert_eq!(rig.get(31, 8), 0x0601_0002);
    assert_eq!(rig.ecam(3 << 15 | 0x100), 0, "no extended capabilities");
    assert_eq!(rig.ecam(1 << 20), u32::MAX, "no other bus");
    assert_eq!(rig.ecam(3 << 15 | 1 << 12), u32::MAX, "no other function");
    // No interrupt pin anywhere.
    assert_eq!(rig.get(3, 0x3c) >> 8, 0);
}

#[test]
fn mechanism_1_takes_widths_and_the_enable_bit() {
    let rig = rig();
    rig.get(3, 0);
    let mut byte = [0];
    rig.ports.read(0xcff, &mut byte);
    assert_eq!(byte[0], 0x56);
    let mut word = [0; 2];
    rig.ports.read(0xcfe, &mut word);
    assert_eq!(word, [0x78, 0x56]);
    let mut wide = [0; 8];
    rig.ports.read(0xcfe, &mut wide);
    assert_eq!(wide, [0x78, 0x56, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    // The address register ignores narrow writes and its reserved bits.
    rig.ports.write(0xcf8, &[0, 0]);
    rig.ports.write(0xcfa, &[0xff]);
    let mut address = [0; 4];
    rig.ports.read(0xcf8, &mut address);
    assert_eq!(u32::from_le_bytes(address), 0x8000_1800);
    rig.ports.write(0xcf8, &0x7fff_ffff_u32.to_le_bytes());
    rig.ports.read(0xcf8, &mut address);
    assert_eq!(u32::from_le_bytes(address), 0x00ff_fffc);
    rig.ports.read(0xcfc, &mut address);
    assert_eq!(address, [0xff; 4], "not enabled");
}

#[test]
fn resets_through_0xcf9() {
    let rig = rig();
    rig.ports.write(0xcf9, &[0x02]);
    assert_eq!(rig.power.counts(), (0, 0));
    rig.ports.write(0xcf9, &[0x06]);
    assert_eq!(rig.power.counts(), (1, 0));
    let mut byte = [0];
    rig.ports.read(0xcf9, &mut byte);
    assert_eq!(byte[0], 0x06);
    rig.ports.write(0xcf9, &[0x0e]);
    assert_eq!(rig.power.counts(), (1, 0), "only a rising edge");
    rig.ports.write(0xcf9, &[0x00]);
    rig.ports.write(0xcf9, &[0x0f]);
    assert_eq!(rig.power.counts(), (2, 0));
}

#[test]
fn sizes_and_moves_bars() {
    let rig = rig();
    let windows = Windows {
        low: 0xc000_0000..0xc010_0000,
        high: 0x10_0000_0000..0x20_0000_0000,
    };
    rig.root.assign_bars(&windows).unwrap();
    assert_eq!(rig.get(3, 0x10), 0xc000_0000);
    assert_eq!((rig.get(3, 0x18), rig.get(3, 0x1c)), (0x0000_000c, 0x10));
    assert_eq!(rig.region(0xc000_0000), 0xff, "decoding is off");
    // Linux sizes with decoding off.
    for (register, mask) in [
        (0x10, 0xffff_f000),
        (0x18, 0xffff_c00c),
        (0x1c, u32::MAX),
        (0x14, 0),
        (0x20, 0),
        (0x30, 0),
    ] {
        let before = rig.get(3, register);
        rig.put(3, register, u32::MAX);
        assert_eq!(rig.get(3, register), mask, "register {register:#x}");
        rig.put(3, register, before);
        assert_eq!(rig.get(3, register), before);
    }
    rig.put(3, 0x04, 0x0002);
    assert_eq!(rig.region(0xc000_0fff), 1);
    assert_eq!(rig.region(0xc000_1000), 0xff);
    assert_eq!(rig.region(0x10_0000_3fff), 2);
    // Moves, one half at a time, with decoding on.
    rig.put(3, 0x18, 0x8000_0000);
    assert_eq!(rig.region(0x10_0000_0000), 0xff);
    assert_eq!(rig.region(0x10_8000_0000), 2);
    rig.put(3, 0x1c, 0);
    assert_eq!(rig.region(0x8000_0000), 2);
    rig.put(3, 0x04, 0);
    assert_eq!(rig.region(0x8000_0000), 0xff);
    assert_eq!(rig.region(0xc000_0000), 0xff);
}

#[test]
fn a_bar_on_top_of_another_device_answers_nowhere() {
    let rig = rig();
    rig.put(3, 0x04, 0x0002);
    rig.put(3, 0x10, 0xe000_0000);
    assert_eq!(rig.ecam(0), 0x29c0_8086, "ECAM was there first");
    rig.put(3, 0x10, 0xd000_0000);
    assert_eq!(rig.region(0xd000_0000), 1);
    // Two BARs of the same function.
    rig.put(3, 0x18, 0xd000_0000);
    assert_eq!(rig.region(0xd000_0000), 1);
    rig.put(3, 0x10, 0xd100_0000);
    assert_eq!((rig.region(0xd100_0000), rig.region(0xd000_0000)), (1, 2));
    // At the very end of the address space.
    rig.put(3, 0x18, 0xffff_c000);
    rig.put(3, 0x1c, 0xffff_ffff);
    assert_eq!(rig.region(0xd000_0000), 0xff);
}

#[test]
fn says_when_windows_are_full() {
    let rig = rig();
    let windows = Windows {
        low: 0xc000_0000..0xc000_4000,
        high: 0..0,
    };
    let address = Address::new(3, 0).unwrap();
    let error = rig.root.assign_bars(&windows).unwrap_err();
    assert_eq!(
        error,
        AssignError::NoRoom {
            address,
            index: 0,
            size: 0x1000
        }
    );
    assert_eq!(
        rig.root.add(address, rig.card.clone()),
        Err(AssignError::Taken(address))
    );
    assert_eq!(address.to_string(), "00:03.0");
    assert_eq!(Address::new(32, 0), None);
}

#[test]
fn ecam_and_power_management_move() {
    let rig = rig();
    rig.put(0, 0x60, 0xb000_0001);
    assert_eq!(rig.ecam(0), u32::MAX);
    let mut data = [0; 4];
    rig.memory.read(0xb000_0000, &mut data);
    assert_eq!(u32::from_le_bytes(data), 0x29c0_8086);
    rig.put(0, 0x60, 0);
    rig.memory.read(0xb000_0000, &mut data);
    assert_eq!(data, [0xff; 4]);
    rig.bridge.lock().unwrap().reset();
    assert_eq!(rig.ecam(0), 0x29c0_8086);

    let pm1_control = |base: u64| {
        let mut data = [0; 2];
        rig.ports.read(base + 4, &mut data);
        u16::from_le_bytes(data)
    };
    assert_eq!(pm1_control(0x600), 1);
    assert_eq!(rig.get(31, 0x40), 0x601);
    rig.put(31, 0x40, 0xb000);
    assert_eq!((pm1_control(0x600), pm1_control(0xb000)), (0xffff, 1));
    rig.put(31, 0x44, 0);
    assert_eq!(pm1_control(0xb000), 0xffff);
    rig.lpc.lock().unwrap().reset();
    assert_eq!(pm1_control(0x600), 1);
}

#[test]
fn refuses_impossible_windows() {
    let make = |base, length| {
        let root = Arc::new(PciRoot::new());
        HostBridge::new(
            root,
            &Arc::new(Bus::new()),
            Some(EcamWindow { base, length }),
        )
        .is_some()
    };
    assert!(make(0xe000_0000, 256 << 20));
    assert!(make(0xe400_0000, 64 << 20));
    assert!(!make(0xe400_0000, 256 << 20));
    assert!(!make(0xe000_0000, 32 << 20));
    assert!(!make(0, 256 << 20));
    let lpc = |base| {
        let pm = AcpiPm::new(TestLine::new(), TestPower::new());
        Lpc::new(&Arc::new(Bus::new()), Arc::new(Mutex::new(pm)), base).is_some()
    };
    assert!(lpc(None) && lpc(Some(0x600)));
    assert!(!lpc(Some(0)) && !lpc(Some(0x601)) && !lpc(Some(0x640)));
}

#[test]
fn bridges_save_and_restore() {
    let rig = rig();
    rig.put(0, 0x60, 0xb000_0001);
    rig.put(31, 0x60, 0x0a0b_0a0b);
    let (bridge, lpc) = (
        rig.bridge.lock().unwrap().save(),
        rig.lpc.lock().unwrap().save(),
    );
    let other = tests::rig();
    other.bridge.lock().unwrap().restore(&bridge).unwrap();
    other.lpc.lock().unwrap().restore(&lpc).unwrap();
    assert_eq!(other.ecam(0), u32::MAX);
    assert_eq!(other.get(31, 0x60), 0x0a0b_0a0b);
    assert!(other.lpc.lock().unwrap().restore(&bridge).is_err());
    // A read-only byte that differs is another machine's.
    let mut bad = bridge.clone();
    bad.body["bytes"][0] = serde_json::json!(0x87);
    assert!(other.bridge.lock().unwrap().restore(&bad).is_err());
    bad.body["bytes"] = serde_json::json!([]);
    assert!(other.bridge.lock().unwrap().restore(&bad).is_err());
}

fn set_entry(msix: &Msix, vector: u64, address: u64, data: u32, control: u32) {
    msix.write_table(vector * 16, &address.to_le_bytes());
    msix.write_table(vector * 16 + 8, &data.to_le_bytes());
    msix.write_table(vector * 16 + 12, &control.to_le_bytes());
}

fn pending(msix: &Msix) -> u8 {
    let mut data = [0xff; 8];
    msix.read_pending(0, &mut data);
    assert_eq!(data[1..], [0; 7]);
    data[0]
}

#[test]
fn msix_masks_and_remembers() {
    let rig = rig();
    let control = |value: u32| rig.put(3, 0x40, value << 16);
    assert_eq!(rig.get(3, 0x40), 0x0002_0011, "three vectors, off");
    assert_eq!((rig.get(3, 0x44), rig.get(3, 0x48)), (0x0002, 0x0802));
    let sent = |vector| rig.platform.vector(vector).sent;
    let with = |action: &dyn Fn(&Msix)| action(&rig.card.lock().unwrap().msix);

    with(&|msix| {
        set_entry(msix, 1, 0xfee0_0003, 0x41, 0);
        msix.trigger(1);
        assert_eq!(pending(msix), 2, "the capability is off");
    });
    control(0xc000);
    assert_eq!((sent(1), rig.get(3, 0x40) >> 16), (0, 0xc002));
    control(0x8000);
    assert_eq!(sent(1), 1, "pending goes out when unmasked");
    let message = rig.platform.vector(1).message;
    assert_eq!((message.address, message.data), (0xfee0_0000, 0x41));
    with(&|msix| {
        assert_eq!(pending(msix), 0);
        msix.trigger(1);
        msix.write_table(16 + 12, &1_u32.to_le_bytes());
        msix.trigger(1);
        msix.trigger(0);
        msix.trigger(3);
        msix.trigger(0xffff);
        assert_eq!(pending(msix), 3);
        assert_eq!((sent(0), sent(1)), (0, 2));
        msix.write_table(16 + 12, &0_u32.to_le_bytes());
        assert_eq!((pending(msix), sent(1)), (1, 3));
        msix.reset();
        assert_eq!(pending(msix), 0);
    });
    let dropped: u32 = (0..3)
        .map(|vector| rig.platform.vector(vector).dropped)
        .sum();
    assert_eq!(dropped, 0, "nothing was sent into a masked vector");
}

#[test]
fn msix_unmasking_makes_up_for_kernel_signals() {
    let rig = rig();
    rig.put(3, 0x40, 0x8000_0000);
    let card = rig.card.lock().unwrap();
    set_entry(&card.msix, 2, 0xfee0_0000, 0x51, 0);
    assert_eq!(rig.platform.vector(2).sent, 0);
    assert!(card.msix.irqfd(2).is_some());
    assert!(card.msix.irqfd(3).is_none());
    // Linux masks, writes and unmasks to move an interrupt to another processor.
    card.msix.write_table(2 * 16 + 12, &1_u32.to_le_bytes());
    card.msix.write_table(2 * 16 + 12, &0_u32.to_le_bytes());
    assert_eq!(rig.platform.vector(2).sent, 1);
}

#[test]
fn msix_survives_a_refused_route() {
    let rig = rig();
    rig.put(3, 0x40, 0x8000_0000);
    let card = rig.card.lock().unwrap();
    set_entry(&card.msix, 0, 0xbad0_0000, 1, 0);
    card.msix.trigger(0);
    assert_eq!((pending(&card.msix), rig.platform.vector(0).sent), (1, 0));
    set_entry(&card.msix, 0, 0xfee0_0000, 1, 0);
    assert_eq!((pending(&card.msix), rig.platform.vector(0).sent), (0, 1));
}

#[test]
fn msix_has_1_to_2048_vectors() {
    let platform = TestPlatform::new();
    assert!(Msix::new(&*platform, 0).is_err());
    assert!(Msix::new(&*platform, 2049).is_err());
}

#[test]
fn bars_that_cannot_be_are_refused() {
    let bus = Arc::new(Bus::new());
    let (mut card, regions) = card(&bus, &TestPlatform::new());
    let mut add = |index, size, kind| {
        let device = Arc::downgrade(&regions[0]);
        card.bars.add(&mut card.config, index, size, kind, device)
    };
    for (index, size, kind) in [
        (0, 0x1000, BarKind::Memory32),
        (3, 0x1000, BarKind::Memory32),
        (1, 0x1000, BarKind::Memory64),
        (5, 0x1000, BarKind::Memory64),
        (6, 0x1000, BarKind::Memory32),
        (4, 0x1001, BarKind::Memory32),
        (4, 8, BarKind::Memory32),
        (4, 1 << 32, BarKind::Memory32),
    ] {
        assert_eq!(add(index, size, kind), Err(BarError { index, size }));
    }
    assert_eq!(add(4, 1 << 40, BarKind::Memory64), Ok(()));
}

proptest! {
    /// Whatever a guest writes to configuration space: read-only bits stay, the bus agrees with the
    /// registers, and the state restores to itself.
    #[test]
    fn config_writes_keep_their_promises(writes in proptest::collection::vec((any::<bool>(), 0..260_u64, any::<[u8; 8]>(), 1..9_usize), 0..100)) {
        let rig = rig();
        let before = rig.card.lock().unwrap().config.save();
        for (by_memory, offset, data, width) in writes {
            if by_memory {
                rig.memory.write(ECAM.base + (3 << 15) + offset, &data[..width]);
            } else {
                rig.ports.write(0xcf8, &(0x8000_1800 | offset as u32 & 0xfc).to_le_bytes());
                rig.ports.write(0xcfc + (offset & 3), &data[..width]);
            }
        }
        let saved = rig.card.lock().unwrap().config.save();
        prop_assert_eq!(rig.get(3, 0), 0x5678_1234);
        prop_assert_eq!(rig.get(3, 0x08), 0x0200_0009);
        prop_assert_eq!(rig.get(3, 0x40) & 0x3fff_ffff, 0x0002_0011);
        let mut card = rig.card.lock().unwrap();
        let decoding = card.config.memory_enabled();
        if let Some(base) = card.bars.mapped(0) {
            prop_assert!(decoding);
            prop_assert_eq!(base, u64::from(card.config.u32(0x10)));
        }
        if !decoding {
            prop_assert_eq!((card.bars.mapped(0), card.bars.mapped(2)), (None, None));
        }
        card.config.restore(&before).unwrap();
        card.config.restore(&saved).unwrap();
        prop_assert_eq!(card.config.save(), saved);
    }

    /// Any order of masking, programming and raising loses no interrupt and sends none masked.
    #[test]
    fn msix_loses_nothing(steps in proptest::collection::vec((0..5_u8, 0..4_u16, any::<bool>(), 0..16_u64, any::<[u8; 8]>(), 1..9_usize), 0..100)) {
        let rig = rig();
        for (kind, vector, flag, offset, data, width) in steps {
            match kind {
                0 => rig.put(3, 0x40, if flag { 0x8000_0000 } else { 0xc000_0000 }),
                1 => rig.put(3, 0x40, 0),
                2 => rig.card.lock().unwrap().msix.trigger(vector),
                3 => {
                    let card = rig.card.lock().unwrap();
                    card.msix.write_table(u64::from(vector) * 16 + 12, &u32::from(flag).to_le_bytes());
                }
                _ => {
                    let card = rig.card.lock().unwrap();
                    let at = u64::from(vector) * 16 + offset;
                    card.msix.write_table(at, &data[..width]);
                    card.msix.read_table(at, &mut { data }[..width]);
                    card.msix.read_pending(at, &mut { data }[..width]);
                }
            }
        }
        let saved = rig.card.lock().unwrap().msix.save();
        // Everything open: nothing is left pending.
        rig.put(3, 0x40, 0x8000_0000);
        let card = rig.card.lock().unwrap();
        for vector in 0..3 {
            set_entry(&card.msix, vector, 0xfee0_0000, 1, 0);
        }
        prop_assert_eq!(pending(&card.msix), 0);
        for vector in 0..3 {
            prop_assert_eq!(rig.platform.vector(vector).dropped, 0);
        }
        card.msix.check(&saved).unwrap();
        card.msix.restore(&saved);
        prop_assert_eq!(card.msix.save(), saved);
    }
}
