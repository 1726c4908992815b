//! A VNC viewer that is not ours: vncsnapshot, of Debian's package of that name.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cli::Cli;
use crate::picture::Picture;
use crate::process::{die_with_parent, tool};

/// `lodge vm vnc` on a port of its own choice.
pub struct Vnc {
    child: Child,
    /// Held open: the program has a right to complain.
    _errors: BufReader<ChildStderr>,
    /// What viewers connect to: ports are displays from 5900 on.
    display: String,
}

impl Vnc {
    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// When the CLI cannot be started, or refuses.
    pub fn open(cli: &Cli, vm: &str) -> Result<Self> {
        let mut command = cli.command(&["vm", "vnc", vm, "--listen", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = die_with_parent(&mut command).spawn()?;
        let mut errors = BufReader::new(child.stderr.take().context("no output")?);
        let mut line = String::new();
        errors.read_line(&mut line)?;
        let address = line.split_once(" is at 127.0.0.1:");
        let port = address.and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
        let port: u32 = port
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("no address in {line:?}"))?;
        Ok(Self {
            child,
            _errors: errors,
            display: format!("127.0.0.1:{}", port.saturating_sub(5900)),
        })
    }

    /// What the viewer sees, nearly: it keeps pictures as JPEG, here of the best quality.
    ///
    /// # Errors
    /// When it does not get on with the host.
    pub fn picture(&self, directory: &Path) -> Result<Picture> {
        let file = directory.join("viewer.jpg");
        let path = file.to_str().context("a strange directory")?;
        tool(
            "vncsnapshot",
            ["-quiet", "-quality", "100", &self.display, path],
        )?;
        let plain = directory.join("viewer.ppm");
        let path = plain.to_str().context("a strange directory")?;
        tool(
            "djpeg",
            ["-pnm", "-outfile", path, file.to_str().unwrap_or_default()],
        )?;
        Picture::read_ppm(&plain)
    }
}

impl Drop for Vnc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether two pictures show the same, but for what JPEG does to colours.
///
/// # Errors
/// When they do not.
pub fn ensure_alike(one: &Picture, other: &Picture) -> Result<()> {
    let sizes = [one, other].map(|picture| (picture.width, picture.height));
    ensure!(sizes[0] == sizes[1], "{sizes:?}");
    let far = |a: &u8, b: &u8| a.abs_diff(*b) > 40;
    let pixels = one.pixels.iter().zip(&other.pixels);
    let differing = pixels.filter(|(a, b)| a.iter().zip(*b).any(|(a, b)| far(a, b)));
    let differing = differing.count();
    ensure!(
        differing * 200 < one.pixels.len(),
        "{differing} of {} pixels differ",
        one.pixels.len()
    );
    Ok(())
}
