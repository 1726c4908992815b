use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::bus::BusDevice;

/// 2026-11-23 14:05:09 UTC, a Monday.
const NOW: u64 = 1_795_442_709;

struct Rig {
    cmos: Cmos,
    /// Host time in nanoseconds.
    host: Arc<AtomicU64>,
}

fn rig_at(seconds: u64) -> Rig {
    let host = Arc::new(AtomicU64::new(seconds * 1_000_000_000));
    let clock = Arc::clone(&host);
    let now = move || UNIX_EPOCH + Duration::from_nanos(clock.load(Ordering::SeqCst));
    Rig {
        cmos: Cmos::with_clock(Box::new(now)),
        host,
    }
}

impl Rig {
    fn get(&mut self, index: u8) -> u8 {
        self.cmos.write(0, &[index]);
        let mut data = [0];
        self.cmos.read(1, &mut data);
        data[0]
    }

    fn put(&mut self, index: u8, value: u8) {
        self.cmos.write(0, &[index]);
        self.cmos.write(1, &[value]);
    }

    fn time(&mut self) -> [u8; 8] {
        [0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00].map(|index| self.get(index))
    }

    fn pass(&self, nanoseconds: u64) {
        self.host.fetch_add(nanoseconds, Ordering::SeqCst);
    }
}

#[test]
fn shows_utc_in_bcd() {
    let mut rig = rig_at(NOW);
    assert_eq!(rig.time(), [0x20, 0x26, 0x11, 0x23, 2, 0x14, 0x05, 0x09]);
    rig.put(0x0b, 0x06);
    assert_eq!(rig.time(), [20, 26, 11, 23, 2, 14, 5, 9]);
    rig.put(0x0b, 0x00);
    assert_eq!(rig.get(0x04), 0x82, "2 pm");
    rig.pass(10 * 3600 * 1_000_000_000);
    assert_eq!(rig.get(0x04), 0x12, "midnight");
    assert_eq!(
        (rig.get(0x0d), rig.get(0x0c), rig.get(0x0a)),
        (0x80, 0, 0x26)
    );
}

#[test]
fn shows_an_update_coming() {
    let mut rig = rig_at(NOW);
    assert_eq!(rig.get(0x0a), 0x26);
    rig.pass(999_760_000);
    assert_eq!(rig.get(0x0a), 0xa6);
    rig.pass(240_000);
    assert_eq!(rig.get(0x0a), 0x26);
    // While the clock is held there is no update.
    rig.put(0x0b, 0x82);
    rig.pass(999_999_999);
    assert_eq!(rig.get(0x0a), 0x26);
}

#[test]
fn can_be_set() {
    let mut rig = rig_at(NOW);
    // Linux sets the SET bit and resets the divider first.
    rig.put(0x0b, 0x82);
    rig.put(0x0a, 0x76);
    for (index, value) in [
        (0x09, 0x31),
        (0x08, 0x02),
        (0x07, 0x28),
        (0x04, 0x23),
        (0x02, 0x59),
        (0x00, 0x58),
        (0x32, 0x20),
    ] {
        rig.put(index, value);
    }
    rig.pass(5_000_000_000);
    assert_eq!(rig.get(0x00), 0x58, "held");
    rig.put(0x0b, 0x02);
    rig.put(0x0a, 0x26);
    rig.pass(2_000_000_000);
    assert_eq!(rig.time(), [0x20, 0x31, 0x03, 0x01, 7, 0, 0, 0]);
    // A reset of the machine does not lose the time.
    rig.cmos.reset();
    assert_eq!(rig.get(0x09), 0x31);
}

#[test]
fn keeps_memory() {
    let mut rig = rig_at(NOW);
    rig.put(0x0f, 0x5a);
    rig.put(0x7f, 0xa5);
    rig.put(0xff, 0xa6);
    assert_eq!(
        (rig.get(0x0f), rig.get(0x7f)),
        (0x5a, 0xa6),
        "bit 7 only masks NMIs"
    );
    rig.cmos.set_memory(0x34, 7);
    rig.cmos.set_memory(0x00, 7);
    assert_eq!((rig.get(0x34), rig.get(0x00)), (7, 0x09));
    // Alarm registers hold what they are given.
    rig.put(0x01, 0xc0);
    assert_eq!(rig.get(0x01), 0xc0);
    // The index port cannot be read; a word reaches both ports.
    let mut data = [0; 2];
    rig.cmos.write(0, &[0x0f, 0x11]);
    rig.cmos.read(0, &mut data);
    assert_eq!(data, [0xff, 0x11]);
}

#[test]
fn saves_and_restores() {
    let mut rig = rig_at(NOW);
    rig.put(0x40, 1);
    rig.put(0x09, 0x40);
    let saved = rig.cmos.save();
    let mut other = rig_at(NOW + 10);
    other.cmos.restore(&saved).unwrap();
    assert_eq!(other.cmos.save(), saved);
    assert_eq!(
        (other.get(0x40), other.get(0x09), other.get(0x00)),
        (1, 0x40, 0x19)
    );
    for (field, value) in [
        ("memory", serde_json::json!([1, 2])),
        ("index", serde_json::json!(128)),
        ("offset", serde_json::json!(i64::MAX)),
        ("held", serde_json::json!(i64::MIN)),
    ] {
        let mut bad = saved.clone();
        bad.body[field] = value;
        assert!(other.cmos.restore(&bad).is_err(), "{field}");
    }
}

proptest! {
    #[test]
    fn calendar_is_a_bijection(seconds in -62_135_596_800_i64..253_402_300_800) {
        prop_assert_eq!(Calendar::from_seconds(seconds).to_seconds(), seconds);
    }

    #[test]
    fn survives_anything(steps in proptest::collection::vec((any::<bool>(), 0..3_u64, any::<[u8; 8]>(), 1..9_usize), 0..300)) {
        let mut rig = rig_at(NOW);
        for (write, offset, data, width) in steps {
            if write {
                rig.cmos.write(offset, &data[..width]);
            } else {
                rig.cmos.read(offset, &mut { data }[..width]);
            }
        }
        let saved = rig.cmos.save();
        rig_at(0).cmos.restore(&saved).unwrap();
    }
}
