//! The machine: processor, memory, load, maker. Disks are in [`crate::disk`].

mod cpu;
mod dmi;
mod memory;
mod pressure;

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use cpu::{Cpu, CpuTimes};
pub use dmi::Dmi;
pub use memory::Memory;
pub use pressure::{Pressure, PressureLine, Pressures};

/// What started the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// A PC BIOS, or UEFI in its compatibility mode.
    Bios,
    /// UEFI.
    Uefi,
}

impl Firmware {
    /// What started this kernel.
    pub fn detect() -> Self {
        if Path::new("/sys/firmware/efi").exists() {
            Self::Uefi
        } else {
            Self::Bios
        }
    }
}

/// How busy the machine has been over 1, 5 and 15 minutes: the mean number of runnable tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Over one minute.
    pub one: f64,
    /// Over five minutes.
    pub five: f64,
    /// Over fifteen minutes.
    pub fifteen: f64,
}

impl Load {
    /// The load now.
    pub fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/loadavg")?;
        let mut numbers = text
            .split_whitespace()
            .map(|word| word.parse().unwrap_or(0.0));
        let mut next = || numbers.next().unwrap_or(0.0);
        Ok(Self {
            one: next(),
            five: next(),
            fifteen: next(),
        })
    }
}

/// Time since the kernel started.
pub fn uptime() -> io::Result<std::time::Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds: f64 = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0);
    Ok(std::time::Duration::from_secs_f64(seconds.max(0.0)))
}

/// The running kernel's release, e.g. `6.12.95+deb12-amd64`.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The host's name as the kernel has it.
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
