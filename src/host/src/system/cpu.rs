//! The processors.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// The processors of this machine, taken to be of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// `GenuineIntel`, `AuthenticAMD`, …
    pub vendor: String,
    /// The maker's name for it.
    pub model: String,
    /// Sockets with a processor in them.
    pub sockets: u32,
    /// Cores in all sockets.
    pub cores: u32,
    /// Threads in all cores: what the kernel schedules on.
    pub threads: u32,
    /// The kernel's names of its features.
    pub flags: Vec<String>,
}

impl Cpu {
    /// Reads `/proc/cpuinfo`.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/cpuinfo")?))
    }

    fn parse(text: &str) -> Self {
        let mut cpu = Self::default();
        let (mut sockets, mut cores) = (BTreeSet::new(), BTreeSet::new());
        let mut socket = 0;
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match key.trim() {
                "processor" => {
                    cpu.threads += 1;
                    socket = 0;
                }
                "vendor_id" => value.clone_into(&mut cpu.vendor),
                "model name" => value.clone_into(&mut cpu.model),
                "physical id" => {
                    socket = value.parse().unwrap_or(0u32);
                    sockets.insert(socket);
                }
                "core id" => {
                    cores.insert((socket, value.parse().unwrap_or(0u32)));
                }
                "flags" if cpu.flags.is_empty() => {
                    cpu.flags = value.split_whitespace().map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        // Virtual machines often show neither sockets nor cores.
        let count = |set: usize| u32::try_from(set).unwrap_or(u32::MAX);
        cpu.sockets = count(sockets.len()).max(1);
        cpu.cores = if cores.is_empty() {
            cpu.threads
        } else {
            count(cores.len())
        };
        cpu
    }
}

/// Processor time since boot, all processors together, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTimes {
    /// In user space, guests aside.
    pub user_ms: u64,
    /// In the kernel, interrupts included.
    pub system_ms: u64,
    /// In guests.
    pub guest_ms: u64,
    /// Idle, waiting for disks included.
    pub idle_ms: u64,
    /// Taken by a hypervisor below.
    pub steal_ms: u64,
}

impl CpuTimes {
    /// Reads `/proc/stat`.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/stat")?))
    }

    /// proc(5): user nice system idle iowait irq softirq steal guest guest_nice, in ticks of 10 ms.
    fn parse(text: &str) -> Self {
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("cpu ")) else {
            return Self::default();
        };
        let mut ticks = [0u64; 10];
        for (tick, word) in ticks.iter_mut().zip(line.split_whitespace()) {
            *tick = word.parse().unwrap_or(0);
        }
        let ms = |ticks: u64| ticks.saturating_mul(10);
        let guest = ticks[8].saturating_add(ticks[9]);
        Self {
            // Guest time is counted as user time too.
            user_ms: ms(ticks[0].saturating_add(ticks[1]).saturating_sub(guest)),
            system_ms: ms(ticks[2].saturating_add(ticks[5]).saturating_add(ticks[6])),
            guest_ms: ms(guest),
            idle_ms: ms(ticks[3].saturating_add(ticks[4])),
            steal_ms: ms(ticks[7]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_with_two_threads() {
        let mut text = String::new();
        for (thread, core) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
            text += &format!(
                "processor\t: {thread}\nvendor_id\t: AuthenticAMD\nmodel name\t: EPYC\nphysical id\t: 0\ncore id\t\t: {core}\nflags\t\t: fpu svm\n\n"
            );
        }
        let cpu = Cpu::parse(&text);
        assert_eq!((cpu.sockets, cpu.cores, cpu.threads), (1, 2, 4));
        assert_eq!(cpu.flags, ["fpu", "svm"]);
        assert_eq!(Cpu::parse("processor : 0\n").cores, 1);
    }

    #[test]
    fn guest_time_is_not_counted_twice() {
        let times = CpuTimes::parse("cpu  100 0 10 500 5 1 1 2 60 0\ncpu0 1\n");
        assert_eq!(times.user_ms, 400);
        assert_eq!(times.guest_ms, 600);
        assert_eq!(times.system_ms, 120);
        assert_eq!(times.idle_ms, 5050);
        assert_eq!(CpuTimes::parse(""), CpuTimes::default());
    }
}
