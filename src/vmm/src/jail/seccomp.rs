//! Locking threads in: anything that is not in the table ends the process, which says what it was ([`violation`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use lodge_vmm_proto::LaunchError;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::prefix::prefix;
use super::syscalls::{Call, Class, allowed};
use super::violation;
use crate::machine::{Failure, Prologue, Prologues};

/// Compiled filters of all kinds of threads.
pub struct Filters {
    main: Filter,
    vcpu: Filter,
    event_loop: Filter,
    queue: Filter,
    viewers: Filter,
    workshop: Filter,
}

/// A compiled filter; nothing when threads are not to be locked in.
type Filter = Option<Arc<BpfProgram>>;

impl Filters {
    /// Compiles the table, or, when not `enabled`, nothing.
    ///
    /// # Errors
    /// When the table is wrong.
    pub fn compile(enabled: bool) -> Result<Self, Failure> {
        if enabled {
            let failure = Failure::doing(LaunchError::Jail, "signal of the system call filter");
            violation::install_handler().map_err(failure)?;
        }
        let filter = |class| -> Result<Filter, Failure> {
            if !enabled {
                return Ok(None);
            }
            let program = compile(class);
            program
                .map(|program| Some(Arc::new(program)))
                .map_err(Failure::doing(LaunchError::Jail, "system call filter"))
        };
        Ok(Self {
            main: filter(Class::Main)?,
            vcpu: filter(Class::Vcpu)?,
            event_loop: filter(Class::EventLoop)?,
            queue: filter(Class::Queue)?,
            viewers: filter(Class::Viewers)?,
            workshop: filter(Class::Workshop)?,
        })
    }

    /// For the threads of the machine.
    pub fn prologues(&self) -> Prologues {
        Prologues {
            vcpu: prologue(&self.vcpu),
            event_loop: prologue(&self.event_loop),
            queue: prologue(&self.queue),
            viewers: prologue(&self.viewers),
            workshop: prologue(&self.workshop),
        }
    }

    /// Locks the calling thread in, which is to be the main thread.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lock_main_thread(&self) -> Result<(), Failure> {
        install(&self.main).map_err(Failure::doing(LaunchError::Jail, "system call filter"))
    }
}

fn prologue(filter: &Filter) -> Prologue {
    let filter = filter.clone();
    Arc::new(move || {
        if let Err(error) = install(&filter) {
            // A thread outside the jail is worse than no guest.
            tracing::error!("system call filter: {error}");
            std::process::abort();
        }
    })
}

fn install(filter: &Filter) -> Result<(), seccompiler::Error> {
    match filter {
        Some(program) => apply_filter(program),
        None => Ok(()),
    }
}

fn compile(class: Class) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in allowed(class) {
        for (number, rule) in rules_of(call)? {
            let present = rules.entry(number).or_default();
            present.extend(rule);
        }
    }
    let table = SeccompFilter::new(
        rules,
        SeccompAction::Trap,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    let makes_threads = allowed(class).any(|call| matches!(call, Call::Thread));
    let mut program = prefix(class, makes_threads);
    program.extend(BpfProgram::try_from(table)?);
    Ok(program)
}

/// System call numbers with conditions; none means any arguments.
fn rules_of(call: Call) -> Result<Vec<(i64, Vec<SeccompRule>)>, seccompiler::BackendError> {
    Ok(match call {
        Call::Any(number) => vec![(number, Vec::new())],
        Call::Ioctl(requests) => {
            let rules = requests
                .iter()
                .map(|&request| argument(1, SeccompCmpOp::Eq, request.into()))
                .collect::<Result<_, _>>()?;
            vec![(libc::SYS_ioctl, rules)]
        }
        Call::NotExecutable(number) => {
            let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
            vec![(number, vec![argument(2, executable, 0)?])]
        }
        Call::Abort => {
            let abort = argument(0, SeccompCmpOp::Eq, libc::SIGABRT as u64)?;
            vec![(libc::SYS_rt_sigaction, vec![abort])]
        }
        Call::Filter => {
            let adds = SeccompRule::new(vec![
                condition(0, SeccompCmpOp::Eq, libc::SECCOMP_SET_MODE_FILTER.into())?,
                condition(1, SeccompCmpOp::Eq, 0)?,
            ])?;
            vec![(libc::SYS_seccomp, vec![adds])]
        }
        Call::Thread => {
            let flags = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
            let thread = argument(0, SeccompCmpOp::MaskedEq(flags), flags)?;
            vec![(libc::SYS_clone, vec![thread])]
        }
    })
}

/// A rule about one argument.
fn argument(
    index: u8,
    operation: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![condition(index, operation, value)?])
}

fn condition(
    index: u8,
    operation: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operation, value)
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    const CLASSES: [Class; 6] = [
        Class::Main,
        Class::Vcpu,
        Class::EventLoop,
        Class::Queue,
        Class::Viewers,
        Class::Workshop,
    ];

    /// Makes a system call behind the filter of `class`, in a process of its own.
    fn attempt(class: Class, call: [i64; 4]) -> WaitStatus {
        let filter = Some(Arc::new(compile(class).unwrap()));
        // SAFETY: the child does nothing but make system calls.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let locked = install(&filter).is_ok();
                let [number, a, b, c] = call;
                // SAFETY: either the process ends here, or the call is harmless.
                unsafe {
                    libc::syscall(number, a, b, c, 0, 0, 0);
                    libc::_exit(i32::from(!locked))
                }
            }
            ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        }
    }

    #[test]
    fn what_is_not_in_the_table_ends_the_process() {
        let exec = i64::from(libc::PROT_EXEC | libc::PROT_READ);
        let fork = i64::from(libc::SIGCHLD);
        for class in CLASSES {
            for call in [
                [libc::SYS_openat, i64::from(libc::AT_FDCWD), 0, 0],
                [libc::SYS_socket, 1, 1, 0],
                [libc::SYS_connect, 0, 0, 0],
                [libc::SYS_execve, 0, 0, 0],
                [libc::SYS_ptrace, 0, 0, 0],
                [libc::SYS_clone, fork, 0, 0],
                [libc::SYS_fork, 0, 0, 0],
                [libc::SYS_mmap, 0, 4096, exec],
                [libc::SYS_mprotect, 0, 4096, exec],
                [libc::SYS_ioctl, 0, 0x5401, 0],
                [libc::SYS_setuid, 0, 0, 0],
                [libc::SYS_unshare, 0, 0, 0],
                [libc::SYS_kill, 1, 0, 0],
                [libc::SYS_io_uring_setup, 1, 0, 0],
                // Its own signal.
                [libc::SYS_rt_sigaction, i64::from(libc::SIGSYS), 0, 0],
                [libc::SYS_rt_sigaction, i64::from(libc::SIGSEGV), 0, 0],
            ] {
                let status = attempt(class, call);
                let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _));
                assert!(killed, "{class:?} {call:?}: {status:?}");
            }
        }
    }

    #[test]
    fn what_is_in_the_table_passes() {
        for class in CLASSES {
            for call in [
                [libc::SYS_gettid, 0, 0, 0],
                [libc::SYS_mmap, 0, 4096, i64::from(libc::PROT_READ)],
                [libc::SYS_rt_sigaction, i64::from(libc::SIGABRT), 0, 0],
                [
                    libc::SYS_ioctl,
                    -1,
                    i64::from(super::super::ioctls::KVM_INTERRUPTS[0]),
                    0,
                ],
            ] {
                let status = attempt(class, call);
                assert!(
                    matches!(status, WaitStatus::Exited(_, 0)),
                    "{class:?} {call:?}: {status:?}"
                );
            }
        }
        // Threads find no clone3, and make do with clone.
        let status = attempt(Class::Workshop, [libc::SYS_clone3, 0, 0, 0]);
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }

    #[test]
    fn only_a_vcpu_enters_the_guest() {
        for class in CLASSES {
            let run = i64::from(super::super::ioctls::KVM_RUN);
            let status = attempt(class, [libc::SYS_ioctl, -1, run, 0]);
            let passed = matches!(status, WaitStatus::Exited(_, 0));
            assert_eq!(passed, class == Class::Vcpu, "{class:?}: {status:?}");
        }
    }

    #[test]
    fn threads_of_new_devices_lock_themselves_in() {
        let no_ring = [libc::SYS_io_uring_setup, 1, 0, 0];
        let killed = |status| matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _));
        // A filter that adds to it; one that would be told of calls, and of a process's own are refused.
        let adds = [
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER.into(),
            0,
            0,
        ];
        assert!(!killed(attempt(Class::Workshop, adds)));
        let listens = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as i64;
        for call in [
            no_ring,
            [
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER.into(),
                listens,
                0,
            ],
            [
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_STRICT.into(),
                0,
                0,
            ],
        ] {
            assert!(killed(attempt(Class::Workshop, call)), "{call:?}");
        }
        // Behind both lists only what both allow passes.
        let (workshop, queue) = (
            compile(Class::Workshop).unwrap(),
            compile(Class::Queue).unwrap(),
        );
        let [workshop, queue] = [workshop, queue].map(|program| Some(Arc::new(program)));
        // SAFETY: the child does nothing but make system calls.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let locked = install(&workshop).is_ok() && install(&queue).is_ok();
                // SAFETY: either the process ends here, or the calls are harmless.
                unsafe {
                    libc::syscall(libc::SYS_gettid);
                    if locked {
                        libc::syscall(libc::SYS_eventfd2, 0, 0);
                    }
                    libc::_exit(0)
                }
            }
            ForkResult::Parent { child } => {
                assert!(killed(waitpid(child, None).unwrap()), "eventfd2 in a queue");
            }
        }
    }

    #[test]
    fn every_filter_compiles() {
        for class in CLASSES {
            assert!(!compile(class).unwrap().is_empty(), "{class:?}");
        }
    }

    #[test]
    fn no_call_is_listed_twice() {
        for class in CLASSES {
            let mut seen = std::collections::BTreeSet::new();
            for call in allowed(class) {
                if let Call::Any(number) | Call::NotExecutable(number) = call {
                    assert!(seen.insert(number), "{class:?}: {number}");
                }
            }
        }
    }
}
