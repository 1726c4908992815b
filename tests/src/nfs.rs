//! An NFS server on another machine, with a directory in which hosts have datastores.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::die_with_parent;
use crate::web::GATEWAY;

/// NFS-Ganesha, which serves without the kernel's help. Its directory stays when it ends.
pub struct Nfs {
    server: Child,
    folder: PathBuf,
    port: u16,
}

impl Nfs {
    /// Exports `folder/export` as `/export`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder.join("export"))?;
        std::fs::create_dir_all(folder.join("state"))?;
        // Free a moment ago; hosts have to find it again at the same.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self {
            server: start(folder, port)?,
            folder: folder.to_owned(),
            port,
        })
    }

    /// Its TCP port.
    pub fn port(&self) -> String {
        self.port.to_string()
    }

    /// What a machine calls a directory of the export.
    pub fn path(&self, directory: &str) -> String {
        format!("{GATEWAY}:/export/{directory}")
    }

    /// Where that directory is here.
    pub fn at(&self, directory: &str) -> PathBuf {
        self.folder.join("export").join(directory)
    }

    /// Ends it as a power cut does.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()?;
        self.server.wait()?;
        Ok(())
    }

    /// Starts it again, where it was.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.server = start(&self.folder, self.port)?;
        Ok(())
    }
}

impl Drop for Nfs {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

fn start(folder: &Path, port: u16) -> Result<Child> {
    let configuration = folder.join("ganesha.conf");
    let (export, state) = (folder.join("export"), folder.join("state"));
    let text = format!(
        "NFS_Core_Param {{ Protocols = 4; NFS_Port = {port}; Bind_Addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false; }}\n\
         NFSv4 {{ Lease_Lifetime = 10; Grace_Period = 12; RecoveryBackend = fs; RecoveryRoot = \"{}\"; }}\n\
         EXPORT {{ Export_Id = 1; Path = \"{}\"; Pseudo = /export; Access_Type = RW; Squash = No_Root_Squash; SecType = sys; FSAL {{ Name = VFS; }} }}\n",
        state.display(),
        export.display(),
    );
    std::fs::write(&configuration, text)?;
    let mut command = Command::new("ganesha.nfsd");
    command
        .args(["-F", "-L", "STDOUT", "-N", "EVENT", "-f"])
        .arg(&configuration)
        .arg("-p")
        .arg(folder.join("pid"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut server = die_with_parent(&mut command)
        .spawn()
        .context("starting ganesha.nfsd")?;
    let mut lines = BufReader::new(server.stdout.take().context("no output")?).lines();
    let mut said = String::new();
    for line in lines.by_ref().map_while(Result::ok) {
        if line.contains("NFS SERVER INITIALIZED") {
            // It would wait for somebody to read the rest.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            return Ok(server);
        }
        said.push_str(&line);
        said.push('\n');
    }
    bail!("ganesha.nfsd did not start:\n{said}")
}
