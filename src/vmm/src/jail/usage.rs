//! Whether everything that the table allows is used, by what strace saw of monitors. `scripts/jail-usage` runs this.

use std::collections::HashSet;
use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader};

use super::names;
use super::syscalls::{Call, Class, lists};

/// What tests do not bring about, and what it is allowed for all the same.
const RARE: &[(&str, &str)] = &[(
    "every thread: restart_syscall",
    "made by the kernel, after a stop",
)];

/// Calls that threads of monitors made behind their filters.
#[derive(Default)]
struct Made {
    /// By kind of thread: number, and of an `ioctl` its request.
    calls: HashSet<(Class, i64, Option<u32>)>,
    /// Threads that have a filter.
    locked: HashSet<u32>,
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
        // It begins with the filter of the thread that started it.
        if self.locked.contains(&thread) || name == "discard" {
            let request = (number == libc::SYS_ioctl).then(|| request_of(arguments));
            self.calls
                .insert((class_of(name), number, request.flatten()));
        }
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
        "workshop" => Class::Workshop,
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
    if !requests.iter().any(|&request| used(classes, request)) {
        found.push(format!("{list}: every ioctl of {requests:#x?}"));
        return;
    }
    let everybody = lists()[0].2;
    for &request in requests
        .iter()
        .filter(|&&request| !used(everybody, request))
    {
        found.push(format!("{list}: ioctl {request:#x}"));
    }
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
        "7<vcpu0> [   0] read(5, ...) = 8",
        "7<vcpu0> [ 317] seccomp(0x1, 0, {len=289}) = 0",
        "7<vcpu0> [  16] ioctl(10, 0xae80 <unfinished ...>",
        "7<vcpu0> [  16] <... ioctl resumed>, 0) = 0",
        "9<discard> [ 285] fallocate(3, 0, 0, 4096) = 0",
        "9<tokio-rt-worker> [ 257] openat(-100, \"/\") = 3",
        "+++ exited with 0 +++",
    ] {
        made.hear(line);
    }
    assert!(made.any(&[Class::Vcpu], libc::SYS_ioctl, Some(0xae80)));
    assert!(made.any(&[Class::Queue], libc::SYS_fallocate, None));
    assert!(!made.any(&[Class::Vcpu], libc::SYS_read, None));
    assert_eq!(made.calls.len(), 3);
}
