//! What a thread's system call filter does before it looks into the table: calls that are answered in another way than
//! by "allowed" or "caught", and the one call that is made so often that its way must be short.
//!
//! A thread has one filter, not one for each answer. Each of them would cost every call whose arguments are checked
//! half a microsecond, and every start of a guest a millisecond for each of its threads.

use seccompiler::{BpfProgram, sock_filter};

use super::ioctls::KVM_RUN;
use super::syscalls::Class;

/// `seccomp_data`: number of the call, processor architecture, low half of the first argument (Linux, `linux/seccomp.h`).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// `AUDIT_ARCH_X86_64` (Linux, `linux/audit.h`).
const X86_64: u32 = 0xc000_003e;

/// The instructions in front of the table of `class`.
pub fn prefix(class: Class, makes_threads: bool) -> BpfProgram {
    // Numbers mean other calls to a 32-bit program.
    let mut program = vec![
        load(ARCHITECTURE),
        skip_if(X86_64, 1),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    if class == Class::Vcpu {
        // Entering the guest.
        program.extend(on(
            libc::SYS_ioctl,
            &[
                load(argument(1)),
                skip_unless(KVM_RUN, 1),
                answer(libc::SECCOMP_RET_ALLOW),
                load(NUMBER),
            ],
        ));
    }
    // What a monitor needs to keep others from telling on it, not even the handler hears of.
    program.extend(on(
        libc::SYS_rt_sigaction,
        &[
            load(argument(0)),
            skip_if(libc::SIGABRT as u32, 1),
            answer(libc::SECCOMP_RET_KILL_PROCESS),
            load(NUMBER),
        ],
    ));
    if makes_threads {
        // What clone3 makes stands in memory, where no filter can look.
        // Told that there is none, the C library takes clone instead.
        program.extend(on(
            libc::SYS_clone3,
            &[answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)],
        ));
    }
    program
}

/// `instructions` for the call `number`, which is loaded. They answer, or load it again.
fn on(number: libc::c_long, instructions: &[sock_filter]) -> BpfProgram {
    let mut program = vec![skip_unless(number as u32, instructions.len() as u8)];
    program.extend_from_slice(instructions);
    program
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn answer(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

/// Leaves out `count` instructions unless what was loaded is `value`.
fn skip_unless(value: u32, count: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, count, value)
}

/// Leaves out `count` instructions if what was loaded is `value`.
fn skip_if(value: u32, count: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, count, 0, value)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}
