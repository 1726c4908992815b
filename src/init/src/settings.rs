//! Kernel settings, limits, the host's name and the loopback link.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::sys::resource::{Resource, setrlimit};

/// Settings under `/proc/sys`, and why.
const SYSCTL: &[(&str, &str)] = &[
    // PID 1 would otherwise be cut off after ten lines.
    ("kernel/printk_devkmsg", "on"),
    // A host that crashed comes back by itself.
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    // Addresses in the kernel's log help attackers.
    ("kernel/kptr_restrict", "1"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/yama/ptrace_scope", "2"),
    // Sync, remount read-only and restart: the last resort at the keyboard.
    ("kernel/sysrq", "176"),
    // Guests' memory is reserved generously and touched sparsely.
    ("vm/overcommit_memory", "1"),
    ("vm/max_map_count", "1048576"),
    // Without swap space there is little to gain by keeping dirty pages for long.
    ("vm/dirty_background_bytes", "67108864"),
    ("vm/dirty_bytes", "268435456"),
    ("fs/file-max", "4194304"),
    ("fs/nr_open", "1048576"),
    ("fs/inotify/max_user_instances", "1024"),
    ("fs/aio-max-nr", "1048576"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_regular", "2"),
    ("net/core/somaxconn", "4096"),
    ("net/ipv4/tcp_syncookies", "1"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    // A host with several links answers for an address only on the link that has it.
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
];

/// Descriptors one process may have: the manager holds several for each guest.
const NOFILE: u64 = 1_048_576;

/// The console shows what is more urgent than this: warnings.
pub(crate) const CONSOLE_WARNINGS: u8 = 5;
/// Notices too, which our own information is.
pub(crate) const CONSOLE_BOOT: u8 = 6;
/// While programs have the consoles: only errors.
pub(crate) const CONSOLE_QUIET: u8 = 4;

/// Applies settings and limits. A kernel without one of them goes without.
pub(crate) fn apply() {
    for (name, value) in SYSCTL {
        if let Err(error) = set(name, value) {
            tracing::debug!("sysctl {name}: {error}");
        }
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, NOFILE, NOFILE) {
        tracing::debug!("limit of open files: {error}");
    }
    // Guests' memory and rings may be locked.
    if let Err(error) = setrlimit(
        Resource::RLIMIT_MEMLOCK,
        libc::RLIM_INFINITY,
        libc::RLIM_INFINITY,
    ) {
        tracing::debug!("limit of locked memory: {error}");
    }
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if let Err(error) = loopback_up() {
        tracing::warn!("loopback link: {error}");
    }
}

/// Names the program the kernel calls when it wants a module: ourselves under another name.
pub(crate) fn module_requests_to(path: &str) {
    if let Err(error) = set("kernel/modprobe", path) {
        tracing::warn!("the kernel cannot ask for modules: {error}");
    }
}

/// Sets which kernel messages the consoles show: those more urgent than `level`.
pub(crate) fn console_level(level: u8) {
    if let Err(error) = set("kernel/printk", &level.to_string()) {
        tracing::debug!("console level: {error}");
    }
}

/// The host's name.
pub(crate) fn hostname(name: &str) {
    if let Err(error) = lodge_host::hostname::set(name) {
        tracing::warn!("host name {name}: {error}");
    }
}

fn set(name: &str, value: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/{name}"), value)
}

/// The kernel gives the link its addresses when it comes up.
fn loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed();
    }
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(up).map_err(io::Error::other)?;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which `request` is, and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
