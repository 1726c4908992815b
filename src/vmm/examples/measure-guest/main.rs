//! Runs a command that starts a guest, and measures it from outside: any monitor, by the same clock and the same arithmetic.
//!
//! ```text
//! measure-guest --until TEXT [--say TEXT] [--memory SIZE [--count N]] -- COMMAND [ARGUMENT]...
//! ```
//!
//! Prints one JSON object: the first line of the command's output with `TEXT` in it, and the milliseconds from the start of
//! the command to that line and to the command's end. The command's input is empty, or the line that `--say` gives.
//!
//! With `--memory`, the guest's in MiB, the command is not awaited: a second after the line the process that holds the guest
//! is looked at, and killed. With `--count` as many commands are started, one right after the other; the milliseconds end when
//! all have said the line, and memory is the mean.

mod memory;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

/// For what a guest still does after its line, such as going to sleep.
const SETTLE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match Options::parse().and_then(|options| run(&options)) {
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
    say: Option<String>,
    /// Guest memory in bytes, where the monitor's is asked for.
    memory: Option<u64>,
    count: usize,
    command: Vec<String>,
}

impl Options {
    fn parse() -> Result<Self> {
        let (mut until, mut say, mut memory, mut count) = (None, None, None, 1);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().context("a value is missing");
            match argument.as_str() {
                "--until" => until = Some(value()?),
                "--say" => say = Some(value()?),
                "--memory" => memory = Some(value()?.parse::<u64>()? << 20),
                "--count" => count = value()?.parse()?,
                "--" => break,
                other => bail!("unknown option {other}"),
            }
        }
        let command: Vec<_> = arguments.collect();
        ensure!(!command.is_empty(), "no command");
        ensure!(
            count == 1 || memory.is_some(),
            "--count needs --memory, to tell what to end"
        );
        Ok(Self {
            until: until.context("--until is required")?,
            say,
            memory,
            count,
            command,
        })
    }
}

fn run(options: &Options) -> Result<Value> {
    let begin = Instant::now();
    let mut started = Vec::new();
    for _ in 0..options.count {
        started.push(start(options)?);
    }
    let mut line = String::new();
    for guest in &mut started {
        line = wait_for_line(&mut guest.output, &options.until)?;
    }
    let mut result = json!({ "line": line, "line_ms": milliseconds(begin.elapsed()) });
    if let Some(size) = options.memory {
        std::thread::sleep(SETTLE);
        result["memory"] = memory::look_and_kill(options.count, size)?;
        for guest in &mut started {
            guest.child.wait()?;
        }
    } else if let Some(guest) = started.first_mut() {
        // To its end, or the command would not get to its own.
        std::io::copy(&mut guest.output, &mut std::io::stderr())?;
        guest.child.wait()?;
        result["exit_ms"] = milliseconds(begin.elapsed()).into();
    }
    Ok(result)
}

struct Started {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

fn start(options: &Options) -> Result<Started> {
    let mut child = Command::new(&options.command[0])
        .args(&options.command[1..])
        .stdin(
            options
                .say
                .as_ref()
                .map_or_else(Stdio::null, |_| Stdio::piped()),
        )
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| options.command[0].clone())?;
    if let (Some(text), Some(input)) = (&options.say, child.stdin.as_mut()) {
        writeln!(input, "{text}")?;
    }
    let output = child.stdout.take().ok_or_else(|| anyhow!("no output"))?;
    let output = BufReader::new(output);
    Ok(Started { child, output })
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
