//! The README's tour: what it shows is what a person gets who types it.

use std::path::PathBuf;
use std::process::Command;

use lodge_tests::artifacts;
use lodge_tests::process::{Outcome, run};

/// The machine `scripts/run` left running; it ends when this is dropped.
struct Demo {
    config: PathBuf,
}

impl Demo {
    /// Runs `scripts/run`, as the README says.
    fn start() -> Self {
        let mut command = Command::new(artifacts::root().join("scripts/run"));
        command.args(["--no-build", "--headless", "--keep"]);
        let text = run(&mut command, b"").unwrap().success().unwrap();
        assert!(text.trim_end().ends_with("demo guest is up"), "{text}");
        let config = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("export LODGE_CONFIG_DIR="))
            .expect("it says how to reach the machine");
        Self {
            config: PathBuf::from(config),
        }
    }

    /// What a person types.
    fn type_in(&self, line: &str) -> Outcome {
        let build = artifacts::root().join("build");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-c", line])
            .env("PATH", format!("{}:{path}", build.display()))
            .env("LODGE_CONFIG_DIR", &self.config);
        run(&mut command, b"").unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let machine = self.config.parent().expect("the machine's directory");
        if let Ok(pid) = std::fs::read_to_string(machine.join("pid")) {
            // It has ended already after the tour's last command.
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
        let _ = std::fs::remove_dir_all(machine);
    }
}

/// Commands and what the README shows of their output.
fn tour(readme: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => steps.push((command.to_owned(), String::new())),
                None => {
                    let (_, output) = steps.last_mut().expect("a command before its output");
                    output.push_str(line);
                    output.push('\n');
                }
            }
        }
    }
    steps
}

/// Numbers, times and addresses differ from run to run, and with them the widths of columns.
fn without_numbers(text: &str) -> String {
    let word = |word: &str| match word.contains(|c: char| c.is_ascii_digit()) {
        true => "#".to_owned(),
        false => word.to_owned(),
    };
    let line = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(word).collect();
        words.join(" ")
    };
    text.trim().lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_readme_shows_what_happens() {
    let readme = std::fs::read_to_string(artifacts::root().join("README.md")).unwrap();
    let steps = tour(&readme);
    assert!(steps.len() > 8, "{steps:?}");
    let demo = Demo::start();
    for (command, shown) in steps {
        let outcome = demo.type_in(&command);
        assert_eq!(outcome.code, Some(0), "{command}: {outcome:?}");
        assert_eq!(
            without_numbers(&outcome.stdout),
            without_numbers(&shown),
            "{command}"
        );
    }
}
