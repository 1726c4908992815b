//! Drivers that break the rules. The device neither dies (its thread would take the test down
//! with it) nor hangs, and works again after a restart of the port.

use proptest::prelude::*;

use super::*;
use crate::ahci::port::bits::at;

/// The port works after whatever was done to it.
fn recovers(rig: &Rig) {
    rig.restart_port(0);
    assert_eq!(rig.run(0, &frame(0xec, 0, 0, 0), 0, &[(DATA, 512)]), 2);
    assert_eq!(rig.get(DATA, 1), [0x40]);
}

/// Issues what is in slot 0 and expects an error of the controller.
fn breaks(rig: &Rig, expected: u32) {
    rig.issue(0, 1);
    let events = rig.finish(0, 0);
    assert_eq!(events, expected);
    // It stays where it is.
    assert_eq!(rig.port(0, at::CI), 1);
    recovers(rig);
}

#[test]
fn lists_and_tables_that_are_nowhere() {
    let (rig, _, _file) = disk_rig(1 << 20);
    for list in [MEMORY, HIGH - 0x400, 0xfee0_0000, 0xffff_ffff_ffff_fc00] {
        rig.stop_port(0);
        rig.set_port(0, at::CLB, list as u32);
        rig.set_port(0, at::CLBU, (list >> 32) as u32);
        rig.set_port(0, at::CMD, 0x11);
        breaks(&rig, HOST_BUS_ERROR);
    }
    for table in [MEMORY, BASE, u64::MAX - 0x7f] {
        rig.prepare(0, 0, &frame(0xec, 0, 0, 0), 0, &[(DATA, 512)]);
        rig.put(LISTS + 8, &table.to_le_bytes());
        breaks(&rig, HOST_BUS_ERROR);
    }
    // The table's data is beyond the end.
    rig.prepare(0, 0, &frame(0xec, 0, 0, 0), 0, &[(DATA, 512)]);
    let last = MEMORY - 0x80;
    rig.put(LISTS + 8, &last.to_le_bytes());
    rig.put(last, &frame(0xec, 0, 0, 0));
    breaks(&rig, HOST_BUS_ERROR);
}

#[test]
fn data_that_is_nowhere() {
    let (rig, handle, _file) = disk_rig(1 << 20);
    for piece in [
        (MEMORY, 512),
        (MEMORY - 256, 512),
        (HIGH - 2, 512),
        (HIGH + HIGH_BYTES - 256, 512),
        (BASE, 512),
        (u64::MAX - 255, 512),
        (u64::MAX - 1, 512),
    ] {
        for code in [0xec, 0x25, 0x35, 0x20, 0x2f] {
            let count = 1;
            rig.prepare(0, 0, &frame(code, 0, 0, count), 0, &[piece]);
            breaks(&rig, HOST_BUS_ERROR);
        }
    }
    assert_eq!(handle.statistics().totals().reads, 0);
    assert_eq!(handle.statistics().totals().writes, 0);
}

#[test]
fn frames_nobody_knows() {
    let (rig, _, _file) = disk_rig(1 << 20);
    for kind in [0, 0x34, 0x46, 0xff] {
        let mut bytes = frame(0xec, 0, 0, 0);
        bytes[0] = kind;
        rig.prepare(0, 0, &bytes, 0, &[(DATA, 512)]);
        breaks(&rig, INTERFACE_ERROR);
    }
    for length in [0, 1, 4, 17, 31] {
        rig.prepare(0, 0, &frame(0xec, 0, 0, 0), 0, &[(DATA, 512)]);
        rig.put(LISTS, &[length]);
        breaks(&rig, INTERFACE_ERROR);
    }
}

#[test]
fn too_little_memory() {
    let (rig, handle, _file) = disk_rig(1 << 20);
    for code in [0x25, 0x35, 0x30] {
        for pieces in [&[][..], &[(DATA, 1022)][..]] {
            let events = rig.run(0, &frame(code, 0, 0, 2), 0, pieces);
            assert_eq!(events, TASK_FILE_ERROR | OVERFLOW | 1);
            recovers(&rig);
        }
    }
    let events = rig.run(0, &frame(0xec, 0, 0, 0), 0, &[(DATA, 100)]);
    assert_eq!(events, OVERFLOW | 2);
    assert_eq!(rig.moved(0, 0), 100);
    // Two bytes in each of 65535 pieces, which is more than is looked at.
    rig.prepare(0, 0, &frame(0x25, 0, 0, 200), 0, &[]);
    rig.put(LISTS + 2, &[0xff, 0xff]);
    for entry in 0..0x1_0000_u64 {
        let at = table(0, 0) + 0x80 + entry * 16;
        rig.put(at, &DATA.to_le_bytes());
        rig.put(at + 12, &1_u32.to_le_bytes());
    }
    rig.issue(0, 1);
    assert_eq!(rig.finish(0, 0), TASK_FILE_ERROR | OVERFLOW | 1);
    recovers(&rig);
    assert_eq!(handle.statistics().totals().reads, 0);
}

#[test]
fn frames_received_nowhere() {
    let (rig, _, _file) = disk_rig(1 << 20);
    rig.set_port(0, at::FB, MEMORY as u32);
    rig.prepare(0, 0, &frame(0xe7, 0, 0, 0), 0, &[]);
    rig.issue(0, 1);
    rig.until("an error", || rig.port(0, at::IS) & HOST_BUS_ERROR != 0);
    recovers(&rig);
    // Not received at all.
    rig.set_port(0, at::CMD, 1);
    assert_eq!(rig.run(0, &frame(0xe7, 0, 0, 0), 0, &[]), 1);
    recovers(&rig);
}

#[test]
fn data_over_the_command_itself() {
    let (rig, _, _file) = disk_rig(1 << 20);
    // Reads over its own table and list, and the received frames.
    for target in [table(0, 0), LISTS, FRAMES] {
        rig.run(0, &frame(0x25, 0, 0, 8), 0, &[(target, 4096)]);
        recovers(&rig);
    }
}

#[test]
fn lists_that_move_while_running() {
    let (rig, _, _file) = disk_rig(1 << 20);
    for slot in 0..32 {
        rig.prepare(0, slot, &frame(0x25, 0, 0, 8), 0, &[(DATA, 4096)]);
    }
    for round in 0..200_u32 {
        rig.issue(0, u32::MAX);
        rig.set_port(0, at::CLB, round << 10);
        rig.set_port(0, at::CLB, LISTS as u32);
        if round % 3 == 0 {
            rig.set_port(0, at::CMD, 0x10);
            rig.set_port(0, at::CMD, 0x11);
        }
        if round % 7 == 0 {
            rig.write(4, 1);
            rig.start_port(0);
        }
    }
    rig.until("a reset", || rig.read(4) & 1 == 0);
    recovers(&rig);
}

#[derive(Debug, Clone)]
enum Act {
    Register(u64, u32),
    Wide(u64, [u8; 8], usize),
    Config(usize, [u8; 4]),
    Memory(u64, Vec<u8>),
    Command(u64, u32, u8, [u64; 3], u32, Piece),
    Packet(u8, [u8; 11], Piece),
    Issue(u64, u32),
    Restart(u64),
    Disc(u8),
    Cycle,
    Reset,
}

fn piece() -> impl Strategy<Value = Piece> {
    let address = prop_oneof![
        6 => DATA..DATA + 0x1_0000,
        1 => 0..MEMORY,
        1 => HIGH - 0x1000..HIGH + HIGH_BYTES,
        1 => any::<u64>(),
    ];
    let length = prop_oneof![4 => 0..0x1_0000_u32, 1 => any::<u32>()];
    (address, length)
}

fn act() -> impl Strategy<Value = Act> {
    let code = prop_oneof![
        prop::sample::select(vec![
            0x25_u8, 0x35, 0x60, 0x61, 0x20, 0x30, 0xec, 0xa1, 0xe7, 0x06, 0x2f, 0xc6, 0xef, 0xc4,
            0x08, 0xa0
        ]),
        any::<u8>(),
    ];
    let packet = prop_oneof![
        prop::sample::select(vec![
            0x00_u8, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x43, 0x46, 0x4a, 0x51, 0x52, 0x5a,
            0xa8, 0xbd
        ]),
        any::<u8>(),
    ];
    let small = [0..4_u64, 0..0x1000, 0..0x1_0000];
    prop_oneof![
        4 => (0..0x108_u64, any::<u32>()).prop_map(|(at, value)| Act::Register(at * 4, value)),
        2 => (0..0x1010_u64, any::<[u8; 8]>(), 1..9_usize)
            .prop_map(|(at, data, width)| Act::Wide(at, data, width)),
        1 => (0..64_usize, any::<[u8; 4]>()).prop_map(|(at, data)| Act::Config(at * 4, data)),
        2 => (LISTS..LISTS + 0x800, prop::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(at, data)| Act::Memory(at, data)),
        8 => (0..2_u64, 0..32_u32, code, small, any::<u32>(), piece()).prop_map(
            |(port, slot, code, values, flags, piece)| Act::Command(port, slot, code, values, flags, piece)
        ),
        4 => (packet, any::<[u8; 11]>(), piece())
            .prop_map(|(code, rest, piece)| Act::Packet(code, rest, piece)),
        4 => (0..6_u64, any::<u32>()).prop_map(|(port, slots)| Act::Issue(port, slots)),
        4 => (0..6_u64).prop_map(Act::Restart),
        1 => (0..3_u8).prop_map(Act::Disc),
        1 => Just(Act::Cycle),
        1 => Just(Act::Reset),
    ]
}

fn act_on(rig: &Rig, cdrom: &CdromHandle, act: Act) {
    match act {
        Act::Register(at, value) => rig.write(at, value),
        Act::Wide(at, mut data, width) => {
            rig.bus.write(BASE + at, &data[..width]);
            rig.bus.read(BASE + at, &mut data[..width]);
        }
        Act::Config(at, data) => rig.config_write(at, &data),
        Act::Memory(at, data) => rig.put(at, &data),
        Act::Command(port, slot, code, [features, lba, count], flags, piece) => {
            let frame = frame(code, features as u16, lba, count as u16);
            let flags = if flags % 8 == 0 { flags } else { flags & 0x7e0 };
            rig.prepare(port, slot, &frame, flags & 0xffff, &[piece]);
            rig.issue(port, 1 << slot);
        }
        Act::Packet(code, rest, piece) => {
            let frame = frame(0xa0, u16::from(rest[10] & 1), 0xfffe00, 0);
            rig.prepare(1, 0, &frame, ATAPI, &[piece]);
            rig.put(table(1, 0) + 0x40, &[code]);
            rig.put(table(1, 0) + 0x41, &rest);
            rig.issue(1, 1);
        }
        Act::Issue(port, slots) => {
            rig.set_port(port, at::SACT, slots);
            rig.issue(port, slots);
        }
        Act::Restart(port) => {
            rig.set_port(port, at::CMD, 0);
            rig.start_port(port);
        }
        Act::Disc(0) => drop(cdrom.eject(false)),
        Act::Disc(1) => drop(cdrom.eject(true)),
        Act::Disc(_) => drop(cdrom.insert(image(1 << 20).1)),
        Act::Cycle => {
            let mut function = rig.function.lock().unwrap();
            function.pause();
            let saved = function.save();
            function.restore(&saved).unwrap();
            assert_eq!(function.save(), saved);
            function.resume();
        }
        Act::Reset => {
            rig.function.lock().unwrap().reset();
            rig.power_on();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn anything_in_any_order(acts in prop::collection::vec(act(), 0..120)) {
        let disk = Disk::new(image(1 << 20).1, disk_options());
        let cdrom = Cdrom::new(Some(image(1 << 20).1), "cd-0");
        let handle = cdrom.handle();
        let (disk, cdrom) = (Some(Drive::Disk(disk)), Some(Drive::Cdrom(cdrom)));
        let rig = Rig::new([disk, cdrom, None, None, None, None]);
        rig.start_port(0);
        rig.start_port(1);
        for act in acts {
            act_on(&rig, &handle, act);
        }
        // A reset mends everything.
        rig.function.lock().unwrap().reset();
        rig.power_on();
        rig.put(LISTS, &[0; 0x1000]);
        rig.start_port(0);
        recovers(&rig);
    }
}

#[test]
fn every_register_at_every_width() {
    let disk = Disk::new(image(1 << 20).1, disk_options());
    let rig = Rig::new([Some(Drive::Disk(disk)), None, None, None, None, None]);
    for value in [0x00, 0xff, 0x5a] {
        for address in BASE - 8..BASE + 0x1008 {
            for width in [1, 2, 4, 8] {
                let mut data = [0; 8];
                rig.bus.read(address, &mut data[..width]);
                rig.bus.write(address, &[value; 8][..width]);
                rig.bus.read(address, &mut data[..width]);
            }
        }
    }
    rig.function.lock().unwrap().reset();
    rig.power_on();
    rig.start_port(0);
    recovers(&rig);
}

/// Paths to everything in a saved state that is not a list or structure itself.
fn leaves(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                leaves(field, &format!("{path}/{name}"), found);
            }
        }
        serde_json::Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}/{index}"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

fn forged() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        any::<u8>().prop_map(Into::into),
        any::<u32>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<bool>().prop_map(Into::into),
        Just(serde_json::Value::Null),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A saved state from a stranger is taken or left, and the machine works on.
    #[test]
    fn any_saved_state(
        forgeries in prop::collection::vec((any::<prop::sample::Index>(), forged()), 1..8),
        acts in prop::collection::vec(act(), 0..40),
    ) {
        let disk = Disk::new(image(1 << 20).1, disk_options());
        let cdrom = Cdrom::new(Some(image(1 << 20).1), "cd-0");
        let handle = cdrom.handle();
        let (disk, cdrom) = (Some(Drive::Disk(disk)), Some(Drive::Cdrom(cdrom)));
        let rig = Rig::new([disk, cdrom, None, None, None, None]);
        rig.start_port(0);
        rig.start_port(1);
        {
            let mut function = rig.function.lock().unwrap();
            function.pause();
            let saved = function.save();
            let mut paths = Vec::new();
            leaves(&saved.body, "", &mut paths);
            // Most of it is configuration space, which another test forges.
            paths.retain(|path| !path.starts_with("/config"));
            for (leaf, value) in forgeries {
                let mut state = saved.clone();
                *state.body.pointer_mut(&paths[leaf.index(paths.len())]).unwrap() = value;
                let _ = function.restore(&state);
            }
            function.resume();
        }
        for act in acts {
            act_on(&rig, &handle, act);
        }
        rig.function.lock().unwrap().reset();
        rig.power_on();
        rig.put(LISTS, &[0; 0x1000]);
        rig.start_port(0);
        recovers(&rig);
    }
}
