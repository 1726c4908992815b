//! The consoles: the screen and serial ports, and which of the kernel's messages they show.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::settings;

/// Where people sit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consoles {
    /// The first virtual terminal, when the kernel has any.
    pub screen: Option<PathBuf>,
    /// Serial consoles named on the kernel's command line.
    pub serial: Vec<PathBuf>,
}

impl Consoles {
    /// Looks which there are.
    pub fn find() -> Self {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let screen = Path::new("/sys/class/tty/tty1").exists();
        Self::choose(&active, screen)
    }

    /// `active` is the kernel's list of consoles; virtual terminals are in it as `tty0`.
    fn choose(active: &str, screen: bool) -> Self {
        let serial = active.split_whitespace().filter(|name| {
            let number = name.strip_prefix("tty").unwrap_or(name);
            !number.bytes().all(|b| b.is_ascii_digit())
        });
        Self {
            screen: screen.then(|| PathBuf::from("/dev/tty1")),
            serial: serial.map(|name| Path::new("/dev").join(name)).collect(),
        }
    }
}

/// Connects this process's input, output and errors to the console.
pub(crate) fn attach() {
    let Ok(console) = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open("/dev/console")
    else {
        return;
    };
    // A panic's message goes to standard error; losing it is all that a failure here means.
    let _ = nix::unistd::dup2_stdin(&console);
    let _ = nix::unistd::dup2_stdout(&console);
    let _ = nix::unistd::dup2_stderr(&console);
}

/// The virtual terminal that shows the kernel's messages while a program has the first one.
const LOG_TERMINAL: u8 = 2;

/// Leaves the consoles to programs: the screen's kernel messages move to another virtual terminal, and serial ports show
/// only errors. Keep what is returned: the terminal is there as long as it is open.
pub(crate) fn hand_over() -> Option<File> {
    settings::console_level(settings::CONSOLE_QUIET);
    let terminal = File::open(format!("/dev/tty{LOG_TERMINAL}")).ok()?;
    match redirect(LOG_TERMINAL) {
        Ok(()) => Some(terminal),
        Err(error) => {
            tracing::debug!("kernel messages stay on the first terminal: {error}");
            None
        }
    }
}

/// Takes the consoles back, so that everything PID 1 says is seen where the person looks.
pub(crate) fn take_back() {
    let _ = redirect(0);
    settings::console_level(settings::CONSOLE_BOOT);
}

/// ioctl_console(2), subcode 11: kernel messages go to terminal `number`; zero is the one that is shown.
fn redirect(number: u8) -> io::Result<()> {
    const TIOCL_SETKMSGREDIRECT: u8 = 11;
    let terminal = File::open("/dev/tty0")?;
    let argument = [TIOCL_SETKMSGREDIRECT, number];
    // SAFETY: this subcode reads two bytes, which `argument` has.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCLINUX, argument.as_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screen_and_serial() {
        let consoles = Consoles::choose("tty0 ttyS0 hvc0\n", true);
        assert_eq!(consoles.screen.as_deref(), Some(Path::new("/dev/tty1")));
        assert_eq!(
            consoles.serial,
            [Path::new("/dev/ttyS0"), Path::new("/dev/hvc0")]
        );
        assert_eq!(Consoles::choose("", false), Consoles::default());
    }
}
