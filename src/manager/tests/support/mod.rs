//! A manager in temporary directories.
#![allow(dead_code, reason = "each test file uses a part")]

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use lodge_api::disk::DiskCreate;
use lodge_api::event::{Event, EventBody, EventParams};
use lodge_api::image::{Image, ImageKind, ImageUpload};
use lodge_api::operation::{Operation, OperationStatus};
use lodge_api::page::ListParams;
use lodge_api::privilege::Role;
use lodge_api::vm::{Vm, VmAction, VmSpec, VmState, VmStopOptions};
use lodge_api::{Name, Problem};
use lodge_host::process::PidFd;
use lodge_manager::{Caller, LogRing, Manager, ManagerConfig, Subscription};

/// Nothing in these tests takes as long, not even on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A manager and what it lives in.
pub struct Host {
    pub manager: Manager,
    pub config: ManagerConfig,
    pub directory: tempfile::TempDir,
}

pub fn config(directory: &Path) -> ManagerConfig {
    ManagerConfig {
        vmm_exe: std::env::current_exe().unwrap(),
        jail: nix::unistd::geteuid().is_root(),
        max_image: 64 << 20,
        ..ManagerConfig::hosted(directory.join("data"), directory.join("run"))
    }
}

impl Host {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let manager = open(&config).await;
        Self {
            manager,
            config,
            directory,
        }
    }

    /// Ends the manager and starts another in its place.
    pub async fn restart(&mut self) {
        self.manager.close().await;
        self.manager = open(&self.config).await;
    }

    pub async fn upload(&self, name: &str, kind: ImageKind, content: &[u8]) -> Image {
        upload(&self.manager, name, kind, content).await.unwrap()
    }

    /// Carries an action out and waits for its end.
    pub async fn act(&self, vm: &str, action: VmAction) -> Operation {
        act(&self.manager, vm, action, VmStopOptions::default()).await
    }

    /// Carries an action out which must succeed.
    pub async fn done(&self, vm: &str, action: VmAction) {
        let operation = self.act(vm, action).await;
        assert_eq!(
            operation.status,
            OperationStatus::Succeeded,
            "{operation:?}"
        );
    }

    pub fn state(&self, vm: &str) -> VmState {
        self.manager.vm_view(vm).unwrap().status.state
    }

    /// Files of a datastore.
    pub fn files(&self, datastore: &str) -> usize {
        let folder = self.config.data_dir.join(datastore);
        std::fs::read_dir(folder).unwrap().count()
    }

    pub fn vm(&self, vm: &str) -> Vm {
        self.manager.vm_view(vm).unwrap()
    }

    pub fn listen(&self) -> Subscription {
        self.manager
            .events_since(&EventParams::default())
            .unwrap()
            .1
    }
}

impl Drop for Host {
    /// A test that failed must not leave guests running.
    fn drop(&mut self) {
        let vms = self.manager.vm_list(&ListParams::default());
        for vm in vms.into_iter().flat_map(|page| page.items) {
            let pid = vm.status.pid.and_then(|pid| i32::try_from(pid).ok());
            if let Some(process) = pid.and_then(|pid| PidFd::open(pid).ok()) {
                process.kill().expect("kill");
            }
        }
    }
}

/// That of the appliance, whose network stays as it is. Without groups for guests: the appliance has them to itself and clears
/// empty ones away, which here may be those of guests that tests in other processes are about to start.
pub fn appliance(directory: &Path) -> ManagerConfig {
    ManagerConfig {
        appliance: true,
        manage_network: false,
        jail: false,
        ..config(directory)
    }
}

pub async fn open(config: &ManagerConfig) -> Manager {
    within(Manager::open(config.clone(), LogRing::new()))
        .await
        .unwrap()
}

pub fn admin() -> Caller {
    Caller {
        user: name("admin"),
        role: Role::Administrator,
        address: "192.0.2.1".to_owned(),
    }
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Fails a test that hangs.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.expect("in time")
}

pub async fn upload(
    manager: &Manager,
    image: &str,
    kind: ImageKind,
    content: &[u8],
) -> Result<Image, Problem> {
    let upload = ImageUpload {
        name: name(image),
        kind,
        format: None,
        sha256: None,
    };
    let length = Some(content.len() as u64);
    within(manager.image_upload(&admin(), upload, length, pieces(content))).await
}

/// The body of an upload.
pub fn pieces(content: &[u8]) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let pieces: Vec<_> = content
        .chunks(10_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    stream::iter(pieces)
}

pub async fn act(
    manager: &Manager,
    vm: &str,
    action: VmAction,
    options: VmStopOptions,
) -> Operation {
    let operation = manager
        .vm_action(&admin(), vm, action, options)
        .await
        .unwrap();
    wait(manager, &operation).await
}

pub async fn wait(manager: &Manager, operation: &Operation) -> Operation {
    let operation = manager.operation_wait(operation.id, LIMIT).await.unwrap();
    assert!(operation.status.is_final(), "{operation:?}");
    operation
}

pub async fn make_disk(host: &Host, create: serde_json::Value) -> OperationStatus {
    let create: DiskCreate = serde_json::from_value(create).unwrap();
    let operation = host.manager.disk_create(&admin(), create).await.unwrap();
    let operation = wait(&host.manager, &operation).await;
    operation.status
}

pub fn spec(vm: &str) -> VmSpec {
    let json = serde_json::json!({
        "name": vm, "memory": "64MiB", "boot": {"kernel": "kernel"}
    });
    serde_json::from_value(json).unwrap()
}

/// The next event for which `wanted` holds.
pub async fn event(events: &mut Subscription, wanted: impl Fn(&EventBody) -> bool) -> Event {
    within(async {
        loop {
            let event = events.next().await.expect("the stream goes on");
            if wanted(&event.body) {
                return event;
            }
        }
    })
    .await
}

/// The next change of a guest to `state`.
pub async fn state_event(events: &mut Subscription, vm: &str, wanted: VmState) -> Option<String> {
    let vm = name(vm);
    let found = event(events, |body| {
        matches!(body, EventBody::VmState { vm: of, state, .. } if *of == vm && *state == wanted)
    })
    .await;
    match found.body {
        EventBody::VmState { reason, .. } => reason,
        _ => None,
    }
}

/// The least that passes for a bzImage.
pub fn bzimage() -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    bytes[0x1f1] = 1;
    bytes[0x1f4..0x1f8].copy_from_slice(&64_u32.to_le_bytes());
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    bytes[0x211] = 1;
    bytes[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
    bytes[0x24c..0x250].copy_from_slice(&512_u32.to_le_bytes());
    bytes
}
