//! What tests of guests do over and over.

use lodge_api::image::ImageKind;
use lodge_api::vm::{ConsoleParams, VmStopOptions};
use tokio::io::AsyncReadExt;

use crate::code;
use crate::support::{Host, admin, spec, within};

pub async fn host_with(vm: &str, code: &[u8]) -> Host {
    let host = Host::new().await;
    host.upload("kernel", ImageKind::Kernel, &code::kernel(code))
        .await;
    host.manager.vm_create(&admin(), spec(vm)).await.unwrap();
    host
}

pub async fn attach(host: &Host, vm: &str) -> tokio::net::UnixStream {
    let caller = admin();
    let console = host
        .manager
        .vm_console(&caller, vm, ConsoleParams::default());
    console.await.unwrap()
}

/// Reads the console until `wanted` has come.
pub async fn reads(host: &Host, vm: &str, wanted: &str) {
    let mut console = attach(host, vm).await;
    let mut text = Vec::new();
    within(async {
        while !String::from_utf8_lossy(&text).contains(wanted) {
            assert!(console.read_buf(&mut text).await.unwrap() > 0, "{text:?}");
        }
    })
    .await;
}

pub fn stop(seconds: u32, force: bool) -> VmStopOptions {
    VmStopOptions {
        timeout_s: Some(seconds),
        force,
    }
}

pub fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}
