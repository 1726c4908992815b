//! The kernel's own requests for modules: it runs `/proc/sys/kernel/modprobe` with the name it wants.
//!
//! A filesystem, a checksum or an nftables expression is asked for like this in the middle of a system call.

use std::ffi::OsString;
use std::process::ExitCode;

use super::Loader;

/// Does what `modprobe -q -- NAME…` does.
pub fn modprobe(arguments: Vec<OsString>) -> ExitCode {
    let mut options = true;
    let mut names = Vec::new();
    for argument in arguments {
        match argument.to_string_lossy().as_ref() {
            "--" if options => options = false,
            option if options && option.starts_with('-') => {}
            name => names.push(name.to_owned()),
        }
    }
    let mut loader = Loader::new();
    // As aliases: the kernel asks for much that need not exist, and quietly nothing is the usual answer.
    loader.load(&[], &names);
    if loader.report().failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
