//! A web server on another machine, from which a host fetches files.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::process::die_with_parent;

/// Python's, with the files of a folder; it ends when it is dropped.
pub struct Web {
    server: Child,
    port: u16,
}

impl Web {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(folder: &Path) -> Result<Self> {
        let mut command = Command::new("python3");
        command
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"])
            .arg("--directory")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut server = die_with_parent(&mut command)
            .spawn()
            .context("starting python3")?;
        let output = server.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        // Serving HTTP on 127.0.0.1 port 34567 (http://127.0.0.1:34567/) ...
        let mut words = line.split(' ').skip_while(|word| *word != "port").skip(1);
        let port = words.next().and_then(|word| word.parse().ok());
        Ok(Self {
            server,
            port: port.with_context(|| line.clone())?,
        })
    }

    /// Where a machine finds a file of the folder: by QEMU's user network, whose gateway is this machine's loopback interface.
    pub fn url(&self, file: &str) -> String {
        format!("http://10.0.2.2:{}/{file}", self.port)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
