//! QEMU's control socket: the machine's buttons and cables.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection to QEMU.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qmp {
    /// Says hello on a connection.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let mut qmp = Self {
            reader: BufReader::new(stream.try_clone()?),
            writer: stream,
        };
        qmp.read()?;
        qmp.command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command.
    ///
    /// # Errors
    /// When QEMU refuses it.
    pub fn command(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        let request = json!({"execute": name, "arguments": arguments});
        writeln!(self.writer, "{request}")?;
        loop {
            let answer = self.read()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {name}: {error}");
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            // Anything else is an event.
        }
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// See [`Qmp::command`].
    pub fn power_button(&mut self) -> Result<()> {
        self.command("system_powerdown", &json!({})).map(drop)
    }

    /// Presses Ctrl-Alt-Del on the keyboard.
    ///
    /// # Errors
    /// See [`Qmp::command`].
    pub fn ctrl_alt_delete(&mut self) -> Result<()> {
        let key = |code: &str| json!({"type": "qcode", "data": code});
        let keys = json!({"keys": [key("ctrl"), key("alt"), key("delete")]});
        self.command("send-key", &keys).map(drop)
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// See [`Qmp::command`].
    pub fn reset(&mut self) -> Result<()> {
        self.command("system_reset", &json!({})).map(drop)
    }

    /// Plugs or pulls the cable of a network card.
    ///
    /// # Errors
    /// See [`Qmp::command`].
    pub fn set_link(&mut self, nic: &str, up: bool) -> Result<()> {
        self.command("set_link", &json!({"name": nic, "up": up}))
            .map(drop)
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU ended");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU said {line:?}"))
    }
}
