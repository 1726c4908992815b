//! A web server on another machine, from which a host fetches files.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    date_time_ymd,
};

use crate::process::die_with_parent;

/// Where machines find this one's loopback interface: the gateway of QEMU's user network.
pub(crate) const GATEWAY: &str = "10.0.2.2";

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

    /// Starts an S3 service instead, with one bucket, which is empty.
    ///
    /// # Errors
    /// When it does not start.
    pub fn bucket(
        name: &str,
        access_key: &str,
        secret_key: &str,
        authority: &Authority,
    ) -> Result<Self> {
        let [certificate, key] = &authority.server;
        let arguments = [name, access_key, secret_key].map(OsStr::new);
        let arguments = [&arguments[..], &[certificate.as_os_str(), key.as_os_str()]].concat();
        Self::run(include_str!("s3.py"), "https", &arguments)
    }

    fn start(scheme: &'static str, arguments: &[&OsStr]) -> Result<Self> {
        Self::run(include_str!("web.py"), scheme, arguments)
    }

    fn run(program: &str, scheme: &'static str, arguments: &[&OsStr]) -> Result<Self> {
        // Debian's: it has what Debian's packages bring.
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(["-c", program])
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
    /// Makes one in `folder`. What it signs has been valid for years: the clock of a machine that
    /// started a moment ago is behind this one's by up to a second, as its hardware counts whole
    /// ones.
    ///
    /// # Errors
    /// When a certificate cannot be made or written.
    pub fn new(folder: &Path) -> Result<Self> {
        let mut authority = valid_for_years("lab", Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let server_key = KeyPair::generate()?;
        let server = valid_for_years("server", vec![GATEWAY.to_owned()])?
            .signed_by(&server_key, &authority)?;
        let write = |name: &str, content: String| {
            let path = folder.join(name);
            std::fs::write(&path, content).with_context(|| path.display().to_string())?;
            anyhow::Ok(path)
        };
        Ok(Self {
            certificate: write("ca.pem", authority.pem())?,
            server: [
                write("server.pem", server.pem())?,
                write("server.key", server_key.serialize_pem())?,
            ],
        })
    }
}

/// A certificate's content, for `name` at `addresses`.
fn valid_for_years(name: &str, addresses: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(addresses)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2075, 1, 1);
    Ok(params)
}

impl Drop for Web {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
