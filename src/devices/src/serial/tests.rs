use proptest::prelude::*;

use super::*;
use crate::bus::BusDevice;
use crate::test_machine::{TestConsole, TestLine};

struct Rig {
    serial: Serial,
    line: Arc<TestLine>,
    console: Arc<TestConsole>,
}

fn rig() -> Rig {
    let line = TestLine::new();
    let console: Arc<TestConsole> = Arc::default();
    let serial = Serial::new("com1", line.clone(), console.clone(), console.clone());
    Rig {
        serial,
        line,
        console,
    }
}

impl Rig {
    fn get(&mut self, register: u64) -> u8 {
        let mut data = [0];
        self.serial.read(register, &mut data);
        data[0]
    }

    fn put(&mut self, register: u64, value: u8) {
        self.serial.write(register, &[value]);
    }

    fn typed(&mut self, text: &[u8]) {
        self.console.typed.lock().unwrap().extend_from_slice(text);
        self.serial.input_arrived();
    }
}

#[test]
fn sends_at_once() {
    let mut rig = rig();
    for byte in *b"boot" {
        assert_eq!(rig.get(5), 0x60, "ready for another byte");
        rig.put(0, byte);
    }
    assert_eq!(*rig.console.written.lock().unwrap(), b"boot");
}

#[test]
fn keeps_the_divisor_apart() {
    let mut rig = rig();
    rig.put(1, 0x05);
    rig.put(3, 0x83);
    rig.put(0, 0x34);
    rig.put(1, 0x12);
    assert_eq!((rig.get(0), rig.get(1)), (0x34, 0x12));
    rig.put(3, 0x03);
    assert_eq!(rig.get(1), 0x05);
    assert!(rig.console.written.lock().unwrap().is_empty());
}

#[test]
fn identifies_as_16550a_only() {
    let mut rig = rig();
    rig.put(2, 0x01);
    assert_eq!(rig.get(2) >> 6, 3);
    // Neither the 64-byte FIFO of a 16750 nor the UUE bit of an XScale.
    rig.put(2, 0x21);
    assert_eq!(rig.get(2) >> 5, 6);
    rig.put(1, 0x40);
    assert_eq!(rig.get(1), 0);
    rig.put(2, 0);
    assert_eq!(rig.get(2), 0x01);
    rig.put(7, 0xa5);
    assert_eq!(rig.get(7), 0xa5);
}

#[test]
fn passes_the_loopback_probe() {
    let mut rig = rig();
    // Linux: MCR = LOOP | OUT2 | RTS must show as DCD and CTS.
    rig.put(4, 0x1a);
    assert_eq!(rig.get(6) & 0xf0, 0x90);
    assert_eq!(rig.get(6) & 0x0f, 0, "change bits go when read");
    rig.put(0, b'x');
    assert!(rig.console.written.lock().unwrap().is_empty());
    assert_eq!(rig.get(5) & 1, 1);
    assert_eq!(rig.get(0), b'x');
    // Without a FIFO the next byte overwrites.
    rig.put(0, 1);
    rig.put(0, 2);
    assert_eq!(rig.get(5) & 3, 3);
    assert_eq!(rig.get(5) & 3, 1, "overrun goes when read");
    assert_eq!(rig.get(0), 2);
    rig.put(4, 0);
    assert_eq!(rig.get(6) & 0xf0, 0xb0, "peer is there");
}

#[test]
fn ring_indicator_counts_when_it_falls() {
    let mut rig = rig();
    rig.put(4, 0x10);
    rig.get(6);
    rig.put(4, 0x14);
    assert_eq!(rig.get(6), 0x40);
    rig.put(4, 0x10);
    assert_eq!(rig.get(6), 0x04);
}

#[test]
fn announces_an_empty_transmitter() {
    let mut rig = rig();
    rig.put(4, 0x08);
    assert_eq!(rig.get(2), 0x01);
    rig.put(1, 0x02);
    assert!(rig.line.high());
    assert_eq!(rig.get(2), 0x02);
    assert!(!rig.line.high(), "reading the identification acknowledges");
    assert_eq!(rig.get(2), 0x01);
    rig.put(0, b'a');
    assert!(rig.line.high());
    assert_eq!(rig.get(2), 0x02);
    // Linux's THRE test: switching the enable off and on raises it again.
    rig.put(1, 0);
    rig.put(1, 0x02);
    assert_eq!(rig.get(2), 0x02);
    // Enabling what is enabled does not.
    rig.put(1, 0x02);
    assert_eq!(rig.get(2), 0x01);
}

#[test]
fn orders_interrupts_by_priority() {
    let mut rig = rig();
    rig.put(2, 0x01);
    rig.put(4, 0x10);
    rig.get(6);
    for byte in 0..17 {
        rig.put(0, byte);
    }
    rig.put(4, 0x12);
    rig.put(1, 0x0f);
    assert_eq!(rig.get(2), 0xc6);
    rig.get(5);
    assert_eq!(rig.get(2), 0xc4);
    for byte in 0..16 {
        assert_eq!(rig.get(0), byte);
    }
    assert_eq!(rig.get(2), 0xc2);
    assert_eq!(rig.get(2), 0xc0);
    assert_eq!(rig.get(6) & 0x0f, 0x01);
    assert_eq!(rig.get(2), 0xc1);
}

#[test]
fn receives_without_overrun() {
    let mut rig = rig();
    rig.put(4, 0x08);
    rig.put(1, 0x01);
    rig.put(2, 0x81);
    let text: Vec<u8> = (0..100).collect();
    rig.typed(&text[..3]);
    assert_eq!(rig.get(2), 0xcc, "below the trigger level: time-out");
    rig.typed(&text[3..]);
    assert_eq!(rig.get(2), 0xc4);
    let mut received = Vec::new();
    while rig.get(5) & 1 != 0 {
        assert!(rig.line.high());
        received.push(rig.get(0));
    }
    assert_eq!(received, text);
    assert!(!rig.line.high());
    assert_eq!(rig.get(0), 0, "nothing more");
}

#[test]
fn gates_the_interrupt_by_out2() {
    let mut rig = rig();
    rig.put(1, 0x01);
    rig.typed(b"x");
    assert!(!rig.line.high());
    rig.put(4, 0x08);
    assert!(rig.line.high());
    rig.put(4, 0x00);
    assert!(!rig.line.high());
    // Masking IER while data waits, and unmasking, raises it again.
    rig.put(4, 0x08);
    rig.put(1, 0x00);
    assert!(!rig.line.high());
    rig.put(1, 0x01);
    assert!(rig.line.high());
}

#[test]
fn clears_fifos_on_request() {
    let mut rig = rig();
    rig.put(2, 0x01);
    rig.typed(&[1; 16]);
    rig.put(2, 0x03);
    assert_eq!(rig.get(5) & 1, 0);
    rig.typed(&[2]);
    rig.put(2, 0x00);
    assert_eq!(rig.get(5) & 1, 0, "switching the FIFO clears it");
    rig.typed(&[3]);
    rig.put(2, 0x02);
    assert_eq!(rig.get(0), 3, "without a FIFO the clear bit means nothing");
}

#[test]
fn splits_wide_accesses() {
    let mut rig = rig();
    rig.serial.write(6, &[1, 2, 3, 4]);
    assert_eq!(rig.get(7), 2);
    let mut data = [0xff; 4];
    rig.serial.read(6, &mut data);
    assert_eq!(data[1..], [2, 0xff, 0xff]);
}

#[test]
fn saves_and_restores() {
    let mut rig = rig();
    rig.put(2, 0x01);
    rig.put(4, 0x08);
    rig.put(1, 0x03);
    rig.put(3, 0x1b);
    rig.typed(b"abc");
    let saved = rig.serial.save();
    let mut other = tests::rig();
    other.serial.restore(&saved).unwrap();
    assert!(other.line.high(), "a pending interrupt is raised again");
    assert_eq!(other.serial.save(), saved);
    assert_eq!(
        (other.get(0), other.get(0), other.get(0)),
        (b'a', b'b', b'c')
    );
    assert_eq!(other.get(2), 0xc2);
    other.serial.reset();
    assert_eq!(other.get(3), 0);
    assert!(!other.line.high());

    let mut bad = saved.clone();
    bad.body["receive"] = serde_json::json!(vec![0; 17]);
    assert!(other.serial.restore(&bad).is_err());
    bad.kind = "other".to_owned();
    assert!(other.serial.restore(&bad).is_err());
}

proptest! {
    /// Whatever is written and typed: no panic, a bounded FIFO, and a state that restores to itself.
    #[test]
    fn survives_anything(steps in proptest::collection::vec((0..3_u8, 0..10_u64, any::<[u8; 8]>(), 1..9_usize), 0..200)) {
        let mut rig = rig();
        for (kind, offset, data, width) in steps {
            match kind {
                0 => rig.serial.write(offset, &data[..width]),
                1 => rig.serial.read(offset, &mut { data }[..width]),
                _ => rig.typed(&data[..width]),
            }
            prop_assert!(rig.serial.state.receive.len() <= FIFO_BYTES);
            prop_assert_eq!(rig.line.high(), rig.serial.irq_level());
        }
        let saved = rig.serial.save();
        let mut other = tests::rig();
        other.serial.restore(&saved).unwrap();
        prop_assert_eq!(other.serial.save(), saved);
    }
}
