//! A monitor that has turned hostile: on each of its threads, in its real jail, it tries what would let it out.
//!
//! This program is the monitor, and before it enters the jail it prepares to be told: a signal with the number of an
//! [attempt](ATTEMPTS) has the thread that gets it make that system call.

use std::fs;
use std::time::Duration;

use libc::{c_int, c_long, c_void, siginfo_t};
use lodge_api::event::EventBody;
use lodge_api::vm::{OnCrash, VmAction, VmState};
use lodge_manager::IfMatch;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use serde_json::json;

use crate::common::{host_with, kill, reads};
use crate::programs;
use crate::support::{admin, event, spec, state_event, within};

/// The signal that makes a thread try something.
const TRY: Signal = Signal::SIGUSR2;
/// Where `si_pid`, `si_uid` and `si_value` are in `siginfo_t`, in bytes (asm-generic/siginfo.h).
const SENDER: usize = 16;
const VALUE: usize = 24;

/// What is tried: its name, and the system call with four arguments.
const ATTEMPTS: &[(&str, [c_long; 5])] = &[
    (
        "openat",
        [libc::SYS_openat, libc::AT_FDCWD as c_long, 0, 0, 0],
    ),
    (
        "socket",
        [libc::SYS_socket, libc::AF_VSOCK as c_long, 1, 0, 0],
    ),
    ("connect", [libc::SYS_connect, 0, 0, 0, 0]),
    (
        "ptrace",
        [libc::SYS_ptrace, libc::PTRACE_ATTACH as c_long, 1, 0, 0],
    ),
    ("clone", [libc::SYS_clone, libc::SIGCHLD as c_long, 0, 0, 0]),
    ("execve", [libc::SYS_execve, 0, 0, 0, 0]),
    ("mount", [libc::SYS_mount, 0, 0, 0, 0]),
    ("kill", [libc::SYS_kill, -1, 9, 0, 0]),
    ("mmap", [libc::SYS_mmap, 0, 4096, 5, 0x22]),
    ("mprotect", [libc::SYS_mprotect, 0, 4096, 4, 0]),
    ("io_uring_setup", [libc::SYS_io_uring_setup, 8, 0, 0, 0]),
    ("process_vm_readv", [libc::SYS_process_vm_readv, 1, 0, 0, 0]),
    (
        "unshare",
        [libc::SYS_unshare, libc::CLONE_NEWUSER as c_long, 0, 0, 0],
    ),
    ("ioctl", [libc::SYS_ioctl, 0, 0x5412, 0, 0]),
    ("bpf", [libc::SYS_bpf, 0, 0, 0, 0]),
    ("setuid", [libc::SYS_setuid, 0, 0, 0, 0]),
];

/// One thread of each class, by the beginning of its name.
const THREADS: &[&str] = &["vmm:", "vcpu0", "devices", "balloon"];

/// What the program does before it becomes a monitor.
pub fn prepare() {
    extern "C" fn attempt(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
        // SAFETY: the kernel passes a whole structure to a handler with `SA_SIGINFO`. That what follows does harm is
        // what a jail is for.
        unsafe {
            let number = info.byte_add(VALUE).cast::<c_int>().read();
            if let Some((_, [call, a, b, c, d])) = ATTEMPTS.get(number as usize) {
                libc::syscall(*call, *a, *b, *c, *d, 0, 0);
            }
        }
    }
    let action = SigAction::new(
        SigHandler::SigAction(attempt),
        SaFlags::SA_SIGINFO,
        SigSet::empty(),
    );
    // SAFETY: the handler makes one system call.
    unsafe { sigaction(TRY, &action) }.unwrap();
}

pub async fn a_monitor_that_turns_hostile_gets_nowhere_and_is_told_on() {
    if not_root() {
        return;
    }
    let host = host_with("web", programs::idle()).await;
    // Every attempt from one class of threads, and every class with several; all pairs are tried without a guest by the jail's
    // own tests.
    for (number, (call, _)) in ATTEMPTS.iter().enumerate() {
        let thread = THREADS[(number + number / THREADS.len()) % THREADS.len()];
        host.done("web", VmAction::Start).await;
        reads(&host, "web", "r").await;
        let mut events = host.listen();
        let pid = host.vm("web").status.pid.unwrap();
        order(pid, thread, number).await;
        let wanted = |body: &EventBody| {
            matches!(body, EventBody::VmJailViolation { vm, system_call }
                if vm.as_str() == "web" && system_call == call)
        };
        let reason = state_event(&mut events, "web", VmState::Crashed).await;
        let expected = format!("the guest's monitor tried {call}, which its jail forbids");
        assert_eq!(reason.as_deref(), Some(expected.as_str()), "{thread}");
        event(&mut events, wanted).await;
        assert_eq!(host.vm("web").status.reason, Some(expected));
    }
    host.manager.close().await;
}

pub async fn a_guest_whose_monitor_turned_hostile_is_not_started_again() {
    if not_root() {
        return;
    }
    let host = host_with("web", programs::idle()).await;
    host.manager
        .vm_create(&admin(), spec("other"))
        .await
        .unwrap();
    for vm in ["web", "other"] {
        let patch = json!({"on_crash": OnCrash::Restart});
        host.manager
            .vm_merge(&admin(), vm, patch, IfMatch::Any)
            .await
            .unwrap();
        host.done(vm, VmAction::Start).await;
    }
    let mut events = host.listen();
    order(host.vm("web").status.pid.unwrap(), "vcpu0", 0).await;
    state_event(&mut events, "web", VmState::Crashed).await;
    // One that merely crashes is started again; it crashes later, so the other would be first.
    kill(host.vm("other").status.pid.unwrap());
    state_event(&mut events, "other", VmState::Running).await;
    assert_eq!(host.state("web"), VmState::Crashed);
    // Somebody who has looked into it may.
    host.done("web", VmAction::Start).await;
    for vm in ["web", "other"] {
        host.done(vm, VmAction::Kill).await;
    }
    host.manager.close().await;
}

fn not_root() -> bool {
    let missing = !nix::unistd::geteuid().is_root();
    if missing {
        println!("SKIPPED: only root may signal a monitor of another user");
    }
    missing
}

/// Has a thread of the monitor try something.
async fn order(pid: u32, thread: &str, attempt: usize) {
    let tid = within(locked_in(pid, thread)).await;
    // SAFETY: all zeroes are a structure, whose fields for a queued signal are set where the kernel has them.
    let sent = unsafe {
        let mut info: siginfo_t = std::mem::zeroed();
        info.si_signo = TRY as c_int;
        info.si_code = libc::SI_QUEUE;
        let place = &raw mut info;
        place
            .byte_add(SENDER)
            .cast::<u32>()
            .write(std::process::id());
        place
            .byte_add(VALUE)
            .cast::<c_int>()
            .write(attempt as c_int);
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            c_long::from(pid),
            tid,
            TRY as c_int,
            place,
        )
    };
    assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
}

/// The thread, once it has locked itself in: it does so before anything else, but the guest may run before it has got to run at all.
async fn locked_in(pid: u32, thread: &str) -> c_long {
    loop {
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            if status.starts_with(&format!("Name:\t{thread}")) && status.contains("Seccomp:\t2") {
                return task.file_name().to_string_lossy().parse().unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
