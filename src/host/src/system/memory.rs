//! Memory.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What the kernel manages.
    pub total: u64,
    /// What could be had without swapping.
    pub available: u64,
    /// What nothing uses.
    pub free: u64,
    /// Page cache.
    pub cached: u64,
    /// Memory filesystems and shared memory.
    pub shared: u64,
    /// Swap space, all of it.
    pub swap_total: u64,
    /// Swap space, free.
    pub swap_free: u64,
    /// Size of a default huge page.
    pub huge_page: u64,
    /// How many huge pages are set aside.
    pub huge_pages_total: u64,
    /// How many of them are free.
    pub huge_pages_free: u64,
}

impl Memory {
    /// Reads `/proc/meminfo`.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/meminfo")?))
    }

    fn parse(text: &str) -> Self {
        let mut memory = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let mut words = value.split_whitespace();
            let number: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let value = match words.next() {
                Some("kB") => number.saturating_mul(1024),
                _ => number,
            };
            let field = match key {
                "MemTotal" => &mut memory.total,
                "MemAvailable" => &mut memory.available,
                "MemFree" => &mut memory.free,
                "Cached" => &mut memory.cached,
                "Shmem" => &mut memory.shared,
                "SwapTotal" => &mut memory.swap_total,
                "SwapFree" => &mut memory.swap_free,
                "Hugepagesize" => &mut memory.huge_page,
                "HugePages_Total" => &mut memory.huge_pages_total,
                "HugePages_Free" => &mut memory.huge_pages_free,
                _ => continue,
            };
            *field = value;
        }
        memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_and_counts() {
        let memory =
            Memory::parse("MemTotal:  1000 kB\nHugePages_Total:  4\nHugepagesize: 2048 kB\nOdd\n");
        assert_eq!(memory.total, 1_024_000);
        assert_eq!(memory.huge_pages_total, 4);
        assert_eq!(memory.huge_page, 2 << 20);
        assert!(Memory::read().unwrap().total > 0);
    }
}
