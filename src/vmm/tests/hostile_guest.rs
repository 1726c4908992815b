//! A guest that attacks its monitor (`tests/hostile-guest`), and what is measured of the monitor meanwhile.
//!
//! `LODGE_HOSTILE_SEED` and `LODGE_HOSTILE_ROUNDS` choose the random numbers and how many attacks use;
//! `LODGE_HOSTILE_ONLY` a single attack. A failure prints what it takes to see it again.

#![allow(unsafe_code, reason = "guests are assembled into this program")]

mod support;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use lodge_vmm_proto::{
    Answer, DiskBus, ErrorCode, ExitReason, GuestEvent, MAX_SCREEN, RequestBody, RunState,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use support::tap::tap;
use support::{Guest, LIMIT, Options, kvm_missing};

const MEMORY: u64 = 64 << 20;
/// Nobody's user on any machine these tests run on.
const USER: u32 = 54_322;
/// How the guest's last line ends.
const END: &str = " bad\n";
/// Nothing may take the monitor longer.
const HANG: Duration = Duration::from_secs(1);
/// The monitor may grow by so much.
const GROWTH: u64 = 1 << 20;
/// And it may log so much, whatever a guest does how often, in bytes.
const LOG: u64 = 16 << 10;

fn options(first: &str, flash: u64) -> (Options, String) {
    let setting =
        |name: &str, default: &dyn Fn() -> String| env::var(name).unwrap_or_else(|_| default());
    let seed = setting("LODGE_HOSTILE_SEED", &|| format!("{:#x}", seed()));
    let rounds = setting("LODGE_HOSTILE_ROUNDS", &|| "1".to_owned());
    let only = setting("LODGE_HOSTILE_ONLY", &String::new);
    let cmdline = format!(
        "seed={seed} rounds={rounds} first={first} only={only} memory={MEMORY} flash={flash:#x} watched"
    );
    eprintln!("hostile guest: {cmdline}");
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!(
            "NOTE: only root can start a monitor as another user; this one runs outside a jail"
        );
    }
    let options = Options {
        cmdline: cmdline.clone(),
        jail: root,
        user: root.then_some(USER),
        vcpus: 2,
        memory: MEMORY,
        disks: [DiskBus::Virtio, DiskBus::Sata, DiskBus::Nvme]
            .map(|bus| (bus, disk()))
            .into(),
        cdroms: vec![Some(disk()), None],
        nics: tap().into_iter().collect(),
        cards: tap().into_iter().collect(),
        ..Options::kernel(lodge_hostile_guest::KERNEL.to_vec())
    };
    (options, cmdline)
}

/// Another one each time: over many runs much is tried.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_nanos() as u64)
}

fn disk() -> fs::File {
    let file = tempfile::tempfile().expect("disk");
    file.set_len(1 << 20).expect("disk");
    file
}

#[test]
fn a_kernel_attacks_and_its_monitor_stands() {
    if kvm_missing() {
        return;
    }
    let (options, cmdline) = options("", 0);
    let notices = attack(options, &cmdline, false);
    let told = notices
        .iter()
        .any(|event| matches!(event, GuestEvent::DeviceError { .. }));
    assert!(
        told || env::var("LODGE_HOSTILE_ONLY").is_ok(),
        "nobody was told of broken devices"
    );
}

#[test]
fn firmware_attacks_and_its_monitor_stands() {
    if kvm_missing() {
        return;
    }
    let variables = 64 << 10;
    let flash = (1 << 32) - lodge_hostile_guest::ROM_LENGTH - variables;
    let (options, cmdline) = options("ports", flash);
    let file = tempfile::tempfile().expect("variables");
    file.set_len(variables).expect("variables");
    let options = Options {
        firmware: Some((lodge_hostile_guest::rom(&cmdline), Some(file))),
        ..options
    };
    attack(options, &cmdline, true);
}

/// Lets the guest do what it does, and returns what managers were told.
fn attack(mut options: Options, cmdline: &str, screen: bool) -> Vec<GuestEvent> {
    let log = tempfile::tempfile().expect("log");
    options.log = Some(log.try_clone().expect("log"));
    let mut guest = Guest::start(options);
    assert_eq!(guest.ask(RequestBody::Subscribe), Answer::Done);
    let mut watch = Watch::new(&mut guest, cmdline);
    watch.until(&mut guest, "hostile guest: seed=", false);
    let before = own_memory(guest.pid());
    watch.go_on();
    watch.until(&mut guest, END, screen);
    let after = own_memory(guest.pid());
    let grown = after.saturating_sub(before) >> 10;
    eprintln!(
        "{cmdline}: the monitor has {} KiB of its own, {grown} KiB more than before",
        after >> 10
    );
    assert!(
        after <= before + GROWTH,
        "{cmdline}: the monitor has grown by {grown} KiB"
    );
    let logged = log.metadata().expect("log").len();
    assert!(
        logged <= LOG,
        "{cmdline}: {logged} bytes were logged: {}",
        beginning(&log)
    );
    let text = watch.text();
    assert!(!text.contains("BAD"), "{cmdline}: {text}");
    assert!(text.contains("over, 0 bad"), "{cmdline}: {text}");
    // The machine is still one that can be reset from outside and boots the same guest.
    watch.forget();
    assert_eq!(guest.ask(RequestBody::Reset), Answer::Done);
    watch.until(&mut guest, END, false);
    assert_eq!(guest.state(), RunState::Running);
    watch.go_on();
    let notices = std::mem::take(&mut guest.notices);
    let record = guest.end();
    assert_eq!(
        record.reason,
        ExitReason::GuestPoweroff,
        "{cmdline}: {record:?}"
    );
    notices
}

fn beginning(log: &fs::File) -> String {
    let mut bytes = [0; 2048];
    let length = log.read_at(&mut bytes, 0).expect("log");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Looks at the guest's console and keeps the monitor answering.
struct Watch {
    console: UnixStream,
    seen: Vec<u8>,
    cmdline: String,
    screen: fs::File,
}

impl Watch {
    fn new(guest: &mut Guest, cmdline: &str) -> Self {
        let console = guest.console(u32::MAX).into_socket();
        console.set_nonblocking(true).expect("console");
        let screen = tempfile::tempfile().expect("screen");
        screen.set_len(MAX_SCREEN).expect("screen");
        Self {
            console,
            seen: Vec::new(),
            cmdline: cmdline.to_owned(),
            screen,
        }
    }

    fn text(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.seen).into_owned();
        text.chars().filter(|&char| char != '.').collect()
    }

    fn forget(&mut self) {
        self.seen.clear();
    }

    fn go_on(&mut self) {
        self.console.write_all(b"!").expect("console");
    }

    /// Watches until the guest says `text`. Guest and monitor must both get on all the time.
    fn until(&mut self, guest: &mut Guest, text: &str, screen: bool) {
        let mut alive = Patience::new(guest.pid());
        while !self.text().contains(text) {
            if self.take() {
                alive = Patience::new(guest.pid());
            }
            if let Some(stuck) = alive.over() {
                panic!(
                    "{}: the guest stands still for {stuck:?} after {}",
                    self.cmdline,
                    self.text()
                );
            }
            let patience = Patience::new(guest.pid());
            self.still_there(guest);
            assert_eq!(guest.state(), RunState::Running);
            if screen {
                self.look(guest);
            }
            if let Some(stuck) = patience.over() {
                panic!(
                    "{}: the monitor does not answer for {stuck:?} after {}",
                    self.cmdline,
                    self.text()
                );
            }
        }
    }

    /// A guest that has ended says why.
    fn still_there(&self, guest: &Guest) {
        if let Some(record) = guest.last_words() {
            panic!(
                "{}: the guest ended: {record:?} after {}",
                self.cmdline,
                self.text()
            );
        }
    }

    /// A picture, if there is one; the guest is changing it at this moment.
    fn look(&self, guest: &mut Guest) {
        let answer = guest.ask_with(RequestBody::Screen, &[self.screen.as_fd()]);
        let right = matches!(
            answer,
            Answer::Screen { .. }
                | Answer::Error {
                    code: ErrorCode::WrongState,
                    ..
                }
        );
        assert!(right, "{answer:?}");
    }

    /// Takes what has been printed; tells whether anything was.
    fn take(&mut self) -> bool {
        let mut fds = [PollFd::new(self.console.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(20_u8));
        let mut buffer = [0; 4096];
        match self.console.read(&mut buffer) {
            Ok(0) => panic!("{}: the guest is gone after {}", self.cmdline, self.text()),
            Ok(count) => {
                self.seen.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{}: {error} after {}", self.cmdline, self.text()),
        }
    }
}

/// How long something takes: less what threads of the monitor, and this one, had to wait for a processor, and measured against how much
/// more work the host has than processors. A busy host is not a hang.
struct Patience {
    pid: i32,
    since: Instant,
    waited: HashMap<String, Duration>,
    waited_myself: Duration,
}

impl Patience {
    fn new(pid: i32) -> Self {
        Self {
            pid,
            since: Instant::now(),
            waited: waits(pid),
            waited_myself: wait("/proc/thread-self/schedstat".as_ref()),
        }
    }

    /// If it takes too long: how long.
    fn over(&self) -> Option<Duration> {
        let elapsed = self.since.elapsed();
        if elapsed < HANG {
            return None;
        }
        let mut most = Duration::ZERO;
        for (thread, waited) in waits(self.pid) {
            let before = self.waited.get(&thread).copied().unwrap_or_default();
            most = most.max(waited.saturating_sub(before));
        }
        let myself =
            wait("/proc/thread-self/schedstat".as_ref()).saturating_sub(self.waited_myself);
        let own = elapsed.saturating_sub(most + myself);
        (own >= HANG.mul_f64(crowd()) || elapsed >= LIMIT).then_some(own)
    }
}

/// Runnable threads of the host for each of its processors, lately; at least one.
fn crowd() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (load / processors as f64).max(1.0)
}

/// Time that each thread has waited in a processor's queue.
fn waits(pid: i32) -> HashMap<String, Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let waits = threads.flatten().map(|thread| {
        let name = thread.file_name().to_string_lossy().into_owned();
        (name, wait(&thread.path().join("schedstat")))
    });
    waits.collect()
}

/// The second field of `schedstat` (proc(5)).
fn wait(schedstat: &Path) -> Duration {
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    let field = text.split_whitespace().nth(1);
    Duration::from_nanos(field.and_then(|word| word.parse().ok()).unwrap_or(0))
}

/// Bytes of private memory the monitor has written to, apart from its guest's memory.
fn own_memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("memory map");
    let mut mappings: Vec<(u64, u64, u64)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let address = |text| u64::from_str_radix(text, 16).expect("address");
            mappings.push((address(start), address(end), 0));
        } else if first == "Private_Dirty:" {
            let kibibytes: u64 = words.next().expect("size").parse().expect("size");
            mappings.last_mut().expect("mapping").2 += kibibytes << 10;
        }
    }
    // The guest's memory is the largest, whose beginning may be a view of the kernel's file.
    let largest = mappings
        .iter()
        .max_by_key(|(start, end, _)| end - start)
        .expect("mappings");
    let guest = largest.1 - MEMORY..largest.1;
    let own = mappings.iter().filter(|(start, ..)| !guest.contains(start));
    own.map(|(_, _, dirty)| dirty).sum()
}
