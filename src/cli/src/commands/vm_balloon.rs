//! `lodge vm balloon`, and what `lodge vm show` says about a guest's memory.

use http::Method;
use lodge_api::Size;
use lodge_api::vm::{Vm, VmBalloonTarget};
use lodge_client::ClientError;

use super::path;
use crate::context::Context;
use crate::output;
use crate::target::Target;

pub(super) async fn set(context: &Context, target: &Target, size: Size) -> Result<(), ClientError> {
    let client = context.client(target.remote.as_deref())?;
    let url = format!("{}:balloon", path("vms", &target.name));
    let body = VmBalloonTarget { target: size };
    let vm: Vm = client.send(Method::POST, &url, &body, None).await?;
    output::done(
        context.format,
        &format!("VM {} is asked to keep {size} of its memory", vm.spec.name),
    );
    Ok(())
}

/// What a running guest keeps of its memory, and how it sees that.
pub(super) fn rows(vm: &Vm) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(balloon) = vm.status.balloon {
        let kept = format!("{}, {} kept", balloon.target, balloon.actual);
        rows.push(("Memory target", kept));
    }
    if let Some(memory) = vm.status.guest_memory {
        let parts = [
            ("free", memory.free),
            ("available", memory.available),
            ("in caches", memory.caches),
            ("in all", memory.total),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter_map(|(what, size)| Some(format!("{} {what}", size?)))
            .collect();
        if !parts.is_empty() {
            rows.push(("Guest's memory", parts.join(", ")));
        }
    }
    rows
}
