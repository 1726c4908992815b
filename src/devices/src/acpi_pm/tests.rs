use proptest::prelude::*;

use super::*;
use crate::test_machine::{TestLine, TestPower};

struct Rig {
    pm: AcpiPm,
    sci: Arc<TestLine>,
    power: Arc<TestPower>,
}

fn rig() -> Rig {
    let (sci, power) = (TestLine::new(), TestPower::new());
    Rig {
        pm: AcpiPm::new(sci.clone(), power.clone()),
        sci,
        power,
    }
}

impl Rig {
    fn get16(&mut self, offset: u64) -> u16 {
        let mut data = [0; 2];
        self.pm.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    fn put16(&mut self, offset: u64, value: u16) {
        self.pm.write(offset, &value.to_le_bytes());
    }

    fn timer(&mut self) -> u32 {
        let mut data = [0; 4];
        self.pm.read(PM_TIMER, &mut data);
        u32::from_le_bytes(data)
    }
}

#[test]
fn is_always_in_acpi_mode() {
    let mut rig = rig();
    assert_eq!(rig.get16(PM1_CONTROL), 1);
    rig.put16(PM1_CONTROL, 0);
    assert_eq!(rig.get16(PM1_CONTROL), 1);
    rig.put16(PM1_CONTROL, 0x1c03);
    assert_eq!(rig.get16(PM1_CONTROL), 0x1c03);
    assert_eq!(rig.power.counts(), (0, 0));
}

#[test]
fn presses_the_power_button() {
    let mut rig = rig();
    rig.pm.press_power_button();
    assert!(!rig.sci.high(), "not enabled yet");
    rig.put16(PM1_EVENT + 2, 0x0100);
    assert!(rig.sci.high());
    assert_eq!(rig.get16(PM1_EVENT) & 0x0100, 0x0100);
    rig.put16(PM1_EVENT, 0x0001);
    assert!(rig.sci.high(), "another bit acknowledges nothing");
    // As ACPICA may: status and enable in one doubleword.
    rig.pm.write(PM1_EVENT, &[0, 1, 0, 1]);
    assert!(!rig.sci.high());
    assert_eq!(rig.get16(PM1_EVENT) & 0x0100, 0);
    assert_eq!(rig.get16(PM1_EVENT + 2), 0x0100);
    rig.pm.press_power_button();
    assert!(rig.sci.high());
}

#[test]
fn switches_off_in_s5_only() {
    let mut rig = rig();
    for kind in 1..8 {
        rig.put16(PM1_CONTROL, SLEEP_ENABLE | kind << 10);
        assert_eq!(rig.power.counts(), (0, 0));
    }
    // Linux writes the sleep type first, then type and enable.
    rig.put16(PM1_CONTROL, u16::from(SLP_TYP_S5) << 10 | 1);
    assert_eq!(rig.power.counts(), (0, 0));
    rig.put16(PM1_CONTROL, u16::from(SLP_TYP_S5) << 10 | SLEEP_ENABLE | 1);
    assert_eq!(rig.power.counts(), (0, 1));
    assert_eq!(rig.get16(PM1_CONTROL) & SLEEP_ENABLE, 0, "write-only");
}

#[test]
fn raises_general_purpose_events() {
    let mut rig = rig();
    rig.pm.raise_gpe(63);
    rig.pm.raise_gpe(64);
    rig.pm.write(GPE0 + 15, &[0x80]);
    assert!(rig.sci.high());
    let mut status = [0; 8];
    rig.pm.read(GPE0, &mut status);
    assert_eq!(u64::from_le_bytes(status), 1 << 63);
    rig.pm.write(GPE0 + 7, &[0x80]);
    assert!(!rig.sci.high());
}

#[test]
fn counts_at_3_579545_megahertz() {
    let mut rig = rig();
    let before_first = Instant::now();
    let first = rig.timer();
    let after_first = Instant::now();
    let mut last = first;
    while after_first.elapsed().as_millis() < 20 {
        let now = rig.timer();
        assert!(now.wrapping_sub(last) < 1 << 31, "goes forward");
        last = now;
    }
    let before_last = Instant::now();
    let ticks = f64::from(rig.timer().wrapping_sub(first));
    let expected = |from: Instant, to: Instant| (to - from).as_secs_f64() * 3_579_545.0;
    assert!(ticks >= expected(after_first, before_last) - 2.0);
    assert!(ticks <= expected(before_first, Instant::now()) + 2.0);
    rig.pm.write(PM_TIMER, &[0; 4]);
    assert!(rig.timer() >= last, "cannot be written");
}

#[test]
fn notes_when_the_timers_top_bit_changes() {
    let mut rig = rig();
    rig.pm.registers.timer_base = (1 << 31) - 1000;
    rig.pm.pause();
    rig.put16(PM1_EVENT, 1);
    rig.pm.registers.timer_top = false;
    rig.pm.stopped = Some(1 << 31);
    assert_eq!(rig.get16(PM1_EVENT), 1);
    rig.put16(PM1_EVENT, 1);
    assert_eq!(rig.get16(PM1_EVENT), 0);
}

#[test]
fn time_stands_still_while_paused() {
    let mut rig = rig();
    rig.put16(PM1_EVENT + 2, 0x0100);
    rig.pm.press_power_button();
    rig.pm.pause();
    let stopped = rig.timer();
    assert_eq!(rig.timer(), stopped);
    let saved = rig.pm.save();
    let mut other = tests::rig();
    other.pm.pause();
    other.pm.restore(&saved).unwrap();
    assert!(other.sci.high());
    assert_eq!(other.timer(), stopped);
    assert_eq!(other.pm.save(), saved);
    other.pm.resume();
    assert!(other.timer() >= stopped);
    other.pm.reset();
    assert!(!other.sci.high());
    assert_eq!(other.get16(PM1_EVENT + 2), 0);
}

#[test]
fn reads_zero_where_nothing_is() {
    let mut rig = rig();
    let mut data = [0xff; 8];
    rig.pm.read(0x7c, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
}

proptest! {
    #[test]
    fn restores_only_bits_that_exist(status: u16, enable: u16, control: u16) {
        let mut rig = rig();
        let body = serde_json::json!({
            "pm1_status": status, "pm1_enable": enable, "pm1_control": control,
        });
        let state = DeviceState { kind: KIND.to_owned(), version: 1, body };
        rig.pm.pause();
        rig.pm.restore(&state).unwrap();
        prop_assert_eq!(rig.get16(PM1_EVENT) & !PM1_STATUS_MASK, 0);
        prop_assert_eq!(rig.get16(PM1_EVENT + 2) & !PM1_ENABLE_MASK, 0);
        prop_assert_eq!(rig.get16(PM1_CONTROL) & !(PM1_CONTROL_MASK | 1), 0);
    }
}
