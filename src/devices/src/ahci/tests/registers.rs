//! What firmware and drivers see before they issue commands.

use super::*;
use crate::ahci::port::bits::{at, cmd};

fn both() -> Rig {
    let disk = Disk::new(image(1 << 20).1, disk_options());
    let cdrom = Cdrom::new(None, "cd-0");
    let (disk, cdrom) = (Some(Drive::Disk(disk)), Some(Drive::Cdrom(cdrom)));
    Rig::new([disk, None, cdrom, None, None, None])
}

#[test]
fn says_what_it_is() {
    let rig = both();
    assert_eq!(rig.config(0), 0x2922_8086_u32.to_le_bytes());
    assert_eq!(rig.config(8), 0x0106_0102_u32.to_le_bytes());
    assert_eq!(rig.config(0x3d), [1], "INTA");
    assert_eq!(rig.config(0x90), [0x40, 0, 0x3f, 0b101]);
    // 4 KiB.
    rig.config_write(0x24, &[0xff; 4]);
    assert_eq!(rig.config(0x24), 0xffff_f000_u32.to_le_bytes());
    rig.power_on();
    assert_eq!(rig.read(0x00), 0xc124_1f05);
    assert_eq!(rig.read(0x04), 1 << 31);
    assert_eq!(rig.read(0x0c), 0x3f);
    assert_eq!(rig.read(0x10), 0x0001_0300);
    assert_eq!(Ahci::ADDRESS.to_string(), "00:1f.2");
}

#[test]
fn devices_announce_themselves() {
    let rig = both();
    for (port, signature, task) in [(0, 0x101, 0x150), (2, 0xeb14_0101, 0x100)] {
        assert_eq!(rig.port(port, at::SSTS), 0x123);
        assert_eq!(rig.port(port, at::SIG), signature);
        assert_eq!(rig.port(port, at::TFD), task);
        assert_eq!(rig.received(port, 0x40, 4), [0; 4]);
        rig.start_port(port);
        let frame = rig.received(port, 0x40, 20);
        assert_eq!(frame[..2], [0x34, 0], "without an interrupt");
        let [count, low, mid, high] = signature.to_le_bytes();
        assert_eq!(frame[4..7], [low, mid, high]);
        assert_eq!(frame[12], count);
        assert_eq!(rig.port(port, at::IS), 0);
    }
    for port in [1, 3, 4, 5] {
        assert_eq!(rig.port(port, at::SSTS), 0);
        assert_eq!(rig.port(port, at::SIG), u32::MAX);
        assert_eq!(rig.port(port, at::TFD), 0x7f);
        // Commands of nobody.
        rig.start_port(port);
        rig.issue(port, 1);
        assert_eq!(rig.port(port, at::CI), 1);
        rig.stop_port(port);
        assert_eq!(rig.port(port, at::CI), 0);
    }
}

#[test]
fn the_link_goes_down_and_up() {
    let rig = both();
    for port in [0, 2] {
        rig.start_port(port);
        rig.stop_port(port);
        rig.put(FRAMES + port * 0x100, &[0; 0x100]);
        rig.set_port(port, at::SCTL, 0x301);
        assert_eq!(rig.port(port, at::SSTS), 0);
        assert_eq!(rig.port(port, at::TFD), 0x7f);
        rig.set_port(port, at::SCTL, 0x300);
        assert_eq!(rig.port(port, at::SSTS), 0x123);
        assert_eq!(rig.port(port, at::SERR), 0x0401_0000);
        assert_eq!(rig.port(port, at::IS), 0x0040_0040, "mirrors SERR");
        rig.set_port(port, at::SERR, u32::MAX);
        assert_eq!(rig.port(port, at::IS), 0);
        assert_eq!(rig.received(port, 0x40, 1), [0x34]);
        // Slower, and off.
        rig.set_port(port, at::SCTL, 0x310);
        assert_eq!(rig.port(port, at::SSTS), 0x113);
        rig.set_port(port, at::SCTL, 0x304);
        assert_eq!(rig.port(port, at::SSTS), 4);
        rig.set_port(port, at::SCTL, 0x300);
        assert_eq!(rig.port(port, at::SSTS), 0x123);
    }
}

#[test]
fn software_reset_as_linux_does_it() {
    let rig = both();
    for (port, signature) in [(0, 0x101), (2, 0xeb14_0101)] {
        rig.start_port(port);
        rig.put(FRAMES + port * 0x100, &[0; 0x100]);
        let mut frame = [0; 20];
        frame[0] = 0x27;
        frame[15] = 0x0c;
        rig.run(port, &frame, RESETS | CLEARS_BUSY, &[]);
        assert_eq!(rig.received(port, 0x40, 1), [0]);
        frame[15] = 0x08;
        rig.run(port, &frame, 0, &[]);
        assert_eq!(rig.received(port, 0x40, 1), [0x34]);
        assert_eq!(rig.port(port, at::SIG), signature);
        assert_eq!(rig.port(port, at::TFD) & 0x88, 0);
    }
}

#[test]
fn the_controller_resets() {
    let rig = both();
    rig.start_port(0);
    rig.write(0x04, 0x8000_0002);
    assert_eq!(rig.read(0x04), 0x8000_0002);
    rig.write(0x04, 0x8000_0003);
    rig.until("the reset", || rig.read(0x04) & 1 == 0);
    assert_eq!(rig.read(0x04), 1 << 31);
    assert_eq!(rig.port(0, at::IE), 0);
    assert_eq!(rig.port(0, at::CLB), LISTS as u32, "not affected");
    assert_eq!(rig.port(0, at::CMD), 0x6);
    assert_eq!(rig.port(0, at::SSTS), 0x123);
    rig.start_port(0);
    assert_eq!(rig.run(0, &frame(0xe7, 0, 0, 0), 0, &[]), 1);
}

#[test]
fn command_register_follows() {
    let rig = both();
    rig.set_port(0, at::CMD, !cmd::START);
    assert_eq!(rig.port(0, at::CMD), 0x0300_4016);
    rig.set_port(0, at::CMD, cmd::START);
    assert_eq!(rig.port(0, at::CMD), 0x8007);
    rig.set_port(0, at::CMD, 0);
    assert_eq!(rig.port(0, at::CMD), 6);
    // Without ST nothing is issued.
    rig.set_port(0, at::CI, 1);
    rig.set_port(0, at::SACT, 1);
    assert_eq!((rig.port(0, at::CI), rig.port(0, at::SACT)), (0, 0));
}

#[test]
fn narrow_reads_and_wide_writes() {
    let rig = both();
    let mut two = [0; 2];
    rig.bus.read(BASE + 0x12, &mut two);
    assert_eq!(two, [1, 0]);
    let mut eight = [0; 8];
    rig.bus.read(BASE + 0x0e, &mut eight);
    assert_eq!(eight, [0, 0, 0, 3, 1, 0, 0, 0]);
    rig.bus
        .write(BASE + 0x100, &0x12_3456_7800_u64.to_le_bytes());
    assert_eq!(rig.port(0, at::CLB), 0x3456_7800);
    assert_eq!(rig.port(0, at::CLBU), 0x12);
    rig.bus.write(BASE + 0x100, &[0]);
    assert_eq!(rig.port(0, at::CLB), 0x3456_7800);
}

#[test]
fn without_bus_mastering_nothing_is_fetched() {
    let (rig, _, _file) = disk_rig(1 << 20);
    rig.config_write(4, &[2, 0]);
    rig.prepare(0, 0, &frame(0xe7, 0, 0, 0), 0, &[]);
    rig.issue(0, 1);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rig.port(0, at::CI), 1);
    rig.config_write(4, &[6, 0]);
    assert_eq!(rig.finish(0, 0), 1);
}
