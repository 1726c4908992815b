//! The power button: input devices with a power key, as the ACPI driver and some keyboards have.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `linux/input-event-codes.h`.
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// Bytes of the bitmap of keys.
const KEY_BYTES: usize = 0x300 / 8;
/// Bytes of `struct input_event` on 64-bit machines: time, type, code, value.
const EVENT_LEN: usize = 24;
/// Many machines announce one press by two devices.
const BOUNCE: Duration = Duration::from_millis(700);

nix::ioctl_read_buf!(
    /// `EVIOCGBIT(EV_KEY)`: which keys a device has.
    key_bits,
    b'E',
    0x20 + EV_KEY,
    u8
);

/// Every power button there is.
#[derive(Debug, Default)]
pub(crate) struct Buttons {
    devices: HashMap<PathBuf, File>,
    last_press: Option<Instant>,
}

impl Buttons {
    /// Opens buttons that are not open yet, and returns their paths.
    pub(crate) fn rescan(&mut self) -> Vec<PathBuf> {
        let mut added = Vec::new();
        for entry in fs::read_dir("/dev/input").into_iter().flatten().flatten() {
            let path = entry.path();
            let is_event = entry.file_name().to_string_lossy().starts_with("event");
            if !is_event || self.devices.contains_key(&path) {
                continue;
            }
            if let Ok(file) = open(&path)
                && has_power_key(&file)
            {
                self.devices.insert(path.clone(), file);
                added.push(path);
            }
        }
        added
    }

    /// The open device at `path`, to wait for it.
    pub(crate) fn device(&self, path: &Path) -> Option<BorrowedFd<'_>> {
        self.devices.get(path).map(AsFd::as_fd)
    }

    /// Reads what waits at `path`; true for a press that is not the echo of another. A device that is gone is closed.
    pub(crate) fn pressed(&mut self, path: &Path, now: Instant) -> bool {
        let Some(file) = self.devices.get_mut(path) else {
            return false;
        };
        match read_presses(file) {
            Ok(false) => false,
            Ok(true) => {
                let echo = self
                    .last_press
                    .is_some_and(|last| now.saturating_duration_since(last) < BOUNCE);
                self.last_press = Some(now);
                !echo
            }
            Err(_) => {
                self.devices.remove(path);
                false
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

fn has_power_key(file: &File) -> bool {
    let mut bits = [0u8; KEY_BYTES];
    // SAFETY: the kernel writes at most as many bytes as the request's number says, which is the buffer's length.
    let result = unsafe { key_bits(file.as_raw_fd(), &mut bits) };
    result.is_ok() && bits[usize::from(KEY_POWER / 8)] & (1 << (KEY_POWER % 8)) != 0
}

/// Whether the power key went down in one of the waiting events.
fn read_presses(file: &mut File) -> io::Result<bool> {
    let mut pressed = false;
    let mut buffer = [0; EVENT_LEN * 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(len) => pressed |= buffer[..len].chunks_exact(EVENT_LEN).any(is_press),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(pressed),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Value 1 is down, 0 up, 2 held.
fn is_press(event: &[u8]) -> bool {
    let number = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    number(16) == EV_KEY && number(18) == KEY_POWER && value == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_power_key_going_down() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = [0u8; EVENT_LEN];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20..24].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        assert!(is_press(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_press(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!is_press(&event(EV_KEY, KEY_POWER, 2)));
        assert!(!is_press(&event(EV_KEY, 30, 1)));
        assert!(!is_press(&event(0, KEY_POWER, 1)));
    }
}
