//! The jail: a process that holds descriptors and nothing else.
//!
//! In order: everything that was not given is closed; new namespaces; a fork, so
//! that the monitor is process 1 of its own and nobody's child; an empty,
//! read-only root; no user, group or capability; no new privileges; and, thread
//! by thread once the machine is built, a list of allowed system calls.

mod descriptors;
mod ioctls;
mod names;
mod namespaces;
mod prefix;
mod privileges;
mod root;
mod seccomp;
mod syscalls;
#[cfg(test)]
mod usage;
mod violation;

use std::io;

use lodge_vmm_proto::{Launch, LaunchError};
use nix::unistd::{ForkResult, fork, setsid};

use crate::machine::Failure;
use crate::saved::Pagemap;
pub use seccomp::Filters;

/// On which side of the wall the caller finds itself.
pub enum Side {
    /// The process that only gave birth; it ends now.
    Outside,
    /// The monitor, with what it cannot open any more.
    Inside(Pagemap),
}

/// Forks the monitor into its jail. `keep` are the descriptors it may have beside
/// the standard ones. The process must have one thread only.
///
/// # Errors
/// Says which wall could not be built. The caller may be on either side then.
pub fn enter(launch: &Launch, keep: &[i32]) -> Result<Side, Failure> {
    let step = |what: &'static str| Failure::doing(LaunchError::Jail, what);
    descriptors::silence_standard_streams().map_err(step("standard streams"))?;
    descriptors::close_all_but(keep).map_err(step("closing descriptors"))?;
    privileges::set_process_name(&launch.guest.name);
    privileges::limit_allocator();
    privileges::drop_memory_protection().map_err(step("out-of-memory score"))?;
    if launch.jail {
        namespaces::unshare_all().map_err(step("namespaces"))?;
    }
    if give_birth().map_err(step("fork"))? {
        return Ok(Side::Outside);
    }
    let pagemap = Pagemap::open();
    if launch.jail {
        root::enter_empty_root().map_err(step("empty root"))?;
    }
    if let Some((uid, gid)) = launch.uid_gid {
        privileges::become_user(uid, gid).map_err(step("changing user"))?;
    }
    if launch.jail {
        privileges::drop_all().map_err(step("dropping capabilities"))?;
    }
    privileges::limit_resources().map_err(step("resource limits"))?;
    Ok(Side::Inside(pagemap))
}

/// Tells the parent from the child.
#[allow(unsafe_code)]
fn give_birth() -> io::Result<bool> {
    // SAFETY: the process has a single thread, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(true),
        ForkResult::Child => {
            setsid()?;
            Ok(false)
        }
    }
}
