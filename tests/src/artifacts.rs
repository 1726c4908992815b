//! What `scripts/build` and `guest-images/build` leave in `build/`.

use std::path::{Path, PathBuf};

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests live below the root")
        .to_owned()
}

/// A file in `build/`.
///
/// # Panics
/// When it does not exist: these tests never pass by skipping.
pub fn built(name: &str) -> PathBuf {
    let path = root().join("build").join(name);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test, which builds it, instead of cargo test",
        path.display()
    );
    path
}

/// The program under test.
pub fn program() -> PathBuf {
    built("lodge")
}

/// The ISO under test.
pub fn iso() -> PathBuf {
    built("lodge.iso")
}

/// Debian's cloud kernel, unchanged.
pub fn guest_kernel() -> PathBuf {
    built("guests/vmlinuz")
}

/// The same kernel, unpacked.
pub fn guest_kernel_elf() -> PathBuf {
    built("guests/vmlinux")
}

/// The small test guest.
pub fn guest_initrd() -> PathBuf {
    built("guests/initrd.cpio.zst")
}

/// A disc of that name: `grub-rescue`, `ipxe`, `memtest`.
pub fn disc(name: &str) -> PathBuf {
    built(&format!("guests/{name}.iso"))
}

/// What iPXE begins with, alone.
pub fn network_script() -> PathBuf {
    root().join("guest-images/network")
}

/// The same script, with kernel and initrd of the Debian installer beside it.
///
/// # Panics
/// When it has not been made.
pub fn network_installer() -> PathBuf {
    let path = root().join("build/guests/network");
    assert!(
        path.exists(),
        "{} is missing: run guest-images/build network",
        path.display()
    );
    path
}

/// A Debian disk that starts by itself.
pub fn guest_debian() -> PathBuf {
    built("guests/debian.qcow2")
}
