//! The wire and the message.

use super::*;
use crate::ahci::port::bits::at;

/// The MSI capability.
const MSI: usize = 0x40;

fn flush(rig: &Rig) {
    rig.prepare(0, 0, &frame(0xe7, 0, 0, 0), 0, &[]);
    rig.issue(0, 1);
    rig.until("a command", || rig.port(0, at::CI) == 0);
}

#[test]
fn the_wire_follows_the_registers() {
    let (rig, _, _file) = disk_rig(1 << 20);
    flush(&rig);
    assert_eq!(rig.read(0x08), 1);
    assert!(!rig.line.high(), "interrupts are off");
    rig.write(0x04, 2);
    assert!(rig.line.high());
    // The port still has something to say.
    rig.write(0x08, 1);
    assert_eq!(rig.read(0x08), 1);
    assert!(rig.line.high());
    rig.set_port(0, at::IS, u32::MAX);
    assert!(rig.line.high(), "until it is cleared");
    rig.write(0x08, 1);
    assert!(!rig.line.high());
    flush(&rig);
    assert!(rig.line.high());
    rig.config_write(4, &[6, 4]);
    assert!(!rig.line.high(), "INTx is disabled");
    rig.config_write(4, &[6, 0]);
    assert!(rig.line.high());
    rig.set_port(0, at::IE, 0);
    rig.write(0x08, 1);
    assert!(!rig.line.high());
    flush(&rig);
    assert!(!rig.line.high());
    rig.set_port(0, at::IE, 1);
    assert!(rig.line.high());
}

#[test]
fn messages_instead_of_the_wire() {
    let (rig, _, _file) = disk_rig(1 << 20);
    assert_eq!(rig.config(0x34), [MSI as u8]);
    assert_eq!(rig.config(MSI), [5, 0, 0x80, 0]);
    rig.write(0x04, 2);
    flush(&rig);
    assert!(rig.line.high());
    rig.config_write(MSI + 4, &0xfee0_0003_u32.to_le_bytes());
    rig.config_write(MSI + 8, &1_u32.to_le_bytes());
    rig.config_write(MSI + 12, &0x41_u32.to_le_bytes());
    rig.config_write(MSI, &[0, 0, 0x71, 0]);
    assert_eq!(rig.config(MSI), [5, 0, 0x81, 0], "one vector");
    assert!(!rig.line.high());
    let vector = rig.platform.vector(0);
    assert_eq!(vector.message.address, 0x1_fee0_0000);
    assert_eq!((vector.message.data, vector.masked), (0x41, false));
    assert_eq!(vector.sent, 1, "what was pending");
    rig.set_port(0, at::IS, u32::MAX);
    rig.write(0x08, 1);
    assert_eq!(rig.platform.vector(0).sent, 1);
    flush(&rig);
    assert_eq!(rig.platform.vector(0).sent, 2);
    // What comes while the driver is about to clear the summary is not lost.
    rig.set_port(0, at::IS, u32::MAX);
    flush(&rig);
    assert_eq!(rig.platform.vector(0).sent, 2);
    rig.write(0x08, 1);
    assert_eq!(rig.platform.vector(0).sent, 3);
    rig.config_write(MSI, &[0, 0, 0x80, 0]);
    assert!(rig.platform.vector(0).masked);
    assert!(rig.line.high());
    assert!(rig.platform.vector(0).dropped == 0);
}

#[test]
fn a_refused_route_is_survived() {
    let (rig, _, _file) = disk_rig(1 << 20);
    rig.write(0x04, 2);
    rig.config_write(MSI + 4, &0xbad0_0000_u32.to_le_bytes());
    rig.config_write(MSI, &[0, 0, 1, 0]);
    flush(&rig);
    assert_eq!(rig.platform.vector(0).sent, 0);
    assert!(!rig.line.high());
}
