//! Pressure stall information: how much work waits for processor, memory or disks
//! (`Documentation/accounting/psi.rst` of the kernel).

use std::fs;

use serde::{Deserialize, Serialize};

/// Share of time in which work waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PressureLine {
    /// Percent over the last ten seconds.
    pub avg10: f64,
    /// Percent over the last minute.
    pub avg60: f64,
    /// Percent over the last five minutes.
    pub avg300: f64,
    /// Since boot, in microseconds.
    pub total_us: u64,
}

/// Waiting for one thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Some tasks waited.
    pub some: PressureLine,
    /// All tasks waited: nothing got done.
    pub full: PressureLine,
}

/// Waiting for each. `None` on kernels that do not measure it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressures {
    /// For a processor.
    pub cpu: Option<Pressure>,
    /// For memory.
    pub memory: Option<Pressure>,
    /// For disks.
    pub io: Option<Pressure>,
}

impl Pressures {
    /// The pressure now.
    pub fn read() -> Self {
        let read = |name: &str| {
            let text = fs::read_to_string(format!("/proc/pressure/{name}")).ok()?;
            Some(Pressure::parse(&text))
        };
        Self {
            cpu: read("cpu"),
            memory: read("memory"),
            io: read("io"),
        }
    }
}

impl Pressure {
    fn parse(text: &str) -> Self {
        let mut pressure = Self::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("some", rest)) => pressure.some = PressureLine::parse(rest),
                Some(("full", rest)) => pressure.full = PressureLine::parse(rest),
                _ => {}
            }
        }
        pressure
    }
}

impl PressureLine {
    fn parse(text: &str) -> Self {
        let mut line = Self::default();
        for (key, value) in text
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            let percent = || value.parse().unwrap_or(0.0);
            match key {
                "avg10" => line.avg10 = percent(),
                "avg60" => line.avg60 = percent(),
                "avg300" => line.avg300 = percent(),
                "total" => line.total_us = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines() {
        let pressure = Pressure::parse(
            "some avg10=1.50 avg60=0.20 avg300=0.00 total=12345\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=7\n",
        );
        assert!((pressure.some.avg10 - 1.5).abs() < 1e-9);
        assert_eq!(pressure.some.total_us, 12345);
        assert_eq!(pressure.full.total_us, 7);
        assert_eq!(Pressure::parse("nonsense"), Pressure::default());
    }
}
