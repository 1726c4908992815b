//! The one table of system calls: who may make which.

use libc::*;

use super::ioctls;

/// A kind of thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Control socket, reset, pause, end.
    Main,
    /// A virtual processor, and the device models it drives.
    Vcpu,
    /// The loop of slow devices.
    EventLoop,
    /// A queue of a disk or network interface.
    Queue,
    /// Viewers of the screen.
    Viewers,
    /// Building devices while the guest runs. What their threads may do it must be allowed as well, since they begin with its
    /// list; and no ring is made here, see [`lodge_block::engine::Spares`].
    Workshop,
}

/// A system call, and what is checked of its arguments.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    /// With any arguments.
    Any(c_long),
    /// `ioctl` with one of these requests.
    Ioctl(&'static [u32]),
    /// A call whose third argument is memory protection: never executable.
    NotExecutable(c_long),
    /// `clone` of a thread, not of a process.
    Thread,
    /// `rt_sigaction` for `SIGABRT`, which is what ends a process that has panicked. Any other would take the jail's own signal
    /// away from it, or let the process outlive its faults: it kills.
    Abort,
    /// `seccomp` that adds a filter: the threads of new devices lock themselves in further.
    Filter,
}

use Call::{Any, Ioctl, NotExecutable};

/// What every thread of a Rust program may come to need: memory, locks, its own
/// end, a panic's last words.
const EVERY_THREAD: &[Call] = &[
    Any(SYS_read),
    Any(SYS_write),
    Any(SYS_writev),
    Any(SYS_close),
    // Copies of events, whenever a device starts or stops.
    Any(SYS_fcntl),
    Any(SYS_futex),
    Any(SYS_brk),
    NotExecutable(SYS_mmap),
    NotExecutable(SYS_mprotect),
    Any(SYS_munmap),
    Any(SYS_mremap),
    Any(SYS_madvise),
    Any(SYS_clock_gettime),
    Any(SYS_sched_yield),
    Any(SYS_getrandom),
    Any(SYS_restart_syscall),
    Any(SYS_rt_sigreturn),
    Any(SYS_rt_sigprocmask),
    Call::Abort,
    Any(SYS_sigaltstack),
    Any(SYS_getpid),
    Any(SYS_gettid),
    Any(SYS_tgkill),
    Any(SYS_exit),
    Any(SYS_exit_group),
    Any(SYS_pwrite64),
    Any(SYS_ftruncate),
    Ioctl(ioctls::KVM_INTERRUPTS),
];

const MAIN: &[Call] = &[
    Any(SYS_poll),
    Any(SYS_accept4),
    Any(SYS_recvmsg),
    Any(SYS_sendmsg),
    Any(SYS_getsockopt),
    // The kernel again, after a reset.
    Any(SYS_statx),
    Any(SYS_pread64),
    Ioctl(ioctls::KVM_RESET),
    Ioctl(ioctls::KVM_SAVE),
    Ioctl(ioctls::KVM_MEMORY),
    Any(SYS_fdatasync),
    Ioctl(ioctls::NETWORK),
];

const VCPU: &[Call] = &[
    Ioctl(&[ioctls::KVM_RUN]),
    Ioctl(ioctls::KVM_INSPECT),
    // Firmware's variables.
    Ioctl(ioctls::KVM_MEMORY),
    Any(SYS_fdatasync),
    Ioctl(ioctls::NETWORK),
];

const EVENT_LOOP: &[Call] = &[
    Any(SYS_epoll_wait),
    Any(SYS_epoll_ctl),
    Any(SYS_sendto),
    Any(SYS_recvfrom),
    // The clock's alarm.
    Any(SYS_timerfd_settime),
    // Control queues of network interfaces.
    Ioctl(ioctls::NETWORK),
];

const QUEUE: &[Call] = &[
    Any(SYS_poll),
    Any(SYS_io_uring_enter),
    Any(SYS_preadv),
    Any(SYS_pwritev),
    Any(SYS_fdatasync),
    // Before the ring is tried again.
    Any(SYS_clock_nanosleep),
];

const VIEWERS: &[Call] = &[Any(SYS_poll), Any(SYS_sendto), Any(SYS_recvfrom)];

const WORKSHOP: &[Call] = &[
    // The threads of a new device.
    Call::Thread,
    Any(SYS_set_robust_list),
    Any(SYS_rseq),
    Any(SYS_prctl),
    Any(SYS_sched_getaffinity),
    Any(SYS_eventfd2),
    // What a new disk is like.
    Any(SYS_statx),
    Any(SYS_fallocate),
    // Whether a new disk is in memory.
    Any(SYS_fstatfs),
    Call::Filter,
    Ioctl(ioctls::NETWORK),
    Ioctl(ioctls::NEW_NETWORK),
];

/// What threads of `class` may do.
pub fn allowed(class: Class) -> impl Iterator<Item = Call> {
    let (own, more): (&[Call], &[Call]) = match class {
        Class::Main => (MAIN, &[]),
        Class::Vcpu => (VCPU, &[]),
        Class::EventLoop => (EVENT_LOOP, &[]),
        Class::Queue => (QUEUE, &[]),
        Class::Viewers => (VIEWERS, &[]),
        Class::Workshop => (QUEUE, WORKSHOP),
    };
    EVERY_THREAD.iter().chain(own).chain(more).copied()
}

/// Each list, its name, and the threads it is for.
#[cfg(test)]
pub fn lists() -> [(&'static str, &'static [Call], &'static [Class]); 7] {
    use Class::{EventLoop, Main, Queue, Vcpu, Viewers, Workshop};
    const ALL: &[Class] = &[Main, Vcpu, EventLoop, Queue, Viewers, Workshop];
    [
        ("every thread", EVERY_THREAD, ALL),
        ("main", MAIN, &[Main]),
        ("vcpu", VCPU, &[Vcpu]),
        ("event loop", EVENT_LOOP, &[EventLoop]),
        ("queue", QUEUE, &[Queue]),
        ("viewers", VIEWERS, &[Viewers]),
        ("workshop", WORKSHOP, &[Workshop]),
    ]
}
