//! Kernel modules that nothing in the kernel asks for by itself.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

/// Where the kernel keeps the program that it loads modules by: on the appliance it is this one.
const LOADER: &str = "/proc/sys/kernel/modprobe";

/// Loads modules with what they need. Those that are there already stay.
pub(super) fn load(names: &[&str]) -> io::Result<()> {
    let loader = fs::read_to_string(LOADER)?;
    for name in names {
        let status = Command::new(loader.trim())
            .args(["-q", "--", name])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("the kernel module {name} cannot be loaded"),
            ));
        }
    }
    Ok(())
}
