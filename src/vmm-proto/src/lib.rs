//! The language between `lodge serve` (the manager) and `lodge vmm` (one guest's monitor).
//!
//! Two conversations use it:
//!
//! * **birth**: over the socket pair the monitor inherits as file descriptor
//!   [`BIRTH_FD`], the manager sends one [`Launch`] with every descriptor the
//!   guest may ever use, and the monitor answers [`LaunchReply`];
//! * **control**: on the listening socket handed over at birth, any number of
//!   later managers connect, send [`Request`]s and receive [`Reply`]s and
//!   [`Notice`]s.
//!
//! Messages are JSON so that either side can be a release older than the other:
//! unknown fields are ignored, missing ones have defaults. [`Channel`] carries
//! them, with their descriptors, over `SOCK_SEQPACKET`; the message types do
//! not know their transport, so the same ones will travel over TCP between hosts.

mod channel;
mod config;
mod control;
mod cpu;
mod disk_error;
mod display;
mod exit;
mod limits;
mod plug;
mod spawn;

pub use channel::{Channel, ChannelError, MAX_FDS, MAX_MESSAGE};
pub use config::{
    Boot, BootDevice, CdromConfig, ConfigError, DiskBus, DiskConfig, FdIndex, GuestConfig, Launch,
    LaunchError, LaunchReply, MAX_VCPUS, MIN_MEMORY, NetworkRom, NicConfig, NicModel, OnReset,
    QueuePair, Restore, VsockConfig, WatchdogAction,
};
pub use control::{
    Answer, BALLOON_LEAVES, ConsolePort, ErrorCode, GuestEvent, GuestStatus, MAX_PIECE,
    MemoryStatistics, Notice, Reply, Request, RequestBody, RunState, ServerMessage,
};
pub use cpu::{CpuConfig, CpuFeature, CpuModel, CpuTopology, CpuidRegister, FEATURES};
pub use disk_error::{DiskProblem, DiskStuck, OnDiskError};
pub use display::{
    KeyEvent, MAX_KEYS, MAX_SCREEN, MAX_TEXT, MAX_VIEWER_NAME, PointerButton, typeable,
};
pub use exit::{ExitReason, ExitRecord};
pub use limits::{DiskLimits, Rate};
pub use plug::{DeviceKey, NewDevice, PluggedDevices};
pub use spawn::{SpawnError, spawn};

/// Version of this protocol. A peer accepts its own version and the one before.
pub const PROTOCOL_VERSION: u32 = 2;

/// The file descriptor on which a new monitor finds its birth socket.
pub const BIRTH_FD: i32 = 3;
