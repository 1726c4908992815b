//! Starting the real monitor on guests of a few instructions.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod code;
pub mod saving;
pub mod screen;
pub mod tap;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lodge_vmm_proto::{
    Answer, Boot, CdromConfig, Channel, ConsolePort, CpuConfig, DiskBus, DiskConfig, DiskLimits,
    ExitReason, ExitRecord, FdIndex, GuestConfig, GuestEvent, GuestStatus, Launch, NetworkRom,
    NicConfig, NicModel, OnDiskError, OnReset, PROTOCOL_VERSION, Request, RequestBody, Restore,
    RunState, ServerMessage, SpawnError, VsockConfig, WatchdogAction, spawn,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockname, listen,
    socket,
};

/// Nothing in these tests takes as long, not even interpreted on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Tells whether guests can run here, and says so when not.
pub fn kvm_missing() -> bool {
    let missing = File::open("/dev/kvm").is_err();
    if missing {
        eprintln!("SKIPPED: there is no /dev/kvm on this machine");
    }
    missing
}

/// Length of a [`rom`], which ends at 4 GiB, and is copied to the end of the first MiB.
pub const ROM: usize = 64 << 10;
/// Where a ROM's code is, from its start; in real mode at f000:e000.
pub const ROM_CODE: usize = 0xe000;

/// A ROM with `code`, which is entered in real mode at the reset vector.
pub fn rom(code: &[u8]) -> Vec<u8> {
    const RESET_VECTOR: usize = ROM - 16;
    let mut rom = vec![0xff; ROM];
    rom[ROM_CODE..ROM_CODE + code.len()].copy_from_slice(code);
    // jmp near to the code: the segment still ends at 4 GiB.
    let distance = (ROM_CODE as i32 - (RESET_VECTOR as i32 + 3)) as i16;
    rom[RESET_VECTOR] = 0xe9;
    rom[RESET_VECTOR + 1..RESET_VECTOR + 3].copy_from_slice(&distance.to_le_bytes());
    rom
}

/// What to start.
pub struct Options {
    pub kernel: Vec<u8>,
    /// A ROM and its variables; the kernel is not used then.
    pub firmware: Option<(Vec<u8>, Option<File>)>,
    /// The option ROM for the screen, beside firmware.
    pub display_rom: Option<Vec<u8>>,
    pub network_rom: Option<Vec<u8>>,
    pub initrd: Option<Vec<u8>>,
    pub cmdline: String,
    pub vcpus: u8,
    pub cpu: CpuConfig,
    pub memory: u64,
    /// Disks, and what each is reached by.
    pub disks: Vec<(DiskBus, File)>,
    /// CD-ROM drives with their discs.
    pub cdroms: Vec<Option<File>>,
    /// Taps of network interfaces.
    pub nics: Vec<OwnedFd>,
    /// Of those that are no virtio devices.
    pub cards: Vec<OwnedFd>,
    /// What is to serve sockets between guest and host, and the guest's address.
    pub vsock: Option<(File, u32)>,
    pub jail: bool,
    pub user: Option<u32>,
    pub on_reset: OnReset,
    pub watchdog: Option<WatchdogAction>,
    /// State and memory to begin with.
    pub restore: Option<[File; 2]>,
    /// Where the monitor's log goes, if not to the test's own.
    pub log: Option<File>,
}

impl Options {
    /// A guest of `code`.
    pub fn code(code: &[u8]) -> Self {
        Self::kernel(code::kernel(code))
    }

    /// A guest that starts with this ROM.
    pub fn firmware(rom: Vec<u8>, variables: Option<File>) -> Self {
        Self {
            firmware: Some((rom, variables)),
            ..Self::kernel(Vec::new())
        }
    }

    /// A guest with this kernel file.
    pub fn kernel(kernel: Vec<u8>) -> Self {
        Self {
            kernel,
            firmware: None,
            display_rom: None,
            network_rom: None,
            initrd: None,
            cmdline: String::new(),
            vcpus: 1,
            cpu: CpuConfig::default(),
            memory: 64 << 20,
            disks: Vec::new(),
            cdroms: Vec::new(),
            nics: Vec::new(),
            cards: Vec::new(),
            vsock: None,
            jail: false,
            user: None,
            on_reset: OnReset::Boot,
            watchdog: None,
            restore: None,
            log: None,
        }
    }
}

/// A running guest, killed when dropped.
pub struct Guest {
    address: UnixAddr,
    record: File,
    /// `None` when it ended before it could be told.
    pid: Option<i32>,
    control: Channel,
    next_id: u64,
    /// Notices seen while waiting for replies.
    pub notices: Vec<GuestEvent>,
}

impl Guest {
    /// Starts one; panics when it does not start.
    pub fn start(options: Options) -> Self {
        Self::try_start(options).unwrap_or_else(|error| panic!("guest does not start: {error}"))
    }

    /// Starts one.
    pub fn try_start(options: Options) -> Result<Self, SpawnError> {
        Self::launch(options, |_| {})
    }

    fn launch(mut options: Options, early: impl FnOnce(&Channel)) -> Result<Self, SpawnError> {
        let listener = seqpacket();
        bind(listener.as_raw_fd(), &UnixAddr::new_unnamed()).expect("bind");
        listen(&listener, Backlog::new(1).expect("backlog")).expect("listen");
        let address = getsockname::<UnixAddr>(listener.as_raw_fd()).expect("address");
        let record = tempfile::tempfile().expect("exit record");
        let log = options.log.take();
        let mut fds: Vec<OwnedFd> = Vec::new();
        let launch = launch(
            options,
            &mut fds,
            listener,
            record.try_clone().expect("clone"),
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_lodge-vmm"));
        command.stdin(Stdio::null());
        if let Some(log) = log {
            command.stderr(log);
        }
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        // Before the guest can end.
        let control = join(&address);
        early(&control);
        spawn(command, &launch, &borrowed, LIMIT)?;
        drop(fds);
        Ok(Self {
            pid: try_join(&address).map(|channel| peer(&channel)),
            control,
            address,
            record,
            next_id: 1,
            notices: Vec::new(),
        })
    }

    /// Another manager's connection.
    pub fn connect(&self) -> Channel {
        join(&self.address)
    }

    /// The first manager's connection.
    pub fn control(&self) -> &Channel {
        &self.control
    }

    /// Process id of the monitor, from the peer credentials of its control socket.
    pub fn pid(&self) -> i32 {
        self.pid.expect("the guest has ended")
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, body: RequestBody) -> Answer {
        self.ask_with(body, &[])
    }

    /// Asks something that takes descriptors.
    pub fn ask_with(&mut self, body: RequestBody, fds: &[BorrowedFd<'_>]) -> Answer {
        let id = self.next_id;
        self.next_id += 1;
        self.control.send(&Request { id, body }, fds).expect("send");
        loop {
            wait_readable(&self.control, Instant::now() + LIMIT);
            let Ok((message, _)) = self.control.receive() else {
                panic!("the monitor ended: {:?}", self.last_words());
            };
            match message {
                ServerMessage::Reply(reply) => {
                    assert_eq!(reply.id, id);
                    return reply.answer;
                }
                ServerMessage::Notice(notice) => self.notices.push(notice.event),
            }
        }
    }

    /// The next event after `Subscribe`.
    pub fn next_event(&self) -> GuestEvent {
        match receive(&self.control) {
            ServerMessage::Notice(notice) => notice.event,
            ServerMessage::Reply(reply) => panic!("unexpected {reply:?}"),
        }
    }

    /// Waits for an event after `Subscribe`.
    pub fn wait_for(&mut self, event: &GuestEvent) {
        while !self.notices.contains(event) {
            let next = self.next_event();
            self.notices.push(next);
        }
    }

    /// Its condition.
    pub fn status(&mut self) -> GuestStatus {
        match self.ask(RequestBody::Status) {
            Answer::Status(status) => *status,
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Whether its vCPUs run.
    pub fn state(&mut self) -> RunState {
        self.status().state
    }

    /// Attaches to its serial console.
    pub fn console(&mut self, scrollback: u32) -> Console {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        let attach = RequestBody::AttachConsole {
            port: ConsolePort::Com1,
            scrollback,
        };
        assert_eq!(self.ask_with(attach, &[theirs.as_fd()]), Answer::Done);
        Console {
            socket: ours,
            seen: Vec::new(),
        }
    }

    /// Waits until it prints `text` on its serial port.
    pub fn prints(&mut self, text: &str) {
        self.console(u32::MAX).expect(text);
    }

    /// Asks for its console before it starts, so that nothing is missed.
    fn attach_early(control: &Channel) -> Console {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        let body = RequestBody::AttachConsole {
            port: ConsolePort::Com1,
            scrollback: u32::MAX,
        };
        control
            .send(&Request { id: 0, body }, &[theirs.as_fd()])
            .expect("send");
        Console {
            socket: ours,
            seen: Vec::new(),
        }
    }

    /// Starts a guest that may be at its end at once, attached to its console.
    pub fn start_with_console(options: Options) -> (Self, Console) {
        let mut console = None;
        let attach = |control: &Channel| console = Some(Self::attach_early(control));
        let guest = Self::launch(options, attach).expect("guest does not start");
        (guest, console.expect("attached"))
    }

    /// Waits for its end and returns why it ended.
    pub fn end(mut self) -> ExitRecord {
        wait_closed(&self.control);
        self.pid = None;
        self.record()
    }

    /// What the exit record says now.
    pub fn record(&self) -> ExitRecord {
        self.last_words().expect("the monitor crashed")
    }

    /// What the exit record says, if anything.
    pub fn last_words(&self) -> Option<ExitRecord> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; 64 << 10];
        let length = self.record.read_at(&mut bytes, 0).expect("exit record");
        (length > 0).then(|| serde_json::from_slice(&bytes[..length]).expect("exit record"))
    }

    /// Ends it.
    pub fn kill(mut self) {
        assert_eq!(self.ask(RequestBody::Kill), Answer::Done);
        assert_eq!(self.end().reason, ExitReason::Killed);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // A failed test leaves no monitor behind.
        if let Some(pid) = self.pid {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}

/// Waits until the monitor closes its end.
pub fn wait_closed(channel: &Channel) {
    let deadline = Instant::now() + LIMIT;
    loop {
        wait_readable(channel, deadline);
        if channel.receive::<ServerMessage>().is_err() {
            return;
        }
    }
}

/// Receives one message, or panics after [`LIMIT`].
pub fn receive(channel: &Channel) -> ServerMessage {
    wait_readable(channel, Instant::now() + LIMIT);
    channel.receive().expect("message").0
}

fn wait_readable(fd: impl AsFd, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).expect("timeout");
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    assert_ne!(poll(&mut fds, timeout), Ok(0), "nothing came in time");
}

/// One end of a console.
pub struct Console {
    socket: UnixStream,
    seen: Vec<u8>,
}

impl Console {
    /// Reads until `text` has been printed.
    pub fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        let mut buffer = [0; 4096];
        while !self.text().contains(text) {
            wait_readable(&self.socket, deadline);
            let count = self.socket.read(&mut buffer).expect("console");
            assert_ne!(count, 0, "console ends after {:?}", self.text());
            self.seen.extend_from_slice(&buffer[..count]);
        }
    }

    /// Everything read so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// The bare socket.
    pub fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// Types.
    pub fn type_in(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("console");
    }
}

fn launch(options: Options, fds: &mut Vec<OwnedFd>, listener: OwnedFd, record: File) -> Launch {
    let mut add = |fd: OwnedFd| {
        fds.push(fd);
        FdIndex(fds.len() as u16 - 1)
    };
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let disks = options
        .disks
        .into_iter()
        .enumerate()
        .map(|(slot, (bus, file))| DiskConfig {
            file: add(file.into()),
            bus,
            read_only: false,
            serial: format!("disk{slot}"),
            limits: DiskLimits::default(),
            on_error: OnDiskError::default(),
        });
    let disks = disks.collect();
    let cdroms = options.cdroms.into_iter().map(|disc| CdromConfig {
        disc: disc.map(|file| add(file.into())),
    });
    let cdroms = cdroms.collect();
    let virtio = options.nics.into_iter().map(|tap| (NicModel::Virtio, tap));
    let cards = options.cards.into_iter().map(|tap| (NicModel::E1000e, tap));
    let nics = virtio
        .chain(cards)
        .zip(1..)
        .map(|((model, tap), last)| NicConfig {
            model,
            tap: add(tap),
            vhost: None,
            further_pairs: Vec::new(),
            mac: [2, 0, 0, 0, 0, last],
            mtu: 1500,
            link_up: true,
        });
    let nics = nics.collect();
    let vsock = options.vsock.map(|(file, cid)| VsockConfig {
        cid,
        vhost: add(file.into()),
    });
    let boot = match options.firmware {
        Some((rom, variables)) => Boot::Firmware {
            code: add(file_of(&rom)),
            variables: variables.map(|file| add(file.into())),
            order: Vec::new(),
            display_rom: options.display_rom.map(|rom| add(file_of(&rom))),
            network_roms: options
                .network_rom
                .map(|rom| NetworkRom {
                    model: NicModel::Virtio,
                    rom: add(file_of(&rom)),
                })
                .into_iter()
                .collect(),
        },
        None => Boot::Direct {
            kernel: add(file_of(&options.kernel)),
            initrd: options.initrd.map(|initrd| add(file_of(&initrd))),
            cmdline: options.cmdline,
        },
    };
    let restore = options.restore.map(|[state, memory]| Restore {
        state: add(state.into()),
        memory: add(memory.into()),
    });
    Launch {
        version: PROTOCOL_VERSION,
        guest: GuestConfig {
            id: uuid::Uuid::from_u128(7),
            name: "test".to_owned(),
            vcpus: options.vcpus,
            cpu: options.cpu,
            memory: options.memory,
            boot,
            disks,
            cdroms,
            nics,
            vsock,
            on_reset: options.on_reset,
            watchdog: options.watchdog,
        },
        kvm: add(kvm.expect("/dev/kvm").into()),
        control: add(listener),
        exit_record: add(record.into()),
        restore,
        uid_gid: options.user.map(|user| (user, user)),
        jail: options.jail,
    }
}

fn file_of(content: &[u8]) -> OwnedFd {
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(content).expect("write");
    file.into()
}

fn seqpacket() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("socket")
}

fn join(address: &UnixAddr) -> Channel {
    try_join(address).expect("control socket")
}

fn try_join(address: &UnixAddr) -> Option<Channel> {
    let socket = seqpacket();
    connect(socket.as_raw_fd(), address).ok()?;
    Some(Channel::new(socket))
}

fn peer(channel: &Channel) -> i32 {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    getsockopt(channel, PeerCredentials)
        .expect("credentials")
        .pid()
}
