//! Whether everything that the table allows is used, by what strace saw of monitors. `scripts/jail-usage` runs this.

use std::collections::{HashMap, HashSet};
use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::names;
use super::syscalls::{Call, Class, lists};

/// What tests do not bring about, and what it is allowed for all the same.
const RARE: &[(&str, &str)] = &[
    (
        "every thread: restart_syscall",
        "made by the kernel, after a stop",
    ),
    (
        "every thread: rt_sigaction",
        "the end of a process that has panicked",
    ),
    (
        "main: fdatasync",
        "firmware's variables that are written when the guest is reset",
    ),
    (
        "main: every ioctl of 0x400454d0 0x400454d1 0x400454d8 0x400454d9",
        "a reset ends what a driver had begun with its network interface",
    ),
    (
        "vcpu: every ioctl of 0x8090ae81 0x8138ae83",
        "where a guest was that cannot go on",
    ),
    (
        "event loop: every ioctl of 0x400454d0 0x400454d1 0x400454d8 0x400454d9",
        "a driver that takes more queues while it runs",
    ),
    ("queue: preadv", "disks in memory, and discs"),
    ("queue: pwritev", "disks in memory"),
    (
        "queue: clock_nanosleep",
        "the host has no memory for a request",
    ),
];

/// Requests of the kernel's devices for guests (`vhost`).
const VHOST: u32 = 0xaf;

/// The only thread that begins others behind its filter.
const WORKSHOP: &str = "workshop";

/// Calls that threads of monitors made behind their filters.
#[derive(Default)]
struct Made {
    /// By kind of thread: number, and of an `ioctl` its request.
    calls: HashSet<(Class, i64, Option<u32>)>,
    /// Threads that have a filter of their own.
    locked: HashSet<u32>,
    /// Threads, and whether they began with the filter of the workshop.
    begun: HashMap<u32, bool>,
}

impl Made {
    fn read(path: &str) -> Self {
        let mut made = Self::default();
        let file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        for line in BufReader::new(file).split(b'\n') {
            let line = line.expect("reading");
            made.hear(&String::from_utf8_lossy(&line));
        }
        made
    }

    /// A line of `strace -f -n -X raw --decode-pids=comm`: thread, its name, the call's number and its arguments.
    fn hear(&mut self, line: &str) -> Option<()> {
        let (thread, rest) = line.split_once('<')?;
        let (name, rest) = rest.split_once("> [")?;
        let (number, rest) = rest.split_once("] ")?;
        let (thread, number) = (thread.parse().ok()?, number.trim().parse().ok()?);
        let (_, arguments) = rest.split_once('(')?;
        if number == libc::SYS_seccomp {
            self.locked.insert(thread);
        }
        // A thread is called at first as the one that began it, whose filter it has.
        let begun_there = *self.begun.entry(thread).or_insert(name == WORKSHOP);
        let class = match self.locked.contains(&thread) {
            true => class_of(name),
            false if begun_there => Class::Workshop,
            false => return None,
        };
        let request = (number == libc::SYS_ioctl).then(|| request_of(arguments));
        self.calls.insert((class, number, request.flatten()));
        Some(())
    }

    fn any(&self, classes: &[Class], number: i64, request: Option<u32>) -> bool {
        let wanted = |class: &Class| self.calls.contains(&(*class, number, request));
        classes.iter().any(wanted)
    }
}

/// What threads of that name are.
fn class_of(name: &str) -> Class {
    match name {
        "devices" => Class::EventLoop,
        "viewers" => Class::Viewers,
        WORKSHOP => Class::Workshop,
        _ if name.starts_with("vmm:") => Class::Main,
        _ if name.starts_with("vcpu") => Class::Vcpu,
        _ => Class::Queue,
    }
}

fn request_of(arguments: &str) -> Option<u32> {
    let request = arguments.split(", ").nth(1)?.strip_prefix("0x")?;
    let end = request.find(|c: char| !c.is_ascii_hexdigit());
    u32::from_str_radix(&request[..end.unwrap_or(request.len())], 16).ok()
}

/// Entries that nobody used. Of requests that several lists have, one list's use is enough, but each list has to use some.
fn unused(made: &Made) -> Vec<String> {
    let mut found = Vec::new();
    for (list, calls, classes) in lists() {
        for call in calls {
            let number = match *call {
                Call::Any(number) | Call::NotExecutable(number) => number,
                Call::Thread => libc::SYS_clone,
                Call::Abort => libc::SYS_rt_sigaction,
                Call::Filter => libc::SYS_seccomp,
                Call::Ioctl(requests) => {
                    unused_requests(made, list, requests, classes, &mut found);
                    continue;
                }
            };
            if !made.any(classes, number, None) {
                found.push(format!("{list}: {}", name_of(number)));
            }
        }
    }
    found
}

fn unused_requests(
    made: &Made,
    list: &str,
    requests: &'static [u32],
    classes: &[Class],
    found: &mut Vec<String>,
) {
    let used = |classes: &[Class], request| made.any(classes, libc::SYS_ioctl, Some(request));
    let possible = |request: &&u32| has_vhost() || (**request >> 8) & 0xff != VHOST;
    let requests: Vec<u32> = requests.iter().filter(possible).copied().collect();
    if !requests.iter().any(|&request| used(classes, request)) {
        let requests: Vec<_> = requests.iter().map(|r| format!("{r:#x}")).collect();
        found.push(format!("{list}: every ioctl of {}", requests.join(" ")));
        return;
    }
    let everybody = lists()[0].2;
    for request in requests
        .into_iter()
        .filter(|&request| !used(everybody, request))
    {
        found.push(format!("{list}: ioctl {request:#x}"));
    }
}

/// Without it no guest of the tests makes its requests.
fn has_vhost() -> bool {
    Path::new("/dev/vhost-net").exists()
}

fn name_of(number: i64) -> String {
    let known = i32::try_from(number).ok().and_then(names::name);
    known.map_or_else(|| number.to_string(), str::to_owned)
}

#[test]
#[ignore = "scripts/jail-usage runs it, with what strace saw"]
fn everything_that_is_allowed_is_used() {
    let paths = env::var("LODGE_STRACE").expect("LODGE_STRACE names files of strace");
    let mut made = Made::default();
    for path in paths.split(':') {
        made.calls.extend(Made::read(path).calls);
    }
    assert!(!made.calls.is_empty(), "no monitor is in {paths}");
    let excused = |entry: &String| RARE.iter().any(|(rare, _)| rare == entry);
    let (rare, unused): (Vec<_>, Vec<_>) = unused(&made).into_iter().partition(excused);
    let needless: Vec<_> = RARE
        .iter()
        .filter(|(entry, _)| !rare.iter().any(|found| found == entry))
        .collect();
    assert!(
        unused.is_empty(),
        "allowed, and used by nobody: {unused:#?}"
    );
    assert!(needless.is_empty(), "these are used: {needless:#?}");
}

#[test]
fn lines_of_strace() {
    let mut made = Made::default();
    for line in [
        "7<vmm:web> [ 273] set_robust_list(0x7f, 24) = 0",
        "7<vcpu0> [   0] read(5, ...) = 8",
        "7<vcpu0> [ 317] seccomp(0x1, 0, {len=289}) = 0",
        "7<vcpu0> [  16] ioctl(10, 0xae80 <unfinished ...>",
        "7<vcpu0> [  16] <... ioctl resumed>, 0) = 0",
        "9<tokio-rt-worker> [ 257] openat(-100, \"/\") = 3",
        "8<workshop> [ 273] set_robust_list(0x7f, 24) = 0",
        "8<virtio-blk0> [ 317] seccomp(0x1, 0, {len=289}) = 0",
        "8<virtio-blk0> [   1] write(5, 0x7f, 8) = 8",
        "+++ exited with 0 +++",
    ] {
        made.hear(line);
    }
    assert!(made.any(&[Class::Vcpu], libc::SYS_ioctl, Some(0xae80)));
    assert!(!made.any(&[Class::Vcpu], libc::SYS_read, None));
    assert!(made.any(&[Class::Workshop], libc::SYS_set_robust_list, None));
    assert!(made.any(&[Class::Queue], libc::SYS_write, None));
    assert!(!made.any(&[Class::Workshop], libc::SYS_write, None));
}
