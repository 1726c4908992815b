//! Holding vCPU threads and letting them run.
//!
//! KVM is left only by an exit of the guest, or when its thread gets a signal.
//! A signal alone is not enough: one that arrives just before `KVM_RUN` would be
//! spent by then. So whoever wants the threads out first sets `immediate_exit`
//! in each vCPU's shared page, which makes the next `KVM_RUN` return at once,
//! after it has finished the last port or memory access. Both that flag and
//! the command it announces change only under the gate's lock.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// What vCPU threads are told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Run,
    Park,
    Exit,
}

/// One gate for all vCPUs of a machine; closed at first.
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    command: Command,
    /// Threads that have entered and not left for good.
    members: Vec<Member>,
    /// Members waiting at the gate.
    parked: usize,
}

struct Member {
    immediate_exit: Arc<ImmediateExit>,
    thread: libc::pthread_t,
    clock: Option<libc::clockid_t>,
}

/// vCPU threads did not come to the gate in time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{missing} vCPUs did not stop within {waited:?}")]
pub struct Stuck {
    missing: usize,
    waited: Duration,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                command: Command::Park,
                members: Vec::new(),
                parked: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Makes the calling thread one of those the gate holds, until the ticket is dropped.
    pub fn enter(self: &Arc<Self>, immediate_exit: Arc<ImmediateExit>) -> Ticket {
        // SAFETY: plain library call about the calling thread.
        let thread = unsafe { libc::pthread_self() };
        self.lock().members.push(Member {
            immediate_exit: Arc::clone(&immediate_exit),
            thread,
            clock: cpu_clock(thread),
        });
        self.changed.notify_all();
        Ticket {
            gate: Arc::clone(self),
            immediate_exit,
            thread,
        }
    }

    /// Lets vCPUs run.
    pub fn open(&self) {
        let mut state = self.lock();
        if state.command == Command::Park {
            state.command = Command::Run;
            self.changed.notify_all();
        }
    }

    /// Calls vCPUs to the gate without waiting. Callable from a vCPU thread.
    pub fn close(&self) {
        let mut state = self.lock();
        if state.command == Command::Run {
            state.command = Command::Park;
            state.kick();
        }
    }

    /// Waits until `count` vCPU threads are there, none of them running.
    ///
    /// # Errors
    /// When they are not within `limit`.
    pub fn wait_parked(&self, count: usize, limit: Duration) -> Result<(), Stuck> {
        self.wait(limit, |state| count.saturating_sub(state.parked))
    }

    /// Ends all vCPU threads and waits for it.
    ///
    /// # Errors
    /// When they have not ended within `limit`.
    pub fn dismiss(&self, limit: Duration) -> Result<(), Stuck> {
        {
            let mut state = self.lock();
            state.command = Command::Exit;
            state.kick();
            self.changed.notify_all();
        }
        self.wait(limit, |state| state.members.len())
    }

    /// CPU time all vCPU threads have used.
    pub fn cpu_time(&self) -> Duration {
        self.lock()
            .members
            .iter()
            .filter_map(|member| read_clock(member.clock?))
            .sum()
    }

    fn wait(&self, limit: Duration, missing: impl Fn(&State) -> usize) -> Result<(), Stuck> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            let missing = missing(&state);
            if missing == 0 {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Stuck {
                    missing,
                    waited: limit,
                });
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn kick(&self) {
        for member in &self.members {
            member.immediate_exit.set(true);
            // SAFETY: the thread is alive: it removes its entry, under the
            // lock held here, before it ends.
            unsafe { libc::pthread_kill(member.thread, SIGRTMIN()) };
        }
    }
}

/// A vCPU thread's membership.
pub struct Ticket {
    gate: Arc<Gate>,
    immediate_exit: Arc<ImmediateExit>,
    thread: libc::pthread_t,
}

impl Ticket {
    /// Waits until the vCPU may run; `false` when its thread shall end.
    pub fn pass(&self) -> bool {
        let mut state = self.gate.lock();
        if state.command == Command::Park {
            state.parked += 1;
            self.gate.changed.notify_all();
            while state.command == Command::Park {
                state = self.gate.changed.wait(state).unwrap();
            }
            state.parked -= 1;
        }
        self.immediate_exit.set(false);
        state.command == Command::Run
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.members.retain(|member| member.thread != self.thread);
        self.gate.changed.notify_all();
    }
}

/// The `immediate_exit` byte in the page a vCPU shares with KVM.
pub struct ImmediateExit {
    byte: *const AtomicU8,
    /// Keeps the page mapped.
    _vcpu: Arc<Mutex<super::Vcpu>>,
}

// SAFETY: the byte is accessed atomically, and the page lives as long as the vCPU.
unsafe impl Send for ImmediateExit {}
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    /// Finds the byte.
    pub fn of(vcpu: &Arc<Mutex<super::Vcpu>>) -> Arc<Self> {
        let byte = address_of_immediate_exit(vcpu.lock().unwrap().fd_mut());
        Arc::new(Self {
            byte: byte.cast(),
            _vcpu: Arc::clone(vcpu),
        })
    }

    fn set(&self, on: bool) {
        // SAFETY: the byte lies in a mapping kept by `_vcpu`.
        unsafe { &*self.byte }.store(u8::from(on), Ordering::SeqCst);
    }
}

fn address_of_immediate_exit(fd: &mut VcpuFd) -> *mut u8 {
    &raw mut fd.get_kvm_run().immediate_exit
}

/// Makes the kick signal interrupt system calls and do nothing else. Once per process.
///
/// # Errors
/// From `sigaction(2)`.
pub fn install_kick_signal() -> std::io::Result<()> {
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), ignore).map_err(Into::into)
}

fn cpu_clock(thread: libc::pthread_t) -> Option<libc::clockid_t> {
    let mut clock = 0;
    // SAFETY: the thread is the calling one; `clock` is a valid place to write to.
    (unsafe { libc::pthread_getcpuclockid(thread, &raw mut clock) } == 0).then_some(clock)
}

fn read_clock(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place to write to.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    Some(Duration::new(seconds, nanoseconds))
}
