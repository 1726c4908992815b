//! A web server on another machine, from which a host fetches files.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::process::{die_with_parent, tool};

/// Where machines find this one's loopback interface: the gateway of QEMU's user network.
const GATEWAY: &str = "10.0.2.2";

/// Python's, with the files of a folder; it ends when it is dropped.
pub struct Web {
    server: Child,
    port: u16,
    scheme: &'static str,
}

impl Web {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(folder: &Path) -> Result<Self> {
        Self::start("http", &[folder.as_os_str()])
    }

    /// Starts it with a certificate of `authority`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve_securely(folder: &Path, authority: &Authority) -> Result<Self> {
        let [certificate, key] = &authority.server;
        let arguments = [folder.as_os_str(), certificate.as_os_str(), key.as_os_str()];
        Self::start("https", &arguments)
    }

    fn start(scheme: &'static str, arguments: &[&OsStr]) -> Result<Self> {
        let mut command = Command::new("python3");
        command
            .args(["-c", include_str!("web.py")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut server = die_with_parent(&mut command)
            .spawn()
            .context("starting python3")?;
        let output = server.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().parse().with_context(|| line.clone())?;
        Ok(Self {
            server,
            port,
            scheme,
        })
    }

    /// Where a machine finds a file of the folder.
    pub fn url(&self, file: &str) -> String {
        format!("{}://{GATEWAY}:{}/{file}", self.scheme, self.port)
    }
}

/// A certificate authority of nobody's, which vouches for this machine.
pub struct Authority {
    /// Its own certificate.
    pub certificate: PathBuf,
    /// Certificate and key of a server.
    server: [PathBuf; 2],
}

impl Authority {
    /// Makes one in `folder`, by openssl.
    ///
    /// # Errors
    /// From openssl.
    pub fn new(folder: &Path) -> Result<Self> {
        let at = |name: &str| folder.join(name).display().to_string();
        let [ca, ca_key, server, key, request, extensions] = [
            "ca.pem",
            "ca.key",
            "server.pem",
            "server.key",
            "server.csr",
            "server.ext",
        ]
        .map(at);
        let new_key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let make = [
            "req", "-x509", "-subj", "/CN=lab", "-days", "2", "-keyout", &ca_key, "-out", &ca,
        ];
        tool("openssl", [&make[..], &new_key].concat())?;
        let ask = [
            "req",
            "-new",
            "-subj",
            "/CN=server",
            "-keyout",
            &key,
            "-out",
            &request,
        ];
        tool("openssl", [&ask[..], &new_key].concat())?;
        std::fs::write(&extensions, format!("subjectAltName=IP:{GATEWAY}\n"))?;
        let sign = [
            "x509", "-req", "-days", "2", "-in", &request, "-out", &server,
        ];
        let by = [
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-extfile",
            &extensions,
        ];
        tool("openssl", [&sign[..], &by].concat())?;
        Ok(Self {
            certificate: ca.into(),
            server: [server.into(), key.into()],
        })
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
