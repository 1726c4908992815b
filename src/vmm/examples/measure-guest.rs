//! Runs a command that starts a guest, and measures it from outside: any monitor, by the same clock and the same arithmetic.
//!
//! ```text
//! measure-guest --until TEXT [--memory SIZE] -- COMMAND [ARGUMENT]...
//! ```
//!
//! Prints one JSON object: the first line of the command's output with `TEXT` in it, and the milliseconds from the start of
//! the command to that line and to the command's end. With `--memory`, the guest's in MiB, the command is not awaited:
//! a second after the line the process that holds the guest is looked at, and killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// For what a guest still does after its line, such as going to sleep.
const SETTLE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run() {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("measure-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    until: String,
    /// Guest memory in bytes, where the monitor's is asked for.
    memory: Option<u64>,
    command: Vec<String>,
}

fn parse() -> Result<Options> {
    let mut until = None;
    let mut memory = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().context("a value is missing");
        match argument.as_str() {
            "--until" => until = Some(value()?),
            "--memory" => memory = Some(value()?.parse::<u64>()? << 20),
            "--" => break,
            other => bail!("unknown option {other}"),
        }
    }
    let command: Vec<_> = arguments.collect();
    ensure!(!command.is_empty(), "no command");
    Ok(Options {
        until: until.context("--until is required")?,
        memory,
        command,
    })
}

fn run() -> Result<Value> {
    let options = parse()?;
    let begin = Instant::now();
    let mut child = Command::new(&options.command[0])
        .args(&options.command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| options.command[0].clone())?;
    let output = child.stdout.take().context("no output")?;
    let mut output = BufReader::new(output);
    let line = wait_for_line(&mut output, &options.until)?;
    let until_line = begin.elapsed();
    let mut result = json!({ "line": line, "line_ms": milliseconds(until_line) });
    if let Some(size) = options.memory {
        std::thread::sleep(SETTLE);
        result["memory"] = look_and_kill(&mut child, size)?;
    } else {
        // To its end, or the command would not get to its own.
        std::io::copy(&mut output, &mut std::io::stderr())?;
        child.wait()?;
        result["exit_ms"] = milliseconds(begin.elapsed()).into();
    }
    Ok(result)
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn wait_for_line(output: &mut impl BufRead, text: &str) -> Result<String> {
    loop {
        let mut bytes = Vec::new();
        ensure!(
            output.read_until(b'\n', &mut bytes)? > 0,
            "the command ended without \"{text}\""
        );
        let line = String::from_utf8_lossy(&bytes).trim().to_owned();
        // What else it says, a person may want to know.
        eprintln!("{line}");
        if line.contains(text) {
            return Ok(line);
        }
    }
}

/// The monitor need not be the command itself: it is the process with a guest in its memory.
fn look_and_kill(child: &mut Child, size: u64) -> Result<Value> {
    let mut found = None;
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
            found = Some((pid, beyond, page_tables(&path)));
        }
    }
    let (pid, beyond, tables) = found.context("no process has a guest of that size")?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    child.wait()?;
    Ok(json!({
        "rss_kib": beyond.rss,
        "pss_kib": beyond.pss,
        "private_kib": beyond.private,
        "private_dirty_kib": beyond.dirty,
        "page_tables_kib": tables,
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
            beyond.rss += mapping.rss;
            beyond.pss += mapping.pss;
            beyond.private += mapping.private;
            beyond.dirty += mapping.dirty;
        }
    }
    Some(beyond)
}
