//! What monitors have in memory beside their guests.

use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Looks at the monitors of `count` guests of `size` bytes, ends them, and tells the mean of what each has beside its guest. A monitor
/// need not be the command that was started: it is the process with a guest in its memory.
///
/// # Errors
/// When there are not as many.
pub fn look_and_kill(count: usize, size: u64) -> Result<Value> {
    let (mut found, mut sum, mut tables) = (Vec::new(), Mapping::default(), 0);
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(pid) = name.and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // Processes come and go, and kernel threads have no mappings.
        let Ok(text) = std::fs::read_to_string(path.join("smaps")) else {
            continue;
        };
        if let Some(beyond) = beyond_guest(&mappings(&text), size) {
            found.push(Pid::from_raw(pid));
            sum.add(&beyond);
            tables += page_tables(&path).unwrap_or(0);
        }
    }
    for &pid in &found {
        kill(pid, Signal::SIGKILL)?;
    }
    let monitors = found.len();
    ensure!(
        monitors == count,
        "{monitors} processes, not {count}, have a guest of that size"
    );
    let mean = |sum: u64| sum / count as u64;
    Ok(json!({
        "rss_kib": mean(sum.rss),
        "pss_kib": mean(sum.pss),
        "private_kib": mean(sum.private),
        "private_dirty_kib": mean(sum.dirty),
        "page_tables_kib": mean(tables),
    }))
}

fn page_tables(process: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmPTE:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// One mapping; amounts in KiB.
#[derive(Debug, Default, Clone, Copy)]
struct Mapping {
    start: u64,
    end: u64,
    rss: u64,
    pss: u64,
    private: u64,
    dirty: u64,
}

impl Mapping {
    fn add(&mut self, other: &Self) {
        self.rss += other.rss;
        self.pss += other.pss;
        self.private += other.private;
        self.dirty += other.dirty;
    }
}

/// Parses `/proc/PID/smaps`.
fn mappings(text: &str) -> Vec<Mapping> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(first), second) = (words.next(), words.next()) else {
            continue;
        };
        if let Some(range) = first.split_once('-') {
            if let (Ok(start), Ok(end)) = (hex(range.0), hex(range.1)) {
                all.push(Mapping {
                    start,
                    end,
                    ..Mapping::default()
                });
            }
            continue;
        }
        let amount = second.and_then(|second| second.parse::<u64>().ok());
        let (Some(mapping), Some(amount)) = (all.last_mut(), amount) else {
            continue;
        };
        match first {
            "Rss:" => mapping.rss = amount,
            "Pss:" => mapping.pss = amount,
            "Private_Clean:" => mapping.private += amount,
            "Private_Dirty:" => {
                mapping.private += amount;
                mapping.dirty = amount;
            }
            _ => {}
        }
    }
    all
}

fn hex(digits: &str) -> Result<u64, std::num::ParseIntError> {
    u64::from_str_radix(digits, 16)
}

/// What a process has in memory beside its guest: neighbouring mappings that make up exactly `size` bytes. It is several
/// where a part of guest memory is a file. `None` where there is no guest.
fn beyond_guest(mappings: &[Mapping], size: u64) -> Option<Mapping> {
    let run = (0..mappings.len()).find_map(|first| {
        let mut end = mappings[first].start;
        let count = mappings[first..].iter().take_while(|mapping| {
            let next = mapping.start == end && end - mappings[first].start < size;
            end = if next { mapping.end } else { end };
            next
        });
        let run = first..first + count.count();
        (end - mappings[first].start == size).then_some(run)
    })?;
    let mut beyond = Mapping::default();
    for (index, mapping) in mappings.iter().enumerate() {
        if !run.contains(&index) {
            beyond.add(mapping);
        }
    }
    Some(beyond)
}
