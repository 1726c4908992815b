//! A booted Lodge host and its administrator.

use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::artifacts;
use crate::cli::Cli;
use crate::curl::Curl;
use crate::machine::{Builder, Machine};
use crate::serial::SILENCE;
use crate::web::Web;

/// Administrator's password in [`SEED`].
pub const PASSWORD: &str = "correct-horse-9";

/// A seed as people write it.
pub const SEED: &str = "hostname = \"lodge-test\"\n[admin]\npassword = \"correct-horse-9\"\n";

/// The seed most tests use: [`SEED`] with a hash of that password that is computed in no time. One as strong as Lodge makes
/// them takes an emulated machine two seconds to make, and at each login two more.
const QUICK_SEED: &str = "hostname = \"lodge-test\"\n[admin]\n\
    password_hash = \"$argon2id$v=19$m=64,t=1,p=1$bG9kZ2V0ZXN0c2FsdA$qzmGsPhrBUaMktTFW+jFgWthj++j6LJorDc3pvTEnEM\"\n";

/// What the console says before a person presses Enter.
pub const READY: &str = "Press Enter for the console";

/// What a kernel says when its timer does not tick while it looks. An emulated one does not where the emulator itself has
/// to wait for a processor.
const STARVED: &str = "IO-APIC + timer doesn't work";

/// Files from this size on are fetched by the host, without encryption: that is a third of what an emulated processor does
/// with one that is sent.
const LARGE: u64 = 32 << 20;

/// A boot, once more if it failed for want of a processor.
fn again_if_starved<T>(boot: impl Fn() -> Result<T>) -> Result<T> {
    match boot() {
        Err(error) if format!("{error:#}").contains(STARVED) => {
            eprintln!("the emulator was not given a processor in time; booting again: {error:#}");
            boot()
        }
        done => done,
    }
}

/// A machine on which Lodge is ready, and a command line that is logged in as `lab`.
pub struct Host {
    /// The machine.
    pub machine: Machine,
    /// The administrator's command line.
    pub cli: Cli,
    /// The certificate's fingerprint, as the console shows it.
    pub fingerprint: String,
}

impl Host {
    /// Boots a machine whose administrator has [`PASSWORD`] and logs in. Where there is a boot menu on the serial line, it is not waited for.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn boot(builder: Builder) -> Result<Self> {
        let builder = builder.seed_by_fw_cfg(QUICK_SEED);
        again_if_starved(|| {
            let machine = builder.clone().start()?;
            if builder.has_menu_on_serial() {
                machine.console.wait("GNU GRUB")?;
                machine.console.write("\r")?;
            }
            Self::ready(machine, Some(PASSWORD))
        })
    }

    /// Boots a machine and logs in with that password, or with the one the console shows.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn boot_with_password(builder: &Builder, password: Option<&str>) -> Result<Self> {
        again_if_starved(|| Self::ready(builder.clone().start()?, password))
    }

    fn ready(machine: Machine, password: Option<&str>) -> Result<Self> {
        machine.console.wait(READY)?;
        // The address may come after the first summary; the next one then has it.
        machine.console.wait("URL:         https://")?;
        let fingerprint = machine.console.wait("Certificate: ")?.trim().to_owned();
        let shown;
        let password = match password {
            Some(password) => password,
            None => {
                shown = machine.console.wait("admin, password ")?.trim().to_owned();
                &shown
            }
        };
        let cli = Cli::new(machine.directory());
        let host = Self {
            machine,
            cli,
            fingerprint,
        };
        host.add_remote("lab", password)?;
        Ok(host)
    }

    /// Adds this host as a remote and logs in.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn add_remote(&self, name: &str, password: &str) -> Result<()> {
        let url = format!("https://127.0.0.1:{}", self.machine.port);
        let args = [
            "remote",
            "add",
            name,
            &url,
            "--fingerprint",
            &self.fingerprint,
            "--password-stdin",
        ];
        self.cli
            .outcome(&args, &format!("{password}\n"))?
            .success()
            .map(drop)
    }

    /// `curl`, logged in.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn curl(&self) -> Result<Curl> {
        Curl::log_in(self.machine.port, "admin", PASSWORD)
    }

    /// Uploads the small test guest as images `linux` and `small`.
    ///
    /// # Errors
    /// When an upload fails.
    pub fn upload_guest(&self) -> Result<()> {
        self.upload(&artifacts::guest_kernel(), "linux", "kernel")?;
        self.upload(&artifacts::guest_initrd(), "small", "initrd")
    }

    /// Uploads it with its kernel unpacked, which is a quarter of what an emulated processor does until such a guest is up.
    ///
    /// # Errors
    /// When an upload fails.
    pub fn upload_unpacked_guest(&self) -> Result<()> {
        self.upload(&artifacts::guest_kernel_elf(), "linux", "kernel")?;
        self.upload(&artifacts::guest_initrd(), "small", "initrd")
    }

    /// Uploads a file as an image of that kind, or has the host fetch it.
    ///
    /// # Errors
    /// When the upload fails.
    pub fn upload(&self, file: &Path, name: &str, kind: &str) -> Result<()> {
        let upload = |content: &str| {
            let command = ["image", "upload", content, name, "--kind", kind];
            self.cli.ok(&command).map(drop)
        };
        if std::fs::metadata(file)?.len() < LARGE {
            return upload(&file.to_string_lossy());
        }
        let folder = file.parent().context("a file in a folder")?;
        let web = Web::serve(folder)?;
        let name = file.file_name().context("a file's name")?;
        upload(&web.url(&name.to_string_lossy()))
    }

    /// Creates a small guest that runs `actions` (see guest-images/README.md), with more options of `vm create`.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn create_guest(&self, name: &str, actions: &str, options: &[&str]) -> Result<()> {
        let cmdline = format!(
            "console=ttyS0 quiet panic=-1 lodge.name={name} lodge.ip=none lodge.action={actions}"
        );
        let usual = [
            ["--kernel", "linux"],
            ["--initrd", "small"],
            ["--cmdline", &cmdline],
        ];
        // What a test says itself is not said for it.
        let unsaid = usual.iter().filter(|[flag, _]| !options.contains(flag));
        let args: Vec<&str> = ["vm", "create", name]
            .iter()
            .chain(unsaid.flatten())
            .chain(options)
            .copied()
            .collect();
        self.cli.ok(&args).map(drop)
    }

    /// A guest as the API describes it.
    ///
    /// # Errors
    /// When there is none.
    pub fn vm(&self, name: &str) -> Result<Value> {
        self.cli.json(&["vm", "show", name])
    }

    /// Waits until a guest is in `state`, by the host's own events.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn wait_state(&self, name: &str, state: &str) -> Result<Value> {
        let is_there = || Ok::<_, anyhow::Error>(self.vm(name)?["status"]["state"] == state);
        if !is_there()? {
            // It may have been there for a moment only, before.
            let _ = self.wait_event("vm_state", |event| {
                Ok(event["vm"] == name && event["state"] == state && is_there()?)
            });
        }
        let vm = self.vm(name)?;
        ensure!(
            vm["status"]["state"] == state,
            "{name} did not become {state}: {vm}"
        );
        Ok(vm)
    }

    /// The first event since the host's start which is of these types and wanted.
    ///
    /// # Errors
    /// When none comes for too long.
    pub fn wait_event(
        &self,
        types: &str,
        wanted: impl Fn(&Value) -> Result<bool>,
    ) -> Result<Value> {
        let mut monitor = self.cli.spawn(&[
            "event", "monitor", "--types", types, "--since", "0", "-o", "json",
        ])?;
        let output = monitor.stdout.take().context("no output")?;
        let (sender, lines) = std::sync::mpsc::channel();
        // Ends with the monitor.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let found = loop {
            let Ok(line) = lines.recv_timeout(SILENCE) else {
                break Err(anyhow!(
                    "no such event of {types} came for {SILENCE:?}, or the host went away"
                ));
            };
            let event = serde_json::from_str(&line)?;
            match wanted(&event) {
                Ok(true) => break Ok(event),
                Ok(false) => {}
                Err(error) => break Err(error),
            }
        };
        let _ = monitor.kill();
        let _ = monitor.wait();
        found
    }

    /// Switches the machine off through the API and waits for it.
    ///
    /// # Errors
    /// When it does not switch off.
    pub fn shut_down(mut self) -> Result<()> {
        self.cli.ok(&["system", "shutdown", "--yes"])?;
        self.machine.wait_off()
    }
}
