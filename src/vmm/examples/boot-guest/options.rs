//! What the command line asks for.

use anyhow::{Context, Result, bail, ensure};
use lodge_vmm_proto::{DiskBus, OnReset};

pub const HELP: &str = "\
Boots one guest without a manager, with its serial console on the terminal.

Usage: boot-guest --kernel FILE [--initrd FILE] [--cmdline TEXT] [OPTION]...
       boot-guest --firmware FILE [--variables FILE] [--display-rom FILE] [OPTION]...

  --memory SIZE        memory, with K, M or G at its end (default: 256M)
  --cpus N             virtual processors (default: 1)
  --disk FILE          a raw disk; may be given several times
  --read-only          disks that follow are not written to
  --nvme, --sata       disks are on NVMe, or on SATA
  --cdrom FILE         a disc; may be given several times
  --tap NAME           a network card on this tap, which is made unless it is there; may be given several times
  --save FOLDER        write the guest's state and memory there, and end it,
  --save-at TEXT       ... when its console has said this
  --restore FOLDER     begin with what --save wrote; the other options are to be those of then
  --on-reset WHAT      boot (default) or stop
  --user UID           what the monitor runs as
  --no-jail            without namespaces and filters
  --monitor FILE       the program that becomes the monitor when its first argument is vmm: lodge. Without it this one does.
";

pub struct Options {
    pub kernel: Option<String>,
    pub firmware: Option<String>,
    pub variables: Option<String>,
    pub display_rom: Option<String>,
    pub initrd: Option<String>,
    pub cmdline: String,
    pub memory: u64,
    pub cpus: u8,
    pub disks: Vec<DiskOptions>,
    pub cdroms: Vec<String>,
    pub taps: Vec<String>,
    pub disk_bus: DiskBus,
    pub save: Option<SaveOptions>,
    pub restore: Option<String>,
    pub jail: bool,
    pub user: Option<u32>,
    pub on_reset: OnReset,
    pub monitor: String,
}

pub struct DiskOptions {
    pub path: String,
    pub read_only: bool,
}

/// Where a guest is saved, and when.
pub struct SaveOptions {
    pub folder: String,
    pub at: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kernel: None,
            firmware: None,
            variables: None,
            display_rom: None,
            initrd: None,
            cmdline: "console=ttyS0 panic=-1".to_owned(),
            memory: 256 << 20,
            cpus: 1,
            disks: Vec::new(),
            cdroms: Vec::new(),
            taps: Vec::new(),
            disk_bus: DiskBus::Virtio,
            save: None,
            restore: None,
            jail: true,
            user: None,
            on_reset: OnReset::Boot,
            monitor: "/proc/self/exe".to_owned(),
        }
    }
}

impl Options {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        let (mut folder, mut at, mut read_only) = (None, None, false);
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} takes a value"))
            };
            match argument.as_str() {
                "--kernel" => options.kernel = Some(value()?),
                "--firmware" => options.firmware = Some(value()?),
                "--variables" => options.variables = Some(value()?),
                "--display-rom" => options.display_rom = Some(value()?),
                "--initrd" => options.initrd = Some(value()?),
                "--cmdline" => options.cmdline = value()?,
                "--memory" => options.memory = size(&value()?)?,
                "--cpus" => options.cpus = value()?.parse()?,
                "--disk" => {
                    let path = value()?;
                    options.disks.push(DiskOptions { path, read_only });
                }
                "--read-only" => read_only = true,
                "--nvme" => options.disk_bus = DiskBus::Nvme,
                "--sata" => options.disk_bus = DiskBus::Sata,
                "--cdrom" => options.cdroms.push(value()?),
                "--tap" => options.taps.push(value()?),
                "--save" => folder = Some(value()?),
                "--save-at" => at = Some(value()?),
                "--restore" => options.restore = Some(value()?),
                "--user" => options.user = Some(value()?.parse()?),
                "--on-reset" => options.on_reset = on_reset(&value()?)?,
                "--monitor" => options.monitor = value()?,
                "--no-jail" => options.jail = false,
                other => bail!("unknown option {other}; see --help"),
            }
        }
        ensure!(
            options.kernel.is_some() != options.firmware.is_some(),
            "either --kernel or --firmware is required; see --help"
        );
        options.save = match (folder, at) {
            (Some(folder), Some(at)) => Some(SaveOptions { folder, at }),
            (None, None) => None,
            _ => bail!("--save and --save-at belong together"),
        };
        Ok(options)
    }
}

fn on_reset(text: &str) -> Result<OnReset> {
    match text {
        "boot" => Ok(OnReset::Boot),
        "stop" => Ok(OnReset::Stop),
        _ => bail!("{text}: what comes of a reset is boot or stop"),
    }
}

fn size(text: &str) -> Result<u64> {
    let (digits, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => bail!("{text}: sizes end in K, M or G"),
    };
    Ok(digits.parse::<u64>()? << shift)
}
