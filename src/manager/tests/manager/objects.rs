//! Images, disks, guests and networks as configuration: what is created, changed, refused and kept.

use std::fs;
use std::io;

use crate::support::{Host, admin, bzimage, event, make_disk, name, spec, upload, wait, within};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use lodge_api::disk::{DiskCreate, DiskPatch};
use lodge_api::event::{Change, EventBody};
use lodge_api::image::{ImageKind, ImageUpload};
use lodge_api::network::NetworkCreate;
use lodge_api::operation::OperationStatus;
use lodge_api::page::ListParams;
use lodge_api::vm::{BootDevice, Firmware, VmAction, VmBalloonTarget, VmStopOptions};
use lodge_api::{ErrorCode, Size};
use lodge_manager::IfMatch;
use serde_json::json;

fn files(host: &Host, directory: &str) -> Vec<String> {
    let path = host.config.data_dir.join(directory);
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let mut host = Host::new().await;
    let image = host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
    assert_eq!(image.format, "bzImage, unknown compression");
    assert_eq!(image.size, Size(2048));
    make_disk(&host, json!({"name": "data", "size": "8MiB"})).await;
    let mut wanted = spec("web");
    wanted.disks = serde_json::from_value(json!([{"disk": "data"}])).unwrap();
    wanted.nics = serde_json::from_value(json!([{}])).unwrap();
    let made = host.manager.vm_create(&admin(), wanted).await.unwrap();
    let mac = made.spec.nics[0].mac.clone().expect("made up");
    host.restart().await;
    assert_eq!(host.manager.image_view("kernel").unwrap(), image);
    assert_eq!(
        host.manager.image_view(&image.id.to_string()).unwrap(),
        image
    );
    let found = host.vm("web");
    assert_eq!(found.spec, made.spec);
    assert_eq!(found.revision, made.revision);
    assert_eq!(found.spec.nics[0].mac.as_ref(), Some(&mac));
    let disk = host.manager.disk_view("data").await.unwrap();
    assert_eq!((disk.size, disk.used_by), (Size::mib(8), vec![name("web")]));
    let networks = host.manager.network_list(&ListParams::default()).unwrap();
    assert_eq!(networks.items[0].name.as_str(), "default");
    assert_eq!(networks.items[0].used_by, [name("web")]);
    host.manager.close().await;
}

#[tokio::test]
async fn what_is_not_an_image_is_refused_and_leaves_nothing() {
    let host = Host::new().await;
    let jpeg = [b"\xff\xd8\xff\xe0".as_slice(), &[0; 100_000]].concat();
    let mut truncated = bzimage();
    truncated.truncate(1500);
    let qcow2 = [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 4096]].concat();
    let cases: [(ImageKind, &[u8], &str); 5] = [
        (ImageKind::Kernel, &jpeg, "JPEG"),
        (ImageKind::Kernel, &truncated, "cut short"),
        (ImageKind::Disk, &qcow2, "qcow2"),
        (ImageKind::Initrd, &bzimage(), "kernel"),
        (ImageKind::Kernel, b"", "empty"),
    ];
    for (kind, content, part) in cases {
        let problem = upload(&host.manager, "x", kind, content).await.unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidContent);
        assert!(problem.detail.contains(part), "{problem}");
        assert!(problem.hint.is_some());
    }
    let problem = upload(&host.manager, "big", ImageKind::Disk, &vec![0; 65 << 20]).await;
    assert_eq!(problem.unwrap_err().code, ErrorCode::PayloadTooLarge);
    assert_eq!(files(&host, "images"), Vec::<String>::new());
    assert_eq!(
        host.manager
            .image_list(&ListParams::default())
            .unwrap()
            .items,
        []
    );
    host.manager.close().await;
}

#[tokio::test]
async fn uploads_that_go_wrong_on_their_way_leave_nothing() {
    let host = Host::new().await;
    let request = |sha256: Option<String>| ImageUpload {
        name: name("disk"),
        kind: ImageKind::Disk,
        format: None,
        sha256,
    };
    let chunk = || Ok(Bytes::from(vec![0; 4096]));
    let send = |request, length, chunks: Vec<Result<Bytes, io::Error>>| {
        host.manager.image_upload_boxed(request, length, chunks)
    };
    let problem = send(request(Some("0".repeat(64))), None, vec![chunk()])
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::ChecksumMismatch);
    let problem = send(request(Some("xyz".to_owned())), None, vec![chunk()])
        .await
        .unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("?sha256"));
    let problem = send(request(None), Some(9000), vec![chunk(), chunk()])
        .await
        .unwrap_err();
    assert!(problem.detail.contains("8192"), "{problem}");
    let broken = Err(io::Error::other("reset"));
    let problem = send(request(None), None, vec![chunk(), broken])
        .await
        .unwrap_err();
    assert!(problem.detail.contains("reset"), "{problem}");
    assert_eq!(files(&host, "images"), Vec::<String>::new());
    let whole = [0_u8; 4096];
    let sum = "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7";
    let image = send(
        request(Some(sum.to_uppercase())),
        None,
        vec![Ok(Bytes::copy_from_slice(&whole))],
    );
    assert_eq!(image.await.unwrap().sha256, sum);
    let problem = send(request(None), None, vec![chunk()]).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::AlreadyExists);
    assert_eq!(files(&host, "images").len(), 1);
    host.manager.close().await;
}

/// Shortens the calls above.
trait UploadBoxed {
    async fn image_upload_boxed(
        &self,
        request: ImageUpload,
        length: Option<u64>,
        chunks: Vec<Result<Bytes, io::Error>>,
    ) -> Result<lodge_api::image::Image, lodge_api::Problem>;
}

impl UploadBoxed for lodge_manager::Manager {
    async fn image_upload_boxed(
        &self,
        request: ImageUpload,
        length: Option<u64>,
        chunks: Vec<Result<Bytes, io::Error>>,
    ) -> Result<lodge_api::image::Image, lodge_api::Problem> {
        within(self.image_upload(&admin(), request, length, stream::iter(chunks))).await
    }
}

#[tokio::test]
async fn an_upload_can_be_aborted_and_cancelled() {
    let host = Host::new().await;
    for abort in [true, false] {
        let mut events = host.listen();
        let manager = host.manager.clone();
        let request = ImageUpload {
            name: name("slow"),
            kind: ImageKind::Disk,
            format: None,
            sha256: None,
        };
        let body = stream::iter([Ok(Bytes::from(vec![0; 100_000]))]).chain(stream::pending());
        let task =
            tokio::spawn(async move { manager.image_upload(&admin(), request, None, body).await });
        let started = event(&mut events, |body| {
            matches!(body, EventBody::Operation { operation } if operation.progress.is_some())
        })
        .await;
        let EventBody::Operation { operation } = started.body else {
            panic!("not an operation");
        };
        if abort {
            task.abort();
            let ended = wait(&host.manager, &operation).await;
            assert_eq!(ended.status, OperationStatus::Failed);
        } else {
            let ended = host
                .manager
                .operation_cancel(&admin(), operation.id)
                .await
                .unwrap();
            assert_eq!(ended.status, OperationStatus::Cancelled);
            let problem = within(task).await.unwrap().unwrap_err();
            assert_eq!(problem.code, ErrorCode::Cancelled);
        }
        assert_eq!(
            host.manager
                .image_list(&ListParams::default())
                .unwrap()
                .items,
            []
        );
    }
    host.manager.close().await;
}

#[tokio::test]
async fn disks_are_made_copied_grown_and_renamed() {
    let host = Host::new().await;
    let content: Vec<u8> = (0..3 << 20).map(|at: u32| (at / 512) as u8).collect();
    host.upload("base", ImageKind::Disk, &content).await;
    host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
    let status = make_disk(
        &host,
        json!({"name": "copy", "image": "base", "size": "5MiB"}),
    )
    .await;
    assert_eq!(status, OperationStatus::Succeeded);
    let disk = host.manager.disk_view("copy").await.unwrap();
    let path = host.config.data_dir.join("disks").join(disk.id.to_string());
    let written = fs::read(&path).unwrap();
    assert!(written[..content.len()] == content && written.len() == 5 << 20);
    let mut user = spec("web");
    user.disks = serde_json::from_value(json!([{"disk": "copy"}])).unwrap();
    host.manager.vm_create(&admin(), user).await.unwrap();
    let patch: DiskPatch =
        serde_json::from_value(json!({"name": "renamed", "size": "6MiB"})).unwrap();
    let problem = host
        .manager
        .disk_patch(
            &admin(),
            "copy",
            patch.clone(),
            IfMatch::Revision(disk.revision + 1),
        )
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::PreconditionFailed);
    let changed = host
        .manager
        .disk_patch(&admin(), "copy", patch, IfMatch::Revision(disk.revision))
        .await
        .unwrap();
    assert_eq!(changed.size, Size::mib(6));
    assert_eq!(
        changed.used_by,
        [name("web")],
        "renamed in its guest as well"
    );
    assert_eq!(fs::metadata(&path).unwrap().len(), 6 << 20);
    let smaller: DiskPatch = serde_json::from_value(json!({"size": "1MiB"})).unwrap();
    let problem = host
        .manager
        .disk_patch(&admin(), "renamed", smaller, IfMatch::Any)
        .await;
    assert_eq!(problem.unwrap_err().pointer.as_deref(), Some("/size"));
    let problem = host
        .manager
        .disk_delete(&admin(), "renamed", IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::InUse);
    assert!(problem.detail.contains("web"), "{problem}");
    let problem = host
        .manager
        .image_delete(&admin(), "kernel", IfMatch::Any)
        .await
        .unwrap_err();
    assert!(problem.detail.contains("web"), "{problem}");
    host.manager
        .vm_delete(&admin(), "web", IfMatch::Any)
        .await
        .unwrap();
    host.manager
        .disk_delete(&admin(), "renamed", IfMatch::Any)
        .await
        .unwrap();
    host.manager
        .image_delete(&admin(), "kernel", IfMatch::Any)
        .await
        .unwrap();
    host.manager
        .image_delete(&admin(), "base", IfMatch::Any)
        .await
        .unwrap();
    assert_eq!(files(&host, "disks"), Vec::<String>::new());
    assert_eq!(files(&host, "images"), Vec::<String>::new());
    host.manager.close().await;
}

#[tokio::test]
async fn impossible_disks_are_refused_before_anything_is_made() {
    let host = Host::new().await;
    host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
    host.upload("base", ImageKind::Disk, &[0; 2 << 20]).await;
    make_disk(&host, json!({"name": "taken", "size": "1MiB"})).await;
    for (create, pointer) in [
        (json!({"name": "x"}), "/size"),
        (json!({"name": "x", "size": 0}), "/size"),
        (json!({"name": "x", "size": 1000}), "/size"),
        (json!({"name": "x", "size": "65TiB"}), "/size"),
        (
            json!({"name": "x", "size": "1MiB", "image": "base"}),
            "/size",
        ),
        (json!({"name": "x", "image": "none"}), "/image"),
        (json!({"name": "x", "image": "kernel"}), "/image"),
        (json!({"name": "taken", "size": "1MiB"}), "/name"),
    ] {
        let create: DiskCreate = serde_json::from_value(create).unwrap();
        let problem = host
            .manager
            .disk_create(&admin(), create)
            .await
            .unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem}");
        assert!(problem.hint.is_some());
    }
    assert_eq!(files(&host, "disks").len(), 1);
    host.manager.close().await;
}

#[tokio::test]
async fn guests_are_changed_only_as_expected() {
    let host = Host::new().await;
    host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
    let mut events = host.listen();
    let made = host.manager.vm_create(&admin(), spec("web")).await.unwrap();
    let change = event(&mut events, |body| matches!(body, EventBody::Object { .. })).await;
    assert_eq!(change.user, Some(name("admin")));
    let EventBody::Object { target, change } = change.body else {
        panic!("not an object");
    };
    assert_eq!((target.as_str(), change), ("/v1/vms/web", Change::Created));
    let problem = host
        .manager
        .vm_create(&admin(), spec("web"))
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::AlreadyExists);
    let patch = json!({"vcpus": 4});
    let old = IfMatch::Revision(made.revision);
    let changed = host
        .manager
        .vm_merge(&admin(), "web", patch.clone(), old)
        .await
        .unwrap();
    assert_eq!((changed.spec.vcpus, changed.id), (4, made.id));
    let problem = host
        .manager
        .vm_merge(&admin(), "web", patch, old)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::PreconditionFailed);
    for (patch, pointer) in [
        (json!({"vcpus": 65}), "/vcpus"),
        (json!({"boot": {"kernel": "none"}}), "/boot/kernel"),
        (json!({"boot": {"initrd": "kernel"}}), "/boot/initrd"),
        (json!({"boot": {"cmdline": "ä"}}), "/boot/cmdline"),
        (json!({"nics": [{"network": "none"}]}), "/nics/0/network"),
        (
            json!({"nics": [{"mac": "01:00:00:00:00:00"}]}),
            "/nics/0/mac",
        ),
        (json!({"nics": [{}, {"queues": 9}]}), "/nics/1/queues"),
        (
            json!({"vcpus": 2, "nics": [{"queues": 2, "model": "e1000e"}]}),
            "/nics/0/queues",
        ),
        (
            json!({"vcpus": 2, "nics": [{"queues": 3}]}),
            "/nics/0/queues",
        ),
        (json!({"disks": [{"disk": "none"}]}), "/disks/0/disk"),
    ] {
        let problem = host
            .manager
            .vm_merge(&admin(), "web", patch, IfMatch::Any)
            .await
            .unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem}");
        assert_eq!(host.vm("web"), changed, "nothing changed");
    }
    let renamed = host
        .manager
        .vm_replace(&admin(), "web", spec("other"), IfMatch::Any)
        .await
        .unwrap();
    assert_eq!((renamed.id, renamed.spec.vcpus), (made.id, 1));
    assert_eq!(
        host.manager.vm_view("web").unwrap_err().code,
        ErrorCode::NotFound
    );
    host.manager.vm_create(&admin(), spec("web")).await.unwrap();
    let clash = host
        .manager
        .vm_replace(&admin(), "web", spec("other"), IfMatch::Any)
        .await;
    assert_eq!(clash.unwrap_err().code, ErrorCode::AlreadyExists);
    host.manager
        .vm_delete(&admin(), &made.id.to_string(), IfMatch::Any)
        .await
        .unwrap();
    let names: Vec<_> = host
        .manager
        .vm_list(&ListParams {
            filter: Some("state eq stopped".to_owned()),
            ..ListParams::default()
        })
        .unwrap()
        .items
        .into_iter()
        .map(|vm| vm.spec.name)
        .collect();
    assert_eq!(names, [name("web")]);
    host.manager.close().await;
}

#[tokio::test]
async fn a_guest_starts_by_firmware_or_from_a_kernel() {
    let host = Host::new().await;
    host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
    let create = async |spec: serde_json::Value| {
        let spec = serde_json::from_value(spec).unwrap();
        host.manager.vm_create(&admin(), spec).await
    };
    let made = create(json!({"name": "plain"})).await.unwrap();
    assert_eq!(made.spec.boot.firmware, Some(Firmware::Uefi), "the default");
    let bios = json!({"name": "old", "nics": [{}],
        "boot": {"firmware": "bios", "order": ["nic0"]}});
    let made = create(bios).await.unwrap();
    assert_eq!(made.spec.boot.order, [BootDevice::Nic(0)]);
    let made = create(json!({"name": "direct", "boot": {"kernel": "kernel"}}));
    let made = made.await.unwrap();
    assert_eq!(made.spec.boot.firmware, None);
    assert_eq!(made.spec.boot.cmdline.as_deref(), Some("console=ttyS0"));
    for (boot, pointer) in [
        (
            json!({"kernel": "kernel", "firmware": "uefi"}),
            "/boot/firmware",
        ),
        (
            json!({"kernel": "kernel", "order": ["nic0"]}),
            "/boot/order",
        ),
        (json!({"initrd": "kernel"}), "/boot/initrd"),
        (
            json!({"firmware": "bios", "cmdline": "quiet"}),
            "/boot/cmdline",
        ),
        (json!({"order": ["disk0"]}), "/boot/order/0"),
        (json!({"order": ["cdrom0"]}), "/boot/order/0"),
        (json!({"order": ["nic0", "nic1"]}), "/boot/order/1"),
        (json!({"order": ["nic0", "nic0"]}), "/boot/order/1"),
    ] {
        let spec = json!({"name": "bad", "boot": boot, "nics": [{}]});
        let problem = create(spec).await.unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem}");
        assert!(problem.hint.is_some(), "{problem}");
    }
    host.manager.close().await;
}

#[tokio::test]
async fn discs_are_put_in_and_taken_out() {
    let host = Host::new().await;
    let mut disc = vec![0; 20 * 2048];
    disc[16 * 2048 + 1..][..5].copy_from_slice(b"CD001");
    host.upload("disc", ImageKind::Iso, &disc).await;
    host.upload("raw", ImageKind::Disk, &[0; 4096]).await;
    let create = async |spec: serde_json::Value| {
        let spec = serde_json::from_value(spec).unwrap();
        host.manager.vm_create(&admin(), spec).await
    };
    create(json!({"name": "web", "cdroms": [{"image": "disc"}, {}]}))
        .await
        .unwrap();
    let deleted = host
        .manager
        .image_delete(&admin(), "disc", IfMatch::Any)
        .await;
    assert_eq!(deleted.unwrap_err().code, ErrorCode::InUse);
    let change = async |change: serde_json::Value| {
        let change = serde_json::from_value(change).unwrap();
        host.manager.vm_change_disc(&admin(), "web", change).await
    };
    let vm = change(json!({"drive": 1, "image": "disc"})).await.unwrap();
    assert_eq!(vm.spec.cdroms[1].image, Some(name("disc")));
    let vm = change(json!({})).await.unwrap();
    assert_eq!(vm.spec.cdroms[0].image, None, "taken out");
    for (bad, pointer) in [
        (json!({"drive": 2, "image": "disc"}), "/drive"),
        (json!({"image": "raw"}), "/image"),
        (json!({"image": "none"}), "/image"),
    ] {
        let problem = change(bad).await.unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem}");
        assert_eq!(host.vm("web"), vm, "nothing changed");
    }
    let many = json!({"name": "bad", "cdroms": [{}, {}, {}, {}, {}]});
    let problem = create(many).await.unwrap_err();
    assert_eq!(problem.pointer.as_deref(), Some("/cdroms"));
    host.manager.close().await;
}

#[tokio::test]
async fn one_of_many_creators_wins() {
    let host = Host::new().await;
    host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
    let tries = (0..16).map(|_| {
        let manager = host.manager.clone();
        tokio::spawn(async move { manager.vm_create(&admin(), spec("web")).await })
    });
    let results = futures_util::future::join_all(tries).await;
    let made = results
        .iter()
        .filter(|result| result.as_ref().unwrap().is_ok());
    assert_eq!(made.count(), 1);
    host.manager.close().await;
}

#[tokio::test]
async fn a_stopped_guest_cannot_be_acted_on() {
    let host = Host::new().await;
    host.upload("kernel", ImageKind::Kernel, &bzimage()).await;
    host.manager.vm_create(&admin(), spec("web")).await.unwrap();
    for action in [
        VmAction::Stop,
        VmAction::Kill,
        VmAction::Reset,
        VmAction::Pause,
        VmAction::Resume,
    ] {
        let problem = host
            .manager
            .vm_action(&admin(), "web", action, VmStopOptions::default())
            .await
            .unwrap_err();
        assert_eq!(problem.code, ErrorCode::WrongState);
    }
    let console = host
        .manager
        .vm_console(&admin(), "web", Default::default())
        .await;
    assert_eq!(console.unwrap_err().code, ErrorCode::WrongState);
    let keep = async |vm: &str, target: Size| {
        let target = VmBalloonTarget { target };
        let asked = host.manager.vm_balloon(&admin(), vm, target).await;
        asked.unwrap_err()
    };
    let problem = keep("web", Size::mib(64)).await;
    assert_eq!(problem.code, ErrorCode::WrongState, "{problem}");
    for target in [Size::mib(63), Size::mib(65), Size((64 << 20) + 1)] {
        let problem = keep("web", target).await;
        assert_eq!(problem.pointer.as_deref(), Some("/target"), "{problem}");
    }
    assert_eq!(keep("db", Size::mib(64)).await.code, ErrorCode::NotFound);
    let options = VmStopOptions {
        timeout_s: Some(0),
        force: false,
    };
    let problem = host
        .manager
        .vm_action(&admin(), "web", VmAction::Stop, options)
        .await;
    assert_eq!(problem.unwrap_err().pointer.as_deref(), Some("/timeout_s"));
    host.manager.close().await;
}

#[tokio::test]
async fn networks_need_the_right_to_manage_them() {
    let host = Host::new().await;
    let create = NetworkCreate {
        name: name("lan"),
        uplink: None,
    };
    let problem = host
        .manager
        .network_create(&admin(), create)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    let problem = host
        .manager
        .network_delete(&admin(), "default", IfMatch::Any)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    host.manager.close().await;
}

#[tokio::test]
async fn half_made_and_unrecorded_files_are_removed_at_the_start() {
    let mut host = Host::new().await;
    host.upload("base", ImageKind::Disk, &[0; 1 << 20]).await;
    host.manager.close().await;
    for directory in ["images", "disks"] {
        let path = host.config.data_dir.join(directory);
        fs::write(path.join(".new-1-2-3"), b"half").unwrap();
        fs::write(path.join("0190a3e2-7c1b-7f3e-8a7e-000000000001"), b"whole").unwrap();
        fs::write(path.join("note.txt"), b"somebody's own").unwrap();
    }
    host.restart().await;
    assert_eq!(files(&host, "images").len(), 2);
    assert_eq!(files(&host, "disks"), ["note.txt"]);
    host.manager.close().await;
}

#[tokio::test]
async fn the_host_describes_itself() {
    let host = Host::new().await;
    let system = host.manager.system();
    assert!(system.hardware.memory > Size::mib(64) && system.hardware.threads > 0);
    assert!(system.storage.size > system.storage.free);
    assert_eq!(system.versions.api, "v1");
    assert_eq!(system.kvm.usable, system.kvm.reason.is_none());
    let metrics = host.manager.metrics();
    assert!(metrics.memory_total > metrics.memory_used);
    let shutdown = lodge_api::system::SystemAction::Shutdown;
    let problem = host
        .manager
        .system_action(&admin(), shutdown)
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::WrongState);
    host.manager.close().await;
    let problem = host
        .manager
        .vm_create(&admin(), spec("web"))
        .await
        .unwrap_err();
    assert_eq!(problem.code, ErrorCode::ShuttingDown);
}
