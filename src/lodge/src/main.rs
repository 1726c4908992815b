//! `lodge`: one program, many roles. Looks at how it was called and becomes one of them.

use std::ffi::OsString;
use std::path::Path;
use std::process::{self, ExitCode};

/// What this process is to be.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// PID 1 of the appliance.
    Init,
    /// Loads a kernel module; the kernel calls it.
    Modprobe,
    /// The manager.
    Serve,
    /// The monitor of one guest.
    Vmm,
    /// The full-screen console.
    Tui,
    /// The command line: everything else.
    Client,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // No iterators: a generic function would be compiled here, with all that it calls, after everything else.
    let after = |count: usize| arguments.iter().skip(count).cloned().collect();
    match role(process::id(), &arguments) {
        Role::Init if process::id() == 1 => lodge_init::main(),
        Role::Init => {
            eprintln!(
                "lodge init: only the kernel starts this, as process 1 of the appliance; on another system run `lodge serve`"
            );
            ExitCode::from(2)
        }
        Role::Modprobe => lodge_init::modprobe(after(1)),
        Role::Serve => lodge_server::serve_main(after(2)),
        Role::Vmm => lodge_vmm::main_from_birth_socket(),
        Role::Tui => lodge_tui::main(after(2)),
        Role::Client => lodge_cli::main(arguments),
    }
}

/// The kernel calls `/init` with whatever words of its command line it did not know itself; in a container the client may
/// be process 1 too, under its own name.
fn role(pid: u32, arguments: &[OsString]) -> Role {
    let called = arguments
        .first()
        .and_then(|name| Path::new(name).file_name());
    let called = called.and_then(|name| name.to_str()).unwrap_or_default();
    let first = arguments.get(1).and_then(|word| word.to_str());
    match (called, first) {
        ("modprobe", _) => Role::Modprobe,
        ("init", _) if pid == 1 => Role::Init,
        (_, Some("init")) => Role::Init,
        (_, Some("serve")) => Role::Serve,
        (_, Some("vmm")) => Role::Vmm,
        (_, Some("tui")) => Role::Tui,
        _ => Role::Client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(pid: u32, words: &[&str]) -> Role {
        let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        role(pid, &arguments)
    }

    #[test]
    fn roles() {
        assert_eq!(called(1, &["/init"]), Role::Init);
        assert_eq!(called(1, &["/init", "serve"]), Role::Init);
        assert_eq!(called(1, &["/init", "modprobe"]), Role::Init);
        assert_eq!(
            called(9, &["/sbin/modprobe", "-q", "--", "fs-xfs"]),
            Role::Modprobe
        );
        assert_eq!(called(9, &["lodge", "serve", "--appliance"]), Role::Serve);
        assert_eq!(called(9, &["/proc/self/exe", "vmm"]), Role::Vmm);
        assert_eq!(called(9, &["lodge", "tui", "lab:"]), Role::Tui);
        assert_eq!(called(9, &["lodge", "init"]), Role::Init);
        // In a container.
        assert_eq!(called(1, &["lodge", "vm", "list"]), Role::Client);
        assert_eq!(called(1, &["/usr/bin/lodge", "serve"]), Role::Serve);
        assert_eq!(called(9, &["lodge"]), Role::Client);
        assert_eq!(called(9, &[]), Role::Client);
    }
}
