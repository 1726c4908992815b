//! A ring that serves this engine and nothing else.
//!
//! The kernel makes the calls of a ring without asking the system call filter of the thread that fills it: a monitor that a guest has
//! taken over would open, connect and send by them. A ring can be told once what it may be asked for, before it is turned on.

use std::io;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode};

/// Everything the engine and its watches ask for.
const OPERATIONS: &[u8] = &[
    opcode::Read::CODE,
    opcode::Readv::CODE,
    opcode::Write::CODE,
    opcode::Writev::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
];

/// A ring with room for `entries` operations of these kinds.
///
/// # Errors
/// When the kernel refuses the ring, or does not know restrictions (before Linux 5.10).
pub fn new(entries: u32) -> io::Result<IoUring> {
    // Completions are looked for on the way out of the kernel only; without this each would
    // interrupt the thread wherever it is.
    let ring = IoUring::builder()
        .setup_coop_taskrun()
        .setup_r_disabled()
        .build(entries)?;
    let mut operations: Vec<Restriction> = OPERATIONS
        .iter()
        .map(|&code| Restriction::sqe_op(code))
        .collect();
    ring.submitter().register_restrictions(&mut operations)?;
    ring.submitter().register_enable_rings()?;
    Ok(ring)
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use io_uring::{squeue, types};

    /// What the kernel answers.
    fn ask(operation: &squeue::Entry) -> i32 {
        let mut ring = new(4).unwrap();
        // SAFETY: the operations refer to nothing but static strings.
        unsafe { ring.submission().push(operation) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        ring.completion().next().unwrap().result()
    }

    #[test]
    fn it_opens_and_connects_nothing() {
        let root = types::Fd(libc::AT_FDCWD);
        let file = types::Fd(0);
        for operation in [
            opcode::OpenAt::new(root, c"/".as_ptr()).build(),
            opcode::Socket::new(libc::AF_VSOCK, libc::SOCK_STREAM, 0).build(),
            opcode::Connect::new(file, std::ptr::null(), 0).build(),
            opcode::Send::new(file, std::ptr::null(), 0).build(),
            opcode::UnlinkAt::new(root, c"/nothing".as_ptr()).build(),
            opcode::Nop::new().build(),
        ] {
            assert_eq!(ask(&operation), -libc::EACCES, "{operation:?}");
        }
    }

    #[test]
    fn nobody_takes_the_restrictions_back() {
        let ring = new(4).unwrap();
        let mut more = [Restriction::sqe_op(opcode::OpenAt::CODE)];
        assert!(ring.submitter().register_restrictions(&mut more).is_err());
        assert!(ring.submitter().register_files(&[0]).is_err());
    }
}
