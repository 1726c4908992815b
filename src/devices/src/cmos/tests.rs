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
        (0x80, 0x30, 0x26)
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

/// Seconds, minutes, hours of the alarm.
fn set_alarm(rig: &mut Rig, bytes: [u8; 3]) {
    for (index, byte) in [0x01, 0x03, 0x05].into_iter().zip(bytes) {
        rig.put(index, byte);
    }
}

fn next(rig: &Rig) -> Option<u64> {
    rig.cmos.next_event().map(|moment| moment.as_secs() - NOW)
}

#[test]
fn knows_when_the_alarm_is_due() {
    let mut rig = rig_at(NOW);
    assert_eq!(next(&rig), None, "not enabled");
    rig.put(0x0b, 0x22);
    // It is 14:05:09.
    for (alarm, expected) in [
        ([0x10, 0x05, 0x14], Some(1)),
        ([0x09, 0x05, 0x14], Some(86_400)),
        ([0x00, 0x06, 0x14], Some(51)),
        ([0x00, 0x00, 0x00], Some(9 * 3600 + 54 * 60 + 51)),
        ([0x00, 0xff, 0xc0], Some(51)),
        ([0xff, 0xff, 0xff], Some(1)),
        ([0xff, 0x05, 0x15], Some(3600 - 9)),
        ([0x30, 0xff, 0x14], Some(21)),
        // Never: no such second, minute, hour.
        ([0x60, 0xff, 0xff], None),
        ([0xff, 0x99, 0xff], None),
        ([0xff, 0xff, 0x24], None),
    ] {
        set_alarm(&mut rig, alarm);
        assert_eq!(next(&rig), expected, "{alarm:x?}");
    }
    rig.put(0x0b, 0x12);
    assert_eq!(next(&rig), Some(1), "the next update");
    rig.put(0x0b, 0xb2);
    assert_eq!(next(&rig), None, "the clock is held");
}

#[test]
fn flags_go_when_read() {
    let mut rig = rig_at(NOW);
    assert_eq!(rig.get(0x0c), 0);
    set_alarm(&mut rig, [0x12, 0xff, 0xff]);
    rig.pass(2_000_000_000);
    assert_eq!(rig.get(0x0c), 0x10, "updates, but nothing asked for");
    rig.pass(1_000_000_000);
    assert_eq!(rig.get(0x0c), 0x30);
    assert_eq!(rig.get(0x0c), 0);
    rig.put(0x0b, 0x22);
    rig.pass(60_000_000_000);
    assert_eq!(rig.get(0x0c), 0xb0, "requests an interrupt");
    // Setting the time past the alarm is not the alarm.
    rig.put(0x00, 0x30);
    assert_eq!(rig.get(0x0c) & 0x20, 0);
    // A host clock that is set back does no harm.
    rig.host.store(1_000_000_000, Ordering::SeqCst);
    rig.get(0x0c);
}

struct Told(std::sync::mpsc::Sender<bool>);

impl InterruptLine for Told {
    fn set_level(&self, high: bool) {
        let _ = self.0.send(high);
    }
}

#[test]
fn interrupts_at_the_next_update() {
    let events = crate::event_loop::EventLoop::new().unwrap();
    let handle = events.handle();
    let thread = events.spawn("cmos-test", || {}).unwrap();
    let (sender, levels) = std::sync::mpsc::channel();
    // One lock: the channel's sender is not shared.
    let cmos = Cmos::new()
        .with_alarm(Arc::new(Told(sender)), &handle)
        .unwrap();
    let put = |index, value| cmos.lock().unwrap().write(0, &[index, value]);
    for _ in 0..2 {
        put(0x0b, 0x12);
        let patience = Duration::from_secs(20);
        assert!(levels.recv_timeout(patience).unwrap());
        let mut flags = [0; 2];
        cmos.lock().unwrap().write(0, &[0x0c]);
        cmos.lock().unwrap().read(0, &mut flags);
        assert_eq!(flags[1] & 0x90, 0x90);
        assert!(!levels.recv_timeout(patience).unwrap());
    }
    handle.stop();
    thread.join().unwrap().unwrap();
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
            rig.cmos.next_event();
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
