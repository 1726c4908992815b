//! Boots one guest without a manager: its serial console on the terminal, its end
//! the exit status. For tests and measurements.
//!
//! ```text
//! boot-guest --kernel FILE [--initrd FILE] [--cmdline TEXT] [OPTION]...
//! boot-guest --firmware FILE [--variables FILE] [--display-rom FILE] [OPTION]...
//!     [--memory SIZE] [--cpus N] [--disk FILE]... [--sata] [--cdrom FILE]... [--no-jail] [--user UID] [--on-reset boot|stop] [--monitor FILE]
//! ```
//!
//! `--monitor` names the program that becomes the monitor when its first argument is `vmm`: `lodge` itself. Without it this
//! program does.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lodge_vmm_proto::{
    Boot, BootDevice, CdromConfig, Channel, ConsolePort, DiskBus, DiskConfig, ExitReason,
    ExitRecord, FdIndex, GuestConfig, Launch, OnReset, PROTOCOL_VERSION, Request, RequestBody,
    ServerMessage, spawn,
};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockname, listen,
    socket,
};

/// Scroll-back asked for: whatever the guest has printed before we were attached.
const EVERYTHING: u32 = u32::MAX;

const START_LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("vmm") {
        return lodge_vmm::main_from_birth_socket();
    }
    match run() {
        Ok(record) => {
            eprintln!(
                "boot-guest: {:?} after {} ms {}",
                record.reason, record.uptime_ms, record.message
            );
            match record.reason {
                ExitReason::GuestPoweroff | ExitReason::GuestReset => ExitCode::SUCCESS,
                _ => ExitCode::from(3),
            }
        }
        Err(error) => {
            eprintln!("boot-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    kernel: Option<String>,
    firmware: Option<String>,
    variables: Option<String>,
    display_rom: Option<String>,
    initrd: Option<String>,
    cmdline: String,
    memory: u64,
    cpus: u8,
    disks: Vec<String>,
    disk_bus: DiskBus,
    cdroms: Vec<String>,
    jail: bool,
    user: Option<u32>,
    on_reset: OnReset,
    monitor: String,
}

fn parse() -> Result<Options> {
    let mut options = Options {
        kernel: None,
        firmware: None,
        variables: None,
        display_rom: None,
        initrd: None,
        cmdline: "console=ttyS0 panic=-1".to_owned(),
        memory: 256 << 20,
        cpus: 1,
        disks: Vec::new(),
        disk_bus: DiskBus::Virtio,
        cdroms: Vec::new(),
        jail: true,
        user: None,
        on_reset: OnReset::Boot,
        monitor: "/proc/self/exe".to_owned(),
    };
    let mut arguments = std::env::args().skip(1);
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
            "--disk" => options.disks.push(value()?),
            "--sata" => options.disk_bus = DiskBus::Sata,
            "--cdrom" => options.cdroms.push(value()?),
            "--user" => options.user = Some(value()?.parse()?),
            "--on-reset" => options.on_reset = on_reset(&value()?)?,
            "--monitor" => options.monitor = value()?,
            "--no-jail" => options.jail = false,
            other => bail!("unknown option {other}"),
        }
    }
    ensure!(
        options.kernel.is_some() != options.firmware.is_some(),
        "either --kernel or --firmware is required"
    );
    Ok(options)
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

fn run() -> Result<ExitRecord> {
    let options = parse()?;
    let (listener, address) = control_socket()?;
    let mut record = nameless_file()?;
    let mut fds = Descriptors::default();
    let launch = launch(&options, &mut fds, listener, record.try_clone()?)?;

    let mut command = Command::new(&options.monitor);
    command.arg("vmm").stdin(Stdio::null());
    let borrowed: Vec<_> = fds.0.iter().map(AsFd::as_fd).collect();
    spawn(command, &launch, &borrowed, START_LIMIT)?;
    drop(fds);

    let channel = join(&address)?;
    let (console, theirs) = UnixStream::pair()?;
    ask(
        &channel,
        RequestBody::AttachConsole {
            port: ConsolePort::Com1,
            scrollback: EVERYTHING,
        },
        &[theirs.as_fd()],
    )?;
    drop(theirs);
    let output = std::thread::spawn({
        let console = console.try_clone()?;
        move || copy(console, std::io::stdout())
    });
    std::thread::spawn(move || copy(std::io::stdin(), console));
    // It says nothing more, and closes the channel when its record is written.
    while channel.receive::<ServerMessage>().is_ok() {}
    let _ = output.join();
    let mut text = String::new();
    record.read_to_string(&mut text)?;
    ensure!(!text.is_empty(), "the monitor crashed");
    Ok(serde_json::from_str(&text)?)
}

fn launch(
    options: &Options,
    fds: &mut Descriptors,
    listener: OwnedFd,
    record: File,
) -> Result<Launch> {
    let mut disks = Vec::new();
    for path in &options.disks {
        let file = OpenOptions::new().read(true).write(true).open(path);
        disks.push(DiskConfig {
            file: fds.add(file.with_context(|| path.clone())?),
            bus: options.disk_bus,
            read_only: false,
            serial: format!("boot{}", disks.len()),
        });
    }
    let mut cdroms = Vec::new();
    for path in &options.cdroms {
        let disc = File::open(path).with_context(|| path.clone())?;
        cdroms.push(CdromConfig {
            disc: Some(fds.add(disc)),
        });
    }
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    Ok(Launch {
        version: PROTOCOL_VERSION,
        guest: GuestConfig {
            id: uuid::Uuid::from_u128(u128::from(std::process::id())),
            name: "boot".to_owned(),
            vcpus: options.cpus,
            memory: options.memory,
            boot: boot(options, fds)?,
            disks,
            cdroms,
            nics: Vec::new(),
            vsock: None,
            on_reset: options.on_reset,
        },
        kvm: fds.add(kvm.context("/dev/kvm")?),
        control: fds.add(listener),
        exit_record: fds.add(record),
        uid_gid: options.user.map(|user| (user, user)),
        restore: None,
        jail: options.jail,
    })
}

fn boot(options: &Options, fds: &mut Descriptors) -> Result<Boot> {
    let mut open = |path: &Option<String>, write| match path {
        None => Ok::<_, anyhow::Error>(None),
        Some(path) => {
            let file = OpenOptions::new().read(true).write(write).open(path);
            Ok(Some(fds.add(file.with_context(|| path.clone())?)))
        }
    };
    if let Some(code) = open(&options.firmware, false)? {
        let disks = 0..u8::try_from(options.disks.len())?;
        return Ok(Boot::Firmware {
            code,
            variables: open(&options.variables, true)?,
            order: disks
                .map(BootDevice::Disk)
                .chain((0..8).map(BootDevice::Cdrom))
                .collect(),
            display_rom: open(&options.display_rom, false)?,
            network_rom: None,
        });
    }
    Ok(Boot::Direct {
        kernel: open(&options.kernel, false)?.context("--kernel")?,
        initrd: open(&options.initrd, false)?,
        cmdline: options.cmdline.clone(),
    })
}

#[derive(Default)]
struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    fn add(&mut self, fd: impl Into<OwnedFd>) -> FdIndex {
        self.0.push(fd.into());
        FdIndex(self.0.len() as u16 - 1)
    }
}

fn seqpacket() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        flags,
        None,
    )?)
}

/// A listening socket at an address the kernel chooses.
fn control_socket() -> Result<(OwnedFd, UnixAddr)> {
    use std::os::fd::AsRawFd;
    let listener = seqpacket()?;
    bind(listener.as_raw_fd(), &UnixAddr::new_unnamed())?;
    listen(&listener, Backlog::new(1)?)?;
    let address = getsockname::<UnixAddr>(listener.as_raw_fd())?;
    Ok((listener, address))
}

fn join(address: &UnixAddr) -> Result<Channel> {
    use std::os::fd::AsRawFd;
    let socket = seqpacket()?;
    connect(socket.as_raw_fd(), address).context("control socket")?;
    Ok(Channel::new(socket))
}

fn nameless_file() -> Result<File> {
    let path = format!("/tmp/boot-{}", std::process::id());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| path.clone())?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn ask(channel: &Channel, body: RequestBody, fds: &[BorrowedFd<'_>]) -> Result<()> {
    channel.send(&Request { id: 1, body }, fds)?;
    match channel.receive::<ServerMessage>()?.0 {
        ServerMessage::Reply(reply) => match reply.answer {
            lodge_vmm_proto::Answer::Error { message, .. } => bail!("{message}"),
            _ => Ok(()),
        },
        ServerMessage::Notice(_) => Ok(()),
    }
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to
            .write_all(&buffer[..count])
            .and_then(|()| to.flush())
            .is_err()
        {
            return;
        }
    }
}
