//! The wire, the message, the vectors.

use super::*;

const MSI: usize = 0x40;
const MSIX: usize = 0x50;

const TXDW: u32 = 1 << 0;
const LSC: u32 = 1 << 2;
const RXDMT0: u32 = 1 << 4;
const RXT0: u32 = 1 << 7;
const RXQ0: u32 = 1 << 20;
const TXQ0: u32 = 1 << 22;
const OTHER: u32 = 1 << 24;
const ASSERTED: u32 = 1 << 31;

#[test]
fn the_wire_follows_causes_and_mask() {
    let rig = Rig::new();
    rig.write(at::ICS, LSC);
    assert!(!rig.line.high());
    rig.write(at::IMS, LSC | TXDW);
    assert!(rig.line.high());
    rig.write(at::IMC, LSC);
    assert!(!rig.line.high());
    assert_eq!(
        rig.read(at::ICR),
        LSC | OTHER,
        "not cleared: nothing is asserted"
    );
    rig.write(at::IMS, LSC);
    assert!(rig.line.high());
    rig.config_write(4, &[6, 4]);
    assert!(!rig.line.high(), "INTx is disabled");
    rig.config_write(4, &[6, 0]);
    assert!(rig.line.high());
    assert_eq!(rig.read(at::ICR), LSC | OTHER | ASSERTED);
    assert!(!rig.line.high());
    assert_eq!(rig.read(at::ICR), 0);
    // Without a mask reading clears, as firmware polls.
    rig.write(at::IMC, u32::MAX);
    rig.write(at::ICS, TXDW);
    assert_eq!((rig.read(at::ICR), rig.read(at::ICR)), (TXDW, 0));
    // Writing ones clears those.
    rig.write(at::ICS, TXDW | RXT0);
    rig.write(at::ICR, TXDW);
    assert_eq!(rig.read(at::ICR), RXT0);
}

#[test]
fn reading_masks_if_the_driver_wants() {
    let rig = Rig::new();
    rig.write(at::IAM, RXT0);
    rig.write(at::CTRL_EXT, 1 << 27);
    rig.write(at::IMS, RXT0 | TXDW);
    rig.write(at::ICS, RXT0);
    rig.read(at::ICR);
    assert_eq!(rig.read(at::IMS), TXDW);
    rig.write(at::ICS, RXT0);
    assert!(!rig.line.high());
    rig.write(at::IMS, RXT0);
    assert!(rig.line.high());
}

#[test]
fn one_message_until_the_driver_has_looked() {
    let mut rig = Rig::started();
    rig.config_write(MSI + 4, &0xfee0_0000_u32.to_le_bytes());
    rig.config_write(MSI + 12, &[0x41, 0]);
    rig.config_write(MSI + 2, &[1, 0]);
    let sent = |rig: &Rig| rig.platform.vector(5).sent;
    rig.write(at::IMS, TXDW);
    assert_eq!(sent(&rig), 0);
    rig.send(&frame(100, 1));
    rig.send(&frame(100, 2));
    assert_eq!(sent(&rig), 1);
    assert!(!rig.line.high());
    assert_ne!(rig.read(at::ICR) & (TXDW | ASSERTED), 0);
    rig.send(&frame(100, 3));
    assert_eq!(sent(&rig), 2);
    // A driver that asks is told again.
    rig.write(at::ICS, TXDW);
    assert_eq!(sent(&rig), 3);
}

/// As Linux sets up three vectors.
fn with_vectors() -> Rig {
    let rig = Rig::started();
    for vector in 0..3_u64 {
        let entry = VECTORS + 16 * vector;
        rig.bus.write(entry, &0xfee0_0000_u64.to_le_bytes());
        rig.bus.write(entry + 8, &(0x40 + vector).to_le_bytes());
    }
    rig.config_write(MSIX + 2, &[0, 0x80]);
    rig.write(at::IVAR, 1 << 31 | 0xa << 16 | 9 << 8 | 8);
    rig.write(at::IAM, u32::MAX);
    rig.write(at::CTRL_EXT, 1 << 31 | 1 << 24);
    rig.write(at::EIAC, RXQ0 | TXQ0);
    rig.write(at::IMS, RXQ0 | TXQ0 | OTHER | LSC);
    rig
}

fn sent(rig: &Rig) -> [u32; 3] {
    [0, 1, 2].map(|vector| rig.platform.vector(vector).sent)
}

#[test]
fn vectors_for_each_direction_and_the_rest() {
    let mut rig = with_vectors();
    assert_eq!(rig.platform.vector(1).message.data, 0x41);
    rig.send(&frame(100, 1));
    assert_eq!(sent(&rig)[1..], [1, 0]);
    rig.send(&frame(100, 2));
    assert_eq!(sent(&rig)[1], 1, "masked by the message");
    rig.write(at::IMS, TXQ0);
    assert_eq!(sent(&rig)[1], 2, "what came meanwhile");
    rig.write(at::IMS, TXQ0);
    assert_eq!(sent(&rig)[1], 2, "which the message acknowledged");
    rig.wire.send(&frame(100, 3));
    rig.take_frame();
    rig.until("the first vector", || sent(&rig)[0] > 0);
    rig.write(at::ICS, LSC);
    assert_eq!(sent(&rig)[2], 1);
    let causes = rig.read(at::ICR);
    assert_eq!(causes & (LSC | OTHER), LSC | OTHER);
    rig.write(at::IMS, OTHER | LSC);
    assert_eq!(sent(&rig)[2], 1);
    assert!(!rig.line.high());
    assert_eq!(rig.platform.vector(5).sent, 0);
}

#[test]
fn a_masked_vector_is_left_pending() {
    let mut rig = with_vectors();
    rig.bus.write(VECTORS + 16 + 12, &1_u32.to_le_bytes());
    rig.send(&frame(100, 1));
    let mut pending = [0; 4];
    rig.bus.read(VECTORS + 0x2000, &mut pending);
    assert_eq!(pending[0] & 2, 2);
    rig.bus.write(VECTORS + 16 + 12, &0_u32.to_le_bytes());
    assert_eq!(sent(&rig)[1], 1);
}

#[test]
fn few_buffers_are_told() {
    let mut rig = Rig::new();
    rig.start(Format::Extended, PROMISCUOUS | STRIP_CHECKSUM);
    rig.give_buffers(RING / 2 + 1);
    rig.wire.send(&frame(100, 1));
    rig.until("buffers to run low", || rig.read(at::ICR) & RXDMT0 != 0);
}
