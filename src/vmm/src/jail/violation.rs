//! What becomes of a thread that tries what its list does not allow: the last words of the whole monitor.
//!
//! The kernel does not make the call, and signals the thread instead (`SECCOMP_RET_TRAP`). The handler
//! says which call it was, where the manager finds it, and ends the process. A monitor in somebody else's hands may try to keep
//! the handler from it: it cannot replace it, for that is a call that kills (see [`super::seccomp`]), and a signal that is blocked
//! kills as well. What it tried is not done in any case.
#![allow(unsafe_code)]

use std::fmt::{self, Write};
use std::io;

use libc::{c_int, c_void, siginfo_t, ucontext_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::names;
use crate::exit;

/// `si_code` of a signal from a filter (`SYS_SECCOMP`, linux/signal.h).
const FROM_FILTER: c_int = 1;
/// Where the number of the system call is in `siginfo_t`, in bytes: behind signal, error, code and the calling address (asm-generic/siginfo.h).
const NUMBER: usize = 24;
/// What a shell shows for a process ended by `SIGSYS`.
const EXIT_CODE: c_int = 128 + libc::SIGSYS;

/// Sets the handler, for all threads. To be called before the first of them is locked in.
///
/// # Errors
/// From `sigaction(2)`.
pub fn install_handler() -> io::Result<()> {
    let action = SigAction::new(
        SigHandler::SigAction(on_violation),
        SaFlags::SA_SIGINFO,
        SigSet::empty(),
    );
    // SAFETY: the handler allocates nothing, takes no lock, and does not return.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

extern "C" fn on_violation(_: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes both to a handler with `SA_SIGINFO`; the structure is longer than what is read of it.
    let (code, number, registers) = unsafe {
        (
            (*info).si_code,
            info.byte_add(NUMBER).cast::<c_int>().read(),
            (*context.cast::<ucontext_t>()).uc_mcontext.gregs,
        )
    };
    let mut call = Text::<32>::default();
    let mut line = Text::<192>::default();
    let [first, second, third] =
        [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX].map(|register| registers[register as usize]);
    // A text that is full takes no more; nobody misses the rest.
    let _ = match names::name(number) {
        _ if code != FROM_FILTER => write!(call, "kill"),
        Some(name) => write!(call, "{name}"),
        None => write!(call, "number {number}"),
    };
    let _ = writeln!(
        line,
        "jail: tried {}({first:#x}, {second:#x}, {third:#x}), which it forbids",
        call.as_str()
    );
    exit::write_violation(call.as_str());
    // SAFETY: the text is as long as it says; and the process ends.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length);
        libc::_exit(EXIT_CODE);
    }
}

/// A text that is never longer than its place.
struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }
}

impl<const N: usize> Text<N> {
    fn as_str(&self) -> &str {
        // Only whole strings were written.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let place = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
