//! The control conversation of a running monitor.

use serde::{Deserialize, Serialize};

use crate::{
    DeviceKey, DiskLimits, DiskStuck, KeyEvent, NewDevice, OnDiskError, PluggedDevices,
    PointerButton, WatchdogAction,
};

/// What a balloon leaves its guest at least, in bytes: a kernel with less ends programs, or itself.
pub const BALLOON_LEAVES: u64 = 64 << 20;

/// Longest piece of memory that is saved in one go, in bytes.
pub const MAX_PIECE: u64 = 64 << 20;

/// One request of the manager. Answered by exactly one [`Reply`] with the same `id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the sender; unique among its unanswered requests.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub body: RequestBody,
}

/// What the manager can ask of a running guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RequestBody {
    /// Report [`GuestStatus`].
    Status,
    /// Send every later [`Notice`] on this connection.
    Subscribe,
    /// Stop all vCPUs and quiesce devices. Idempotent.
    Pause,
    /// Pause for as long as this connection lives: should the asker die in the middle of saving the guest, the guest
    /// runs on. One that is paused already stays so. Ended by [`RequestBody::Resume`].
    Hold,
    /// Continue after [`RequestBody::Pause`] or [`RequestBody::Hold`]. Idempotent.
    Resume,
    /// Hardware reset: the guest boots again, in place. Allowed while paused (it stays paused).
    Reset,
    /// Press and release the ACPI power button.
    PowerButton,
    /// Flush the disks, end the guest at once and exit.
    Kill,
    /// Put the disc whose image is the one descriptor that travels with this message into
    /// a CD-ROM drive, or take the disc out when none does. A disc that is in is replaced.
    ChangeDisc {
        /// Which drive, from 0.
        drive: u8,
        /// Take the disc out even if the guest has locked it in.
        #[serde(default)]
        force: bool,
    },
    /// Plug a device into the guest, which may run or be paused. Its descriptors travel with this message. Answered when it is
    /// there; when the guest takes notice is up to the guest. Only virtio devices are plugged in, each known by a key that no other
    /// device of the guest has. [`ErrorCode::Busy`] when there is no room for it.
    Attach {
        /// The device.
        device: NewDevice,
    },
    /// Ask the guest to give a virtio device up. Answered when it is asked; [`GuestEvent::Detached`] tells when the device is out. The
    /// wish is withdrawn when this connection ends, or by [`RequestBody::Keep`]; a reset of the guest fulfils it.
    Detach {
        /// The device.
        device: DeviceKey,
        /// Take it out at once. The guest hears of it afterwards.
        #[serde(default)]
        force: bool,
    },
    /// Withdraw [`RequestBody::Detach`]: the guest goes on with the device. [`ErrorCode::WrongState`] when it is out already.
    Keep {
        /// The device.
        device: DeviceKey,
    },
    /// Look at the size of a disk again, whose file was made longer, and tell the guest if it is another one. A driver of a disk on SATA
    /// cannot be told.
    DiskGrew {
        /// The disk's serial number.
        serial: String,
    },
    /// Hold a disk to these limits from now on, on whatever bus it is. They stay over resets.
    LimitDisk {
        /// The disk's serial number.
        serial: String,
        /// The limits.
        limits: DiskLimits,
    },
    /// Deal so with a disk's requests that fail from now on, on whatever bus it is. It stays over resets.
    DiskErrors {
        /// The disk's serial number.
        serial: String,
        /// The way.
        on_error: OnDiskError,
    },
    /// Show the guest the link of a network interface up, or down, as if its cable was plugged in or pulled. That no packets pass is
    /// up to whoever has the other end of its tap. It stays over resets.
    SetLink {
        /// The interface's MAC address.
        mac: [u8; 6],
        /// Up.
        up: bool,
    },
    /// Wish for a memory balloon of that size: how much of its memory the guest lends to the host. The
    /// guest follows as far and as fast as it likes. The wish stays over resets of the guest.
    SetBalloon {
        /// Size in bytes: a multiple of 4096, at most the guest's memory less [`BALLOON_LEAVES`].
        bytes: u64,
    },
    /// Write the state of the guest, which must be paused, into the one descriptor that travels with this message: an empty
    /// file. Memory is not part of it, and disks are not.
    SaveState,
    /// Write a piece of the memory of the guest, which must be paused, to its place in the one descriptor that travels with
    /// this message: an empty file at first, as long as the memory. Pages of zeroes stay holes. Answered by
    /// [`Answer::Saved`].
    ///
    /// In pieces, so that the monitor goes on to answer, and the asker can tell how far it is or give up.
    SaveMemory {
        /// Where the piece begins: bytes of memory, low memory first, high memory right behind it.
        offset: u64,
        /// How long it is, at most [`MAX_PIECE`].
        length: u64,
    },
    /// Connect the one descriptor that travels with this message (a
    /// `SOCK_STREAM` socket) to a console: scroll-back first, then live output;
    /// what is written to it becomes guest input.
    AttachConsole {
        /// Which console.
        port: ConsolePort,
        /// How much history to send first, in bytes; capped at what is kept.
        #[serde(default)]
        scrollback: u32,
    },
    /// Connect the one descriptor that travels with this message (a `SOCK_STREAM` socket) to the guest's screen, keyboard and
    /// mouse: the monitor is an RFB server on it (RFC 6143), without security of its own.
    AttachViewer {
        /// What the viewer is told that it sees, at most [`crate::MAX_VIEWER_NAME`] bytes.
        name: String,
    },
    /// Write the picture on the guest's screen into the one descriptor that travels with this message: a file, written
    /// from its start without being cut. Rows from the top, without padding; each pixel 4 bytes, blue, green, red, 0; at
    /// most [`crate::MAX_SCREEN`] bytes. Answered by [`Answer::Screen`], or [`ErrorCode::WrongState`] while there is
    /// no picture.
    Screen,
    /// Press and release keys, at most [`crate::MAX_KEYS`] times. The keyboard holds few: [`Answer::Typed`] tells how many were
    /// taken, and the rest is for the sender to send again a little later. Releases are always taken.
    Keys {
        /// In their order.
        keys: Vec<KeyEvent>,
    },
    /// Move the guest's pointer to a pixel of its screen, and press and release a button there. Answered by
    /// [`Answer::Screen`]: nothing happens where the screen does not reach. [`ErrorCode::WrongState`] while there is no picture,
    /// or the guest has no driver for its tablet.
    Point {
        /// Pixels to the left of it.
        x: u32,
        /// Rows above it.
        y: u32,
        /// The button.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        click: Option<PointerButton>,
    },
    /// Type a text of [`crate::typeable`] characters on the US layout, at most [`crate::MAX_TEXT`]. Answered as
    /// [`RequestBody::Keys`], in whole characters.
    Text {
        /// The text.
        text: String,
    },
}

/// A guest's text consoles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsolePort {
    /// The 16550A at I/O port 0x3f8.
    Com1,
    /// The virtio console.
    Virtio,
}

/// Everything a monitor sends on a control connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The answer to a request.
    Reply(Reply),
    /// Something happened in the guest.
    Notice(Notice),
}

/// The answer to one [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's `id`.
    pub id: u64,
    /// Its outcome.
    #[serde(flatten)]
    pub answer: Answer,
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done,
    /// The state asked for.
    Status(Box<GuestStatus>),
    /// The picture was written, or is of that size.
    Screen {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Typed as far as the keyboard had room.
    Typed {
        /// How many keys or characters were taken, from the first.
        accepted: u32,
    },
    /// The piece of memory was written.
    Saved {
        /// How many bytes of it were not zero.
        written: u64,
    },
    /// Refused or failed; nothing changed.
    Error {
        /// Kind of failure.
        code: ErrorCode,
        /// For a person.
        message: String,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not possible in the guest's present state.
    WrongState,
    /// The message could not be understood.
    BadRequest,
    /// Too many consoles or viewers attached, or connections open.
    Busy,
    /// There is no room left where it was to write.
    NoSpace,
    /// The monitor failed to do it.
    Internal,
}

/// Whether the guest's vCPUs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// vCPUs run.
    Running,
    /// vCPUs are held by [`RequestBody::Pause`].
    Paused,
    /// The monitor is ending.
    Stopping,
}

/// A snapshot of the guest's condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestStatus {
    /// [`crate::PROTOCOL_VERSION`] of the monitor.
    pub version: u32,
    /// Whether vCPUs run.
    pub state: RunState,
    /// Milliseconds since the monitor started the guest.
    pub uptime_ms: u64,
    /// How often the guest has been reset since.
    pub resets: u64,
    /// When the guest's system first said that it has crashed, since its last reset, in milliseconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panicked_at_ms: Option<u64>,
    /// When the guest's watchdog last expired, in milliseconds of Unix time. It stays over resets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_expired_at_ms: Option<u64>,
    /// The disk that the guest was paused for, until it is resumed or reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<DiskStuck>,
    /// CPU time of all vCPU threads, in microseconds.
    #[serde(default)]
    pub vcpu_time_us: u64,
    /// Bytes read from, written to disks, received and sent by NICs (without vhost).
    #[serde(default)]
    pub disk_read_bytes: u64,
    /// See `disk_read_bytes`.
    #[serde(default)]
    pub disk_written_bytes: u64,
    /// Time for which queues of disks left requests where they were because of the disks' limits, in microseconds: the sum of all queues.
    #[serde(default)]
    pub disk_throttled_us: u64,
    /// Size the memory balloon should have, in bytes.
    #[serde(default)]
    pub balloon_target_bytes: u64,
    /// Size it has, as the guest says: any number.
    #[serde(default)]
    pub balloon_actual_bytes: u64,
    /// The devices that can be named by a [`DeviceKey`]; absent from monitors that plug nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<PluggedDevices>,
    /// The guest's view of its memory when it last told; absent while its balloon has no driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStatistics>,
}

/// A guest's memory in its own eyes. Each value is there if the guest gave it; it may be any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStatistics {
    /// Bytes the guest manages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Bytes not used for anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
    /// Bytes that programs could get without swapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// Bytes that hold copies of what is on disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caches: Option<u64>,
    /// Bytes read from swap since the guest booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<u64>,
    /// Bytes written to swap since the guest booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<u64>,
    /// Page faults that waited for a disk, since the guest booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
}

/// An event, in order, on every subscribed connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// What happened.
    pub event: GuestEvent,
}

/// What can happen in a guest without anybody asking.
///
/// The end of the guest is not among them: it is the end of the connection,
/// and the [`crate::ExitRecord`] says why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GuestEvent {
    /// The run state changed.
    State {
        /// The new state.
        state: RunState,
    },
    /// The guest asked for a reset and boots again.
    Reset,
    /// The guest's system says that it has crashed. It runs on, as far as it can. Told once for each kind until the next reset.
    Panicked {
        /// Whether its crash kernel takes over, to write a dump.
        crash_kernel: bool,
    },
    /// The guest's watchdog expired: its system no longer reloads it. What comes of it follows.
    Watchdog {
        /// What comes of it.
        action: WatchdogAction,
    },
    /// A disk holds back requests that the host failed. The guest is paused next; when it is resumed, they are done again.
    DiskStuck(DiskStuck),
    /// A device is out: the guest gave it up after [`RequestBody::Detach`], was reset, or was not asked.
    Detached {
        /// Which one.
        device: DeviceKey,
    },
    /// A device broke off (`DEVICE_NEEDS_RESET`) or a disk reported an error.
    DeviceError {
        /// Which device, e.g. `disk0`.
        device: String,
        /// What happened.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_have_the_documented_form() {
        let request = Request {
            id: 7,
            body: RequestBody::AttachConsole {
                port: ConsolePort::Com1,
                scrollback: 100,
            },
        };
        let text = json!({"id": 7, "type": "attach_console", "port": "com1", "scrollback": 100});
        assert_eq!(serde_json::to_value(&request).unwrap(), text);
        assert_eq!(serde_json::from_value::<Request>(text).unwrap(), request);
    }

    #[test]
    fn requests_of_the_display_have_the_documented_form() {
        let keys = vec![KeyEvent {
            key: 0xd3,
            pressed: true,
        }];
        let text = "ls\n".to_owned();
        for (body, json) in [
            (RequestBody::Screen, json!({"id": 7, "type": "screen"})),
            (
                RequestBody::Keys { keys },
                json!({"id": 7, "type": "keys", "keys": [{"key": 0xd3, "pressed": true}]}),
            ),
            (
                RequestBody::Point {
                    x: 7,
                    y: 8,
                    click: Some(PointerButton::Left),
                },
                json!({"id": 7, "type": "point", "x": 7, "y": 8, "click": "left"}),
            ),
            (
                RequestBody::AttachViewer {
                    name: "web".to_owned(),
                },
                json!({"id": 7, "type": "attach_viewer", "name": "web"}),
            ),
            (
                RequestBody::Text { text },
                json!({"id": 7, "type": "text", "text": "ls\n"}),
            ),
        ] {
            let request = Request { id: 7, body };
            assert_eq!(serde_json::to_value(&request).unwrap(), json);
            assert_eq!(serde_json::from_value::<Request>(json).unwrap(), request);
        }
    }

    #[test]
    fn replies_and_notices_are_told_apart() {
        for message in [
            ServerMessage::Reply(Reply {
                id: 1,
                answer: Answer::Status(Box::new(GuestStatus {
                    version: 1,
                    state: RunState::Paused,
                    uptime_ms: 5,
                    resets: 2,
                    panicked_at_ms: Some(11),
                    watchdog_expired_at_ms: Some(12),
                    stuck: None,
                    vcpu_time_us: 3,
                    disk_read_bytes: 4,
                    disk_written_bytes: 6,
                    disk_throttled_us: 10,
                    balloon_target_bytes: 7,
                    balloon_actual_bytes: 8,
                    devices: Some(PluggedDevices {
                        disks: vec!["d".to_owned()],
                        nics: vec![[2, 0, 0, 0, 0, 1]],
                    }),
                    memory: Some(MemoryStatistics {
                        free: Some(9),
                        ..MemoryStatistics::default()
                    }),
                })),
            }),
            ServerMessage::Reply(Reply {
                id: u64::MAX,
                answer: Answer::Error {
                    code: ErrorCode::Busy,
                    message: "no".to_owned(),
                },
            }),
            ServerMessage::Reply(Reply {
                id: 2,
                answer: Answer::Screen {
                    width: 800,
                    height: 600,
                },
            }),
            ServerMessage::Reply(Reply {
                id: 3,
                answer: Answer::Typed { accepted: 3 },
            }),
            ServerMessage::Notice(Notice {
                event: GuestEvent::State {
                    state: RunState::Running,
                },
            }),
            ServerMessage::Notice(Notice {
                event: GuestEvent::Reset,
            }),
            ServerMessage::Notice(Notice {
                event: GuestEvent::Detached {
                    device: DeviceKey::Nic([2, 0, 0, 0, 0, 1]),
                },
            }),
            ServerMessage::Notice(Notice {
                event: GuestEvent::Panicked { crash_kernel: true },
            }),
            ServerMessage::Notice(Notice {
                event: GuestEvent::Watchdog {
                    action: WatchdogAction::PowerOff,
                },
            }),
        ] {
            let text = serde_json::to_string(&message).unwrap();
            assert_eq!(
                serde_json::from_str::<ServerMessage>(&text).unwrap(),
                message,
                "{text}"
            );
        }
    }

    #[test]
    fn a_peer_of_another_release_is_understood() {
        let newer = json!({"id": 1, "type": "status", "verbosity": "high"});
        assert_eq!(
            serde_json::from_value::<Request>(newer).unwrap().body,
            RequestBody::Status
        );
        let older = json!({"id": 1, "type": "attach_console", "port": "virtio"});
        assert_eq!(
            serde_json::from_value::<Request>(older).unwrap().body,
            RequestBody::AttachConsole {
                port: ConsolePort::Virtio,
                scrollback: 0
            }
        );
    }
}
