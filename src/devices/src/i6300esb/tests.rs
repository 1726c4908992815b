use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::event_loop::EventLoop;

/// What Linux's driver gives each stage for one second: 512 counts of 2^15 cycles.
const SECOND: u32 = 1 << 9;
/// How long that is.
const STAGE: Duration = Duration::from_nanos((SECOND as u64) * 32_768 * 1000 / 33);
const BASE: u64 = 0xe000_0000;
const COMMAND: usize = 0x04;

/// A watchdog behind its BAR, a clock that stands until it is moved, and how often it has expired.
struct Rig {
    bus: Arc<Bus>,
    watchdog: Arc<Mutex<Watchdog>>,
    now: Arc<Mutex<Duration>>,
    expired: Arc<AtomicU32>,
}

impl Rig {
    fn new() -> Self {
        let (bus, now) = (Arc::new(Bus::new()), Arc::new(Mutex::default()));
        let expired = Arc::new(AtomicU32::new(0));
        let (clock, counter) = (Arc::clone(&now), Arc::clone(&expired));
        let watchdog = Watchdog::with_clock(
            &bus,
            Box::new(move || *clock.lock().unwrap()),
            Arc::new(move || {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
        )
        .unwrap();
        let rig = Self {
            bus,
            watchdog,
            now,
            expired,
        };
        rig.map();
        rig
    }

    fn map(&self) {
        let mut watchdog = self.watchdog.lock().unwrap();
        watchdog.set_bar(BAR, BASE);
        watchdog.config_write(COMMAND, &[2, 0]);
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.bus.read(BASE + offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn reload(&self, value: u16) {
        for word in [0x80, 0x86, value] {
            self.bus.write(BASE + RELOAD, &word.to_le_bytes());
        }
    }

    fn preload(&self, offset: u64, value: u32) {
        for word in [0x80_u16, 0x86] {
            self.bus.write(BASE + RELOAD, &word.to_le_bytes());
        }
        self.bus.write(BASE + offset, &value.to_le_bytes());
    }

    fn set_lock(&self, value: u8) -> u8 {
        let mut watchdog = self.watchdog.lock().unwrap();
        watchdog.config_write(LOCK, &[value]);
        let mut data = [0];
        watchdog.config_read(LOCK, &mut data);
        data[0]
    }

    fn set_config(&self, value: u16) {
        let mut watchdog = self.watchdog.lock().unwrap();
        watchdog.config_write(CONFIG, &value.to_le_bytes());
    }

    /// As Linux's driver does: `esb_initdevice` and `esb_timer_start`, for one second per stage.
    fn drive(&self) {
        self.set_config(3);
        assert_eq!(self.set_lock(0), 0);
        self.reload(0x300);
        self.preload(PRELOAD_1, SECOND);
        self.preload(PRELOAD_2, SECOND);
        self.reload(0x100);
        assert_eq!(self.set_lock(ENABLED), ENABLED);
    }

    /// Lets time go by, and the event loop look; returns how often the watchdog has expired since it was made.
    fn after(&self, time: Duration) -> u32 {
        *self.now.lock().unwrap() += time;
        self.watchdog.lock().unwrap().expire();
        self.expired.load(Ordering::SeqCst)
    }
}

const BEFORE: Duration = STAGE.saturating_sub(Duration::from_nanos(1));
const NS: Duration = Duration::from_nanos(1);

#[test]
fn it_expires_when_both_stages_have_run_out_and_stands_still_then() {
    let rig = Rig::new();
    rig.drive();
    assert_eq!(rig.after(BEFORE), 0);
    assert_eq!(rig.read(INTERRUPT_STATUS), 0);
    assert_eq!(rig.after(NS), 0);
    assert_eq!(rig.read(INTERRUPT_STATUS), 1);
    assert_eq!(rig.read(RELOAD), 0);
    assert_eq!(rig.after(BEFORE), 0);
    assert_eq!(rig.after(NS), 1);
    assert_eq!(rig.read(RELOAD), TIMED_OUT);
    assert_eq!(rig.after(STAGE * 100), 1);
    // Its driver comes back.
    rig.reload(0x100);
    rig.bus.write(BASE + INTERRUPT_STATUS, &[1]);
    assert_eq!(rig.read(INTERRUPT_STATUS), 0);
    assert_eq!((rig.after(STAGE), rig.after(BEFORE)), (1, 1));
    assert_eq!(rig.after(NS), 2);
    rig.reload(0x200);
    assert_eq!(rig.read(RELOAD), 0);
}

#[test]
fn a_driver_that_reloads_it_holds_it_off() {
    let rig = Rig::new();
    rig.drive();
    for _ in 0..10 {
        assert_eq!(rig.after(STAGE), 0);
        assert_eq!(rig.after(BEFORE), 0);
        rig.reload(0x100);
    }
    // Late, but before the event loop has noticed.
    assert_eq!(rig.after(STAGE), 0);
    *rig.now.lock().unwrap() += STAGE * 2;
    rig.reload(0x100);
    assert_eq!(rig.after(BEFORE), 0);
    // A monitor that stood still for long has its guest's second stage before it.
    assert_eq!(rig.after(STAGE * 100), 0);
    assert_eq!(rig.after(BEFORE), 0);
    // Stopped, and started with the counts it has.
    assert_eq!(rig.set_lock(0), 0);
    assert_eq!(rig.after(STAGE * 100), 0);
    assert_eq!(rig.set_lock(ENABLED), ENABLED);
    assert_eq!((rig.after(STAGE), rig.after(STAGE)), (0, 1));
}

#[test]
fn nothing_changes_without_the_key() {
    let rig = Rig::new();
    rig.drive();
    assert_eq!(rig.after(BEFORE), 0);
    let attempts: [&[u16]; 5] = [
        &[0x100],
        &[0x80, 0x100],
        &[0x86, 0x80, 0x100],
        &[0x86, 0x86, 0x100],
        &[0x80, 0x86, 0, 0x100],
    ];
    for words in attempts {
        for word in words {
            rig.bus.write(BASE + RELOAD, &word.to_le_bytes());
        }
    }
    rig.bus.write(BASE + PRELOAD_1, &[0; 4]);
    // The right key for a part of a register, and for none.
    for (offset, data) in [
        (PRELOAD_1, &[0; 2][..]),
        (PRELOAD_2 + 1, &[0; 2]),
        (INTERRUPT_STATUS, &[0; 8]),
        (RELOAD + 1, &[1]),
    ] {
        rig.bus.write(BASE + RELOAD, &[0x80]);
        rig.bus.write(BASE + RELOAD, &[0x86]);
        rig.bus.write(BASE + offset, data);
    }
    assert_eq!((rig.read(PRELOAD_1), rig.read(PRELOAD_2)), (SECOND, SECOND));
    assert_eq!(rig.after(NS), 0);
    assert_eq!(rig.read(INTERRUPT_STATUS), 1);
    // A key that was begun twice fits.
    for word in [0x80_u16, 0x80, 0x86, 0x80, 0x86, 0x100] {
        rig.bus.write(BASE + RELOAD, &word.to_le_bytes());
    }
    assert_eq!(rig.after(STAGE), 0);
    assert_eq!(rig.after(BEFORE), 0);
}

#[test]
fn a_locked_one_stays_as_it_is_until_the_next_reset() {
    let rig = Rig::new();
    rig.drive();
    assert_eq!(rig.set_lock(LOCKED | ENABLED), LOCKED | ENABLED);
    assert_eq!(rig.set_lock(0), LOCKED | ENABLED);
    assert_eq!((rig.after(STAGE), rig.after(STAGE)), (0, 1));
    rig.watchdog.lock().unwrap().reset();
    rig.map();
    assert_eq!(rig.read(PRELOAD_1), PRELOAD_MASK);
    // The next system reads why it boots.
    assert_eq!(rig.read(RELOAD), TIMED_OUT);
    assert_eq!(rig.set_lock(0), 0);
    assert_eq!(rig.after(STAGE * 10_000), 1);
}

#[test]
fn prescaler_output_and_free_running_are_obeyed() {
    let rig = Rig::new();
    rig.drive();
    // 32 times as long as a thousandth: 1 MHz.
    rig.set_config(CONFIG_FAST);
    rig.preload(PRELOAD_1, SECOND << 5);
    rig.preload(PRELOAD_2, SECOND << 5);
    rig.reload(0x100);
    assert_eq!((rig.after(STAGE / 32), rig.after(STAGE / 32)), (0, 1));
    // Free running: the second stage only. With the output off, for ever.
    rig.set_config(CONFIG_FAST | CONFIG_OUTPUT_OFF);
    assert_eq!(rig.set_lock(0), 0);
    rig.set_lock(ENABLED | FREE_RUNNING);
    rig.reload(0x200);
    for _ in 0..10 {
        assert_eq!(rig.after(STAGE / 32), 1);
        assert_eq!(rig.read(RELOAD), 0);
    }
    rig.set_config(CONFIG_FAST);
    assert_eq!(rig.after(STAGE / 32), 2);
    // Not even a count of nothing ends at once.
    rig.preload(PRELOAD_2, 0);
    rig.reload(0x100);
    assert_eq!(rig.after(Duration::from_micros(999)), 2);
    assert_eq!(rig.after(Duration::from_micros(1)), 3);
}

#[test]
fn time_counts_only_while_the_guest_runs() {
    let rig = Rig::new();
    rig.drive();
    assert_eq!(rig.after(BEFORE), 0);
    rig.watchdog.lock().unwrap().pause();
    assert_eq!(rig.after(STAGE * 100), 0);
    assert_eq!(rig.read(INTERRUPT_STATUS), 0);
    let saved = rig.watchdog.lock().unwrap().save();
    // It goes on here, and where it is restored.
    let other = Rig::new();
    other.after(STAGE * 7);
    other.watchdog.lock().unwrap().pause();
    other.watchdog.lock().unwrap().restore(&saved).unwrap();
    assert_eq!(other.watchdog.lock().unwrap().save(), saved);
    for rig in [rig, other] {
        rig.watchdog.lock().unwrap().resume();
        assert_eq!(rig.read(INTERRUPT_STATUS), 0);
        assert_eq!(rig.after(NS), 0);
        assert_eq!(rig.read(INTERRUPT_STATUS), 1);
        assert_eq!((rig.after(BEFORE), rig.after(NS)), (0, 1));
    }
}

#[test]
fn a_count_that_cannot_be_is_refused() {
    let rig = Rig::new();
    rig.drive();
    let mut watchdog = rig.watchdog.lock().unwrap();
    watchdog.pause();
    let before = watchdog.save();
    let mut forged = before.clone();
    forged.body["count"]["left_ns"] = u64::MAX.into();
    assert!(watchdog.restore(&forged).is_err());
    assert_eq!(watchdog.save(), before);
}

#[test]
fn the_event_loop_waits_for_it() {
    let events = EventLoop::new().unwrap();
    let handle = events.handle();
    let thread = events.spawn("test-watchdog", || {}).unwrap();
    let (expired, hears) = std::sync::mpsc::channel();
    let expired = Mutex::new(expired);
    let bus = Arc::new(Bus::new());
    let on_expiry = Arc::new(move || expired.lock().unwrap().send(()).unwrap());
    let watchdog = Watchdog::new(&bus, &handle, on_expiry).unwrap();
    {
        let mut watchdog = watchdog.lock().unwrap();
        watchdog.registers.preload = [1; 2];
        watchdog.config_write(LOCK, &[ENABLED]);
    }
    hears.recv().unwrap();
    drop(watchdog);
    handle.stop();
    thread.join().unwrap().unwrap();
}
