//! What the monitor can no longer do once its guest runs.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Guest, LIMIT, Options, kvm_missing};
use lodge_vmm_proto::{Answer, DiskBus, ExitReason, RequestBody};

/// Nobody's user on any machine these tests run on.
const USER: u32 = 54_321;

crate::guest!(
    prints_and_idles,
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "2: hlt",
    "jmp 2b",
);

crate::guest!(
    resets_once_then_off,
    "mov edx, 0x3f8",
    "mov al, 'b'",
    "out dx, al",
    "mov al, 0x70",
    "out 0x70, al",
    "in al, 0x71",
    "test al, al",
    "jnz 1f",
    "mov al, 0x70",
    "out 0x70, al",
    "mov al, 1",
    "out 0x71, al",
    "mov al, 0xfe",
    "out 0x64, al",
    "1: mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "2: hlt",
    "jmp 2b",
);

fn jail_impossible() -> bool {
    if kvm_missing() {
        return true;
    }
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can start a monitor as another user");
    }
    !root
}

fn jailed(code: &[u8]) -> Options {
    Options {
        jail: true,
        user: Some(USER),
        vcpus: 2,
        disks: vec![(DiskBus::Virtio, disk())],
        ..Options::code(code)
    }
}

fn disk() -> fs::File {
    let file = tempfile::tempfile().expect("disk");
    file.set_len(1 << 20).expect("disk");
    file
}

fn status(path: &Path) -> HashMap<String, String> {
    let text = fs::read_to_string(path.join("status")).expect("status");
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn all_filtered(tasks: &str) -> bool {
    let mut tasks = fs::read_dir(tasks).expect("tasks");
    tasks.all(|task| {
        let status = status(&task.expect("task").path());
        status["Name"].starts_with("kvm-") || status["Seccomp"] == "2"
    })
}

#[test]
fn every_thread_is_filtered_and_without_rights() {
    if jail_impossible() {
        return;
    }
    let mut guest = Guest::start(jailed(prints_and_idles()));
    guest.prints("r");
    let tasks = format!("/proc/{}/task", guest.pid());
    // A thread locks itself in before it does anything else, but the guest may print before it has got to run at all.
    let begin = Instant::now();
    while !all_filtered(&tasks) && begin.elapsed() < LIMIT {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let mut names = Vec::new();
    for task in fs::read_dir(tasks).expect("tasks") {
        let path = task.expect("task").path();
        let status = status(&path);
        names.push(status["Name"].clone());
        if status["Name"].starts_with("kvm-") {
            continue; // the kernel's own
        }
        assert_eq!(status["Seccomp"], "2", "{status:?}");
        assert_eq!(status["NoNewPrivs"], "1");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(
                status[set], "0000000000000000",
                "{set} of {}",
                status["Name"]
            );
        }
        let user = USER.to_string();
        for id in ["Uid", "Gid"] {
            assert!(
                status[id].split_whitespace().all(|field| field == user),
                "{id}"
            );
        }
        assert_eq!(status["Groups"], "");
    }
    for name in ["vmm:test", "vcpu0", "vcpu1", "devices"] {
        assert!(names.contains(&name.to_owned()), "{name} among {names:?}");
    }
    guest.kill();
}

#[test]
fn it_is_not_protected_like_its_manager() {
    if jail_impossible() {
        return;
    }
    let score = "/proc/self/oom_score_adj";
    let before = fs::read_to_string(score).expect("our score");
    if let Err(error) = fs::write(score, "-500") {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        eprintln!("SKIPPED: this machine lets nobody protect a process from running out of memory");
        return;
    }
    let guest = Guest::start(jailed(prints_and_idles()));
    fs::write(score, before).expect("to be as before");
    let its = fs::read_to_string(format!("/proc/{}/oom_score_adj", guest.pid())).expect("score");
    assert_eq!(its.trim(), "0");
    guest.kill();
}

#[test]
fn it_sees_no_file_and_nothing_of_the_host() {
    if jail_impossible() {
        return;
    }
    let mut guest = Guest::start(jailed(prints_and_idles()));
    guest.prints("r");
    let process = format!("/proc/{}", guest.pid());
    let process = Path::new(&process);
    let entries = fs::read_dir(process.join("root")).expect("its root");
    assert_eq!(entries.count(), 0);
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let its = fs::read_link(process.join("ns").join(namespace)).expect("namespace");
        let ours = fs::read_link(format!("/proc/self/ns/{namespace}")).expect("namespace");
        assert_ne!(its, ours, "{namespace}");
    }
    let limits = fs::read_to_string(process.join("limits")).expect("limits");
    let cores = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    assert!(cores.expect("limit").contains(" 0 "), "{limits}");
    guest.kill();
}

#[test]
fn it_holds_only_descriptors_it_was_given() {
    if jail_impossible() {
        return;
    }
    // Not close-on-exec: a careless parent's.
    let stray = fs::File::open("/etc/passwd").expect("a file");
    nix::fcntl::fcntl(
        &stray,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
    )
    .expect("fcntl");
    let mut guest = Guest::start(jailed(prints_and_idles()));
    guest.prints("r");
    for entry in fs::read_dir(format!("/proc/{}/fd", guest.pid())).expect("descriptors") {
        let target = match fs::read_link(entry.expect("descriptor").path()) {
            Ok(target) => target.to_string_lossy().into_owned(),
            // Our own console, which it has noticed to be closed only now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("{error}"),
        };
        let known = ["anon_inode:", "socket:", "pipe:", "/dev/null", "/dev/kvm"];
        let nameless = target.contains("(deleted)");
        let log = target
            == fs::read_link("/proc/self/fd/2")
                .expect("log")
                .to_string_lossy();
        // Which of its own pages were touched, by which it saves its guest: opened before the walls were up.
        let own_pages = target.ends_with("/pagemap");
        assert!(
            nameless || log || own_pages || known.iter().any(|kind| target.starts_with(kind)),
            "{target}"
        );
    }
    guest.kill();
}

#[test]
fn the_jail_holds_without_another_user() {
    if jail_impossible() {
        return;
    }
    let options = Options {
        user: None,
        ..jailed(prints_and_idles())
    };
    let mut guest = Guest::start(options);
    guest.prints("r");
    let status = status(Path::new(&format!("/proc/{}", guest.pid())));
    assert_eq!(status["CapEff"], "0000000000000000");
    assert_eq!(status["CapBnd"], "0000000000000000");
    assert_eq!(status["Seccomp"], "2");
    guest.kill();
}

#[test]
fn everything_works_inside() {
    if jail_impossible() {
        return;
    }
    let mut guest = Guest::start(jailed(prints_and_idles()));
    let mut console = guest.console(u32::MAX);
    console.expect("r");
    console.type_in("x");
    assert_eq!(guest.ask(RequestBody::Pause), Answer::Done);
    assert_eq!(guest.ask(RequestBody::Reset), Answer::Done);
    assert_eq!(guest.ask(RequestBody::Resume), Answer::Done);
    console.expect("rr");
    assert_eq!(guest.ask(RequestBody::PowerButton), Answer::Done);
    guest.status();
    guest.kill();
    let (guest, mut console) = Guest::start_with_console(jailed(resets_once_then_off()));
    let record = guest.end();
    console.expect("bb");
    assert_eq!(record.reason, ExitReason::GuestPoweroff, "{record:?}");
}
