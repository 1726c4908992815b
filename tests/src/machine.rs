//! A virtual bare-metal machine: QEMU, with an emulated processor that has AMD-V.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::artifacts;
use crate::drive::Drive;
use crate::media;
use crate::process::{die_with_parent, tool};
use crate::qmp::Qmp;
use crate::serial::{Serial, Socket};
use crate::volatile_disk::VolatileDisk;

/// What starts the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// What it starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A CD in a SATA drive.
    Cd,
    /// A USB stick.
    Usb,
    /// Nothing but its disks.
    Disk,
    /// Kernel and initramfs taken out of the ISO, with a shell on the second
    /// serial line that tests use to look inside and to kill.
    Shell,
}

/// Models of network cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nic {
    /// Intel 82574L.
    E1000e,
    /// Virtio.
    Virtio,
}

impl Nic {
    fn model(self) -> &'static str {
        match self {
            Self::E1000e => "e1000e",
            Self::Virtio => "virtio-net-pci",
        }
    }
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// NVMe.
    Nvme,
    /// AHCI.
    Sata,
    /// Virtio.
    Virtio,
}

/// Serial number of the disk that a host is installed on.
pub const TARGET_SERIAL: &str = "target-0001";

/// A machine to be built.
#[derive(Clone)]
pub struct Builder {
    firmware: Firmware,
    medium: Medium,
    nics: Vec<Nic>,
    memory_mib: u32,
    cpus: u32,
    svm: bool,
    instruction_clock: bool,
    data: Option<Data>,
    seed: Option<Seed>,
    network_boot: Option<(PathBuf, String)>,
    target: Option<(Drive, Bus)>,
}

/// Where the host's data are.
#[derive(Clone)]
enum Data {
    /// On a disk of that many bytes, with an empty filesystem.
    Fresh(u64),
    /// On a disk that outlives the machine.
    Kept(Drive),
}

/// A `seed.toml`, and how it gets into the machine.
#[derive(Clone)]
enum Seed {
    /// On a USB stick, as with people.
    Stick(String),
    /// By QEMU's configuration device.
    FwCfg(String),
}

/// A running machine; it ends when it is dropped.
pub struct Machine {
    directory: TempDir,
    qemu: Child,
    /// First serial line: the host's console.
    pub console: Serial,
    /// Second serial line, with [`Medium::Shell`] only.
    pub shell: Option<Serial>,
    /// Buttons and cables.
    pub qmp: Qmp,
    /// Port of the loopback address that leads to the host's HTTPS port.
    pub port: u16,
}

/// MAC address of the card with that number, from 0.
pub fn mac(index: usize) -> String {
    format!("52:54:00:10:0d:{index:02x}")
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            firmware: Firmware::Bios,
            medium: Medium::Cd,
            nics: vec![Nic::Virtio],
            memory_mib: 3072,
            cpus: 1,
            svm: true,
            instruction_clock: false,
            data: None,
            seed: None,
            network_boot: None,
            target: None,
        }
    }
}

impl Builder {
    /// BIOS, CD, one virtio network card, 3 GiB, one processor, no disk, no seed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether GRUB's menu is on the first serial line, and takes keys from there: UEFI has that line to itself.
    pub fn has_menu_on_serial(&self) -> bool {
        self.firmware == Firmware::Bios && self.medium != Medium::Shell
    }

    /// What starts the machine.
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    /// What it starts from.
    pub fn medium(mut self, medium: Medium) -> Self {
        self.medium = medium;
        self
    }

    /// Its network cards; the first leads to the API.
    pub fn nics(mut self, nics: &[Nic]) -> Self {
        self.nics = nics.to_vec();
        self
    }

    /// What its first network has for whoever boots from there: the files of a folder by TFTP, and the name of the one to
    /// begin with.
    pub fn network_boot(mut self, folder: PathBuf, file: &str) -> Self {
        self.network_boot = Some((folder, file.to_owned()));
        self
    }

    /// Its memory.
    pub fn memory_mib(mut self, memory: u32) -> Self {
        self.memory_mib = memory;
        self
    }

    /// Its processors. More than one make nothing faster where they are emulated: they take turns.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Where it is emulated, time goes by with the instructions executed, and as usual while there are none.
    pub fn instruction_clock(mut self) -> Self {
        self.instruction_clock = true;
        self
    }

    /// Takes AMD-V away.
    pub fn without_virtualization(mut self) -> Self {
        self.svm = false;
        self
    }

    /// A fresh data disk (NVMe, XFS, labelled `lodge-data`) of that many bytes.
    pub fn data_disk(mut self, size: u64) -> Self {
        self.data = Some(Data::Fresh(size));
        self
    }

    /// A data disk that outlives the machine, but for what is in its cache.
    pub fn volatile_data_disk(mut self, disk: &VolatileDisk) -> Self {
        self.data = Some(Data::Kept(disk.into()));
        self
    }

    /// A disk for installing on, with the serial number [`TARGET_SERIAL`]; it outlives the machine.
    pub fn target_disk(mut self, path: &Path, bus: Bus) -> Self {
        self.target = Some((path.into(), bus));
        self
    }

    /// The same, without what is in its cache when the machine ends.
    pub fn volatile_target_disk(mut self, disk: &VolatileDisk, bus: Bus) -> Self {
        self.target = Some((disk.into(), bus));
        self
    }

    /// A `LODGE-SEED` stick with that `seed.toml`.
    pub fn seed(mut self, seed: &str) -> Self {
        self.seed = Some(Seed::Stick(seed.to_owned()));
        self
    }

    /// That `seed.toml` by QEMU's configuration device: nobody waits for a stick then, which is two seconds of a boot.
    pub fn seed_by_fw_cfg(mut self, seed: &str) -> Self {
        self.seed = Some(Seed::FwCfg(seed.to_owned()));
        self
    }

    /// Whether something is plugged into a USB port. Without ports nobody waits for them.
    fn has_usb(&self) -> bool {
        self.medium == Medium::Usb || matches!(self.seed, Some(Seed::Stick(_)))
    }

    /// Switches the machine on.
    ///
    /// # Errors
    /// When QEMU or a tool fails.
    pub fn start(self) -> Result<Machine> {
        let directory = tempfile::Builder::new().prefix("lodge-").tempdir()?;
        let path = directory.path();
        let port = free_port()?;
        let console = Socket::listen(&path.join("console"), "the console")?;
        let shell = match self.medium {
            Medium::Shell => Some(Socket::listen(&path.join("shell"), "the shell")?),
            Medium::Cd | Medium::Usb | Medium::Disk => None,
        };
        let mut command = Command::new("qemu-system-x86_64");
        self.hardware(&mut command, path);
        self.network(&mut command, port);
        self.storage(&mut command, path)?;
        self.boot(&mut command, path)?;
        let log = std::fs::File::create(path.join("qemu.log"))?;
        let mut qemu = die_with_parent(&mut command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting qemu-system-x86_64")?;
        // QEMU connects its serial lines before it creates the control socket or fails: a
        // failure would leave us waiting for ever, so look at it first.
        let control = connect(&mut qemu, &path.join("qmp"), &path.join("qemu.log"))?;
        Ok(Machine {
            console: console.accept()?,
            shell: shell.map(Socket::accept).transpose()?,
            qmp: Qmp::new(control)?,
            qemu,
            directory,
            port,
        })
    }

    fn hardware(&self, command: &mut Command, path: &Path) {
        let accelerator =
            std::env::var("LODGE_ACCEL").unwrap_or_else(|_| "tcg,thread=single".to_owned());
        // See scripts/lib/qemu.sh for why on one thread, and without cx16 and erms.
        let cpu = match (accelerator.as_str(), self.svm) {
            ("kvm", true) => "host",
            ("kvm", false) => "host,-svm,-vmx",
            (_, true) => "max,+svm,-cx16,-erms",
            // Without SVM QEMU also hides the leaf that tells the width of addresses, and Linux then takes
            // those of five-level paging for wild ones.
            (_, false) => "max,-svm,-cx16,-erms,-la57",
        };
        command
            .args(["-machine", "q35", "-accel", &accelerator, "-cpu", cpu])
            .args([
                "-smp",
                &self.cpus.to_string(),
                "-m",
                &self.memory_mib.to_string(),
            ])
            .args([
                "-nodefaults",
                "-display",
                "none",
                "-vga",
                "std",
                "-rtc",
                "base=utc",
            ])
            .args([
                "-chardev",
                &format!("socket,id=console,path={}", path.join("console").display()),
            ])
            .args(["-serial", "chardev:console"])
            .args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", path.join("qmp").display()),
            ])
            .args(["-device", "i6300esb"]);
        if self.has_usb() {
            command.args(["-device", "qemu-xhci,id=usb"]);
        }
        if self.instruction_clock && accelerator != "kvm" {
            command.args(["-icount", "shift=1,sleep=on"]);
        }
        if self.medium == Medium::Shell {
            command
                .args([
                    "-chardev",
                    &format!("socket,id=shell,path={}", path.join("shell").display()),
                ])
                .args(["-serial", "chardev:shell"]);
        }
        if self.firmware == Firmware::Uefi {
            command.args(["-bios", "/usr/share/ovmf/OVMF.fd"]);
        }
    }

    fn network(&self, command: &mut Command, port: u16) {
        for (index, nic) in self.nics.iter().enumerate() {
            let mut services = String::new();
            if index == 0 {
                services += &format!(",hostfwd=tcp:127.0.0.1:{port}-:443");
                if let Some((folder, file)) = &self.network_boot {
                    services += &format!(",tftp={},bootfile={file}", folder.display());
                }
            }
            let net = format!("10.0.{}.0/24", index + 2);
            command
                .args([
                    "-netdev",
                    &format!("user,id=net{index},net={net}{services}"),
                ])
                .args([
                    "-device",
                    &format!(
                        "{},id=nic{index},netdev=net{index},mac={}",
                        nic.model(),
                        mac(index)
                    ),
                ]);
        }
    }

    fn storage(&self, command: &mut Command, path: &Path) -> Result<()> {
        if let Some(data) = &self.data {
            let data = match data {
                Data::Fresh(size) => Drive::File(media::data_disk(path, *size)?),
                Data::Kept(drive) => drive.clone(),
            };
            command
                .args(["-drive", &data.option("data")])
                .args(["-device", "nvme,id=data-disk,drive=data,serial=lodge-data"]);
        }
        if let Some((target, bus)) = &self.target {
            let device = match bus {
                Bus::Nvme => "nvme",
                // The CD has the first port.
                Bus::Sata => "ide-hd,bus=ide.1",
                Bus::Virtio => "virtio-blk-pci",
            };
            command.args(["-drive", &target.option("target")]).args([
                "-device",
                &format!("{device},drive=target,serial={TARGET_SERIAL},bootindex=1"),
            ]);
        }
        match &self.seed {
            Some(Seed::Stick(seed)) => {
                let stick = media::seed_stick(path, seed)?;
                command
                    .args([
                        "-drive",
                        &format!(
                            "if=none,id=seed,format=raw,readonly=on,file={}",
                            stick.display()
                        ),
                    ])
                    .args(["-device", "usb-storage,bus=usb.0,drive=seed,removable=on"]);
            }
            Some(Seed::FwCfg(seed)) => {
                let file = path.join("seed.toml");
                std::fs::write(&file, seed)?;
                command.args([
                    "-fw_cfg",
                    &format!("name=opt/org.lodge/seed,file={}", file.display()),
                ]);
            }
            None => {}
        }
        Ok(())
    }

    fn boot(&self, command: &mut Command, path: &Path) -> Result<()> {
        let iso = artifacts::iso();
        let drive = format!(
            "if=none,id=medium,format=raw,readonly=on,file={}",
            iso.display()
        );
        match self.medium {
            Medium::Cd => {
                command.args([
                    "-drive",
                    &format!("{drive},media=cdrom"),
                    "-device",
                    "ide-cd,drive=medium,bootindex=0",
                ]);
            }
            Medium::Usb => {
                command.args([
                    "-drive",
                    &drive,
                    "-device",
                    "usb-storage,bus=usb.0,drive=medium,removable=on,bootindex=0",
                ]);
            }
            Medium::Disk => {}
            Medium::Shell => {
                let initrd = path.join("initrd");
                shell_initrd(path, &initrd)?;
                command
                    .args(["-kernel", &path.join("vmlinuz").to_string_lossy()])
                    .args(["-initrd", &initrd.to_string_lossy()])
                    .args(["-append", &shell_command_line()?]);
            }
        }
        Ok(())
    }
}

/// The boot menu's command line, with a first process of ours.
fn shell_command_line() -> Result<String> {
    let menu = std::fs::read_to_string(artifacts::root().join("initramfs/grub/options.cfg"))?;
    let value = |name: &str| {
        let begin = format!("set {name}=\"");
        menu.lines()
            .find_map(|line| line.strip_prefix(&begin)?.strip_suffix('"'))
            .with_context(|| format!("the boot menu does not set {name}"))
    };
    Ok(format!(
        "{} {} {} rdinit=/test/init",
        value("serial_first")?,
        value("options")?,
        value("calm")?
    ))
}

/// The ISO's own initramfs with a second one behind it: busybox and a first
/// process that leaves a shell on the second serial line and becomes `/init`.
fn shell_initrd(path: &Path, output: &Path) -> Result<()> {
    let iso = artifacts::iso();
    for (inside, outside) in [
        ("/boot/vmlinuz", "vmlinuz"),
        ("/boot/initrd.zst", "lodge.initrd"),
    ] {
        tool(
            "xorriso",
            [
                "-osirrox",
                "on",
                "-indev",
                &iso.to_string_lossy(),
                "-extract",
                inside,
                &path.join(outside).to_string_lossy(),
            ],
        )?;
    }
    let script = "#!/test/busybox sh\n\
        /test/busybox mount -t devtmpfs devtmpfs /dev\n\
        /test/busybox mkdir -p /test/bin\n\
        /test/busybox --install -s /test/bin\n\
        (PATH=/test/bin exec setsid sh -c 'exec sh -i </dev/ttyS1 >/dev/ttyS1 2>&1') &\n\
        exec /init\n";
    let tree = path.join("tree/test");
    std::fs::create_dir_all(&tree)?;
    std::fs::write(tree.join("init"), script)?;
    std::fs::copy("/bin/busybox", tree.join("busybox"))
        .context("busybox-static is not installed")?;
    tool("chmod", ["755", &tree.join("init").to_string_lossy()])?;
    // The kernel looks for a further archive at multiples of four bytes only.
    let shell = format!(
        "cd '{0}/tree' && find test | cpio --quiet -o -H newc -R 0:0 >'{0}/test.cpio' && \
         cp '{0}/lodge.initrd' '{1}' && chmod u+w '{1}' && truncate -s %4 '{1}' && \
         cat '{0}/test.cpio' >>'{1}'",
        path.display(),
        output.display()
    );
    tool("sh", ["-c", &shell]).map(drop)
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

/// Connects to QEMU's control socket, which is there a moment before anybody listens on it.
fn connect(qemu: &mut Child, socket: &Path, log: &Path) -> Result<UnixStream> {
    let begin = Instant::now();
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            return Ok(stream);
        }
        if let Some(status) = qemu.try_wait()? {
            anyhow::bail!(
                "QEMU ended with {status}: {}",
                std::fs::read_to_string(log)?
            );
        }
        ensure!(
            begin.elapsed() < Duration::from_secs(30),
            "QEMU made no control socket"
        );
        std::thread::yield_now();
    }
}

impl Machine {
    /// Files of this machine.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until the machine has switched itself off.
    ///
    /// # Errors
    /// When the console fell silent and the machine is still on.
    pub fn wait_off(&mut self) -> Result<()> {
        // The console closes when QEMU ends; until then it must make progress.
        let ended = self.console.wait("\u{0}never said\u{0}");
        let status = self.qemu.try_wait()?;
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => anyhow::bail!("QEMU ended with {status}"),
            None => match self.console.closed() {
                true => {
                    let status = self.qemu.wait()?;
                    ensure!(status.success(), "QEMU ended with {status}");
                    Ok(())
                }
                false => ended.map(drop).context("the machine did not switch off"),
            },
        }
    }

    /// Runs a command in the shell on the second serial line; returns what it printed.
    ///
    /// # Errors
    /// When there is no shell or it does not answer.
    pub fn sh(&self, command: &str) -> Result<String> {
        let shell = self.shell.as_ref().context("this machine has no shell")?;
        let begin = shell.position();
        // The marks are put together by the shell so that its echo of the line does not match.
        shell.write(&format!("echo 'BEG''IN'; {command}; echo \"E\"'ND '$?\n"))?;
        shell.wait_after(begin, "\nEND ")?;
        let text = shell.text()[begin..].replace('\r', "");
        let after = text.split_once("\nBEGIN\n").map_or("", |(_, after)| after);
        // Empty output leaves the mark at the start.
        let end = match after.starts_with("END ") {
            true => 0,
            false => after.find("\nEND ").context("no end of the output")?,
        };
        Ok(after[..end].to_owned())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- console of the machine ---\n{}", self.console.text());
            let said = std::fs::read_to_string(self.directory().join("qemu.log"));
            eprintln!("--- words of QEMU ---\n{}", said.unwrap_or_default());
            if self.shell.is_some() {
                let log = self.sh("dmesg | tail -n 80");
                eprintln!("--- log of the machine ---\n{}", log.unwrap_or_default());
            }
        }
        // It may have ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
