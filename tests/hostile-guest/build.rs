//! Compiles the guest: a kernel of its own, without anything of the host's libraries.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=guest");
    let output = env::var("OUT_DIR").expect("OUT_DIR");
    let output = Path::new(&output).join("hostile-guest");
    let status = Command::new(env::var("RUSTC").expect("RUSTC"))
        .args([
            "guest/main.rs",
            "--edition=2024",
            "--crate-name=hostile_guest",
        ])
        .args(["--target=x86_64-unknown-linux-gnu", "-o"])
        .arg(&output)
        .args([
            "-Copt-level=s",
            "-Cpanic=abort",
            "-Cdebuginfo=0",
            "-Cstrip=symbols",
            "-Ccodegen-units=1",
        ])
        // Where KVM interprets its guests it knows few vector instructions. The compiler warns that functions with floating-point
        // arguments could not call each other; there are none.
        .args([
            "-Crelocation-model=static",
            "-Ctarget-feature=+crt-static,-sse,-sse2",
            "-Awarnings",
        ])
        // Interrupts that cannot be masked come on the stack.
        .args(["-Cno-redzone=yes"])
        .args([
            "-Clink-arg=-nostdlib",
            "-Clink-arg=-static",
            "-Clink-arg=-no-pie",
        ])
        .args([
            "-Clink-arg=-Wl,--build-id=none,-z,norelro,-z,noexecstack",
            "-Clink-arg=-Wl,-T,guest/layout.ld",
        ])
        .status()
        .expect("rustc");
    assert!(status.success(), "the guest does not compile");
}
