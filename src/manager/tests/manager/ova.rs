//! Guests out of OVA archives, whose disks `qemu-img` makes.

use std::fs;
use std::path::Path;
use std::process::Command;

use lodge_api::page::ListParams;
use lodge_api::vm::{DiskBus, Firmware, NicModel, VmImport, VmImported, VmState};
use lodge_api::{ErrorCode, Problem, Size};
use lodge_manager::Manager;

use crate::support::{Host, admin, name, pieces, within};

const OVF: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
 <References><File ovf:id="file1" ovf:href="web-disk1.vmdk" ovf:size="1"/></References>
 <DiskSection><Info>Disks</Info>
  <Disk ovf:capacity="3" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="d1" ovf:fileRef="file1" ovf:format="x"/>
  <Disk ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="d2"/>
 </DiskSection>
 <NetworkSection><Network ovf:name="VM Network"/></NetworkSection>
 <VirtualSystem ovf:id="web"><Name>Web</Name>
  <AnnotationSection><Annotation>Serves &amp; serves</Annotation></AnnotationSection>
  <VirtualHardwareSection>
   <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>4</rasd:VirtualQuantity>
    <vmw:CoresPerSocket>2</vmw:CoresPerSocket></Item>
   <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>
    <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>96</rasd:VirtualQuantity></Item>
   <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item><rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceSubType>vmware.nvme.controller</rasd:ResourceSubType><rasd:ResourceType>20</rasd:ResourceType></Item>
   <Item><rasd:HostResource>ovf:/disk/d1</rasd:HostResource><rasd:InstanceID>5</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:HostResource>ovf:/disk/d2</rasd:HostResource><rasd:InstanceID>6</rasd:InstanceID><rasd:Parent>4</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:InstanceID>7</rasd:InstanceID><rasd:ResourceType>15</rasd:ResourceType></Item>
   <Item><rasd:Address>00:50:56:01:02:03</rasd:Address><rasd:Connection>VM Network</rasd:Connection><rasd:InstanceID>8</rasd:InstanceID>
    <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
   <Item><rasd:ElementName>Floppy 1</rasd:ElementName><rasd:InstanceID>9</rasd:InstanceID><rasd:ResourceType>14</rasd:ResourceType></Item>
   <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
  </VirtualHardwareSection>
 </VirtualSystem>
</Envelope>
"#;

fn run(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An archive with a disk of 3 MiB; its manifest is made with `tool`.
fn archive(directory: &Path, ovf: &str, tool: Option<(&str, &str)>) -> (Vec<u8>, Vec<u8>) {
    let disk: Vec<u8> = (0..3_u32 << 20)
        .map(|at| (at / 3 * (at >> 18)) as u8)
        .collect();
    fs::write(directory.join("raw"), &disk).unwrap();
    fs::write(directory.join("web.ovf"), ovf).unwrap();
    let options = [
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
    ];
    run(
        directory,
        "qemu-img",
        &[&options[..], &["raw", "web-disk1.vmdk"]].concat(),
    );
    let mut files = vec!["web.ovf"];
    if let Some((method, program)) = tool {
        let sums = ["web.ovf", "web-disk1.vmdk"].map(|file| {
            let output = run(directory, program, &[file]);
            format!("{method}({file})= {}\n", output.split(' ').next().unwrap())
        });
        fs::write(directory.join("web.mf"), sums.concat()).unwrap();
        files.push("web.mf");
    }
    files.push("web-disk1.vmdk");
    run(
        directory,
        "tar",
        &[&["--format=ustar", "-cf", "web.ova"][..], &files].concat(),
    );
    (fs::read(directory.join("web.ova")).unwrap(), disk)
}

async fn import(manager: &Manager, vm: &str, content: &[u8]) -> Result<VmImported, Problem> {
    let import = VmImport {
        name: name(vm),
        network: name("default"),
        datastore: None,
        sha256: None,
    };
    let length = Some(content.len() as u64);
    within(manager.vm_import(&admin(), import, length, pieces(content))).await
}

#[tokio::test]
async fn become_guests_with_their_hardware() {
    let directory = tempfile::tempdir().unwrap();
    let mut host = Host::new().await;
    for (number, tool) in [("SHA256", "sha256sum"), ("SHA1", "sha1sum")]
        .iter()
        .enumerate()
    {
        let (ova, disk) = archive(directory.path(), OVF, Some(*tool));
        let vm = format!("web{number}");
        let made = import(&host.manager, &vm, &ova).await.unwrap();
        let spec = &made.vm.spec;
        assert_eq!(
            (spec.vcpus, spec.cpu.cores, spec.memory),
            (4, Some(2), Size::mib(96))
        );
        assert_eq!(spec.description, "Serves & serves");
        assert_eq!(spec.boot.firmware, Some(Firmware::Uefi));
        let buses: Vec<DiskBus> = spec.disks.iter().map(|disk| disk.bus).collect();
        assert_eq!(buses, [DiskBus::Sata, DiskBus::Nvme]);
        assert_eq!(spec.cdroms.len(), 1);
        assert_eq!(spec.nics[0].model, NicModel::E1000e);
        let mac = spec.nics[0].mac.as_deref();
        assert_eq!(mac == Some("00:50:56:01:02:03"), number == 0, "{mac:?}");
        assert_eq!(made.vm.status.state, VmState::Stopped);
        let warnings = made.warnings.join("\n");
        for part in [
            "VmxNet3",
            "\"VM Network\" becomes \"default\"",
            "Floppy 1 is left out",
        ] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
        assert_eq!(warnings.contains("another guest's"), number == 1);
        let first = host
            .manager
            .disk_view(&format!("{vm}-disk0"))
            .await
            .unwrap();
        assert_eq!((first.size, first.used_by), (Size::mib(3), vec![name(&vm)]));
        let path = host
            .config
            .data_dir
            .join("disks")
            .join(first.id.to_string());
        assert!(fs::read(path).unwrap() == disk);
        let second = host
            .manager
            .disk_view(&format!("{vm}-disk1"))
            .await
            .unwrap();
        assert_eq!((second.size, second.allocated), (Size(1 << 30), Size(0)));
        host.restart().await;
        assert_eq!(host.vm(&vm).spec, made.vm.spec);
    }
    assert_eq!(host.files("disks"), 4);
    host.manager.close().await;
}

#[tokio::test]
async fn leave_nothing_when_they_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let sums = Some(("SHA256", "sha256sum"));
    let (ova, _) = archive(directory.path(), OVF, sums);
    let mut changed = ova.clone();
    let end = changed.len() - 20_000;
    changed[end] ^= 1;
    let elsewhere = OVF.replace(
        "ovf:fileRef=\"file1\"",
        "ovf:fileRef=\"file1\" ovf:parentRef=\"d2\"",
    );
    let cases = [
        (changed, "has SHA256"),
        (ova[..ova.len() / 2].to_vec(), "cut short"),
        (b"no archive at all".to_vec(), "not an OVA"),
        (archive(directory.path(), "<a/>", sums).0, "no envelope"),
        (
            archive(directory.path(), &elsewhere, sums).0,
            "only the changes",
        ),
        (
            archive(
                directory.path(),
                &OVF.replace("web-disk1.vmdk", "other"),
                sums,
            )
            .0,
            "\"other\" is not in the OVA",
        ),
        (
            archive(directory.path(), &OVF.replace(">96<", ">999999999<"), sums).0,
            "cannot be made here",
        ),
    ];
    for (content, part) in cases {
        let problem = import(&host.manager, "web", &content).await.unwrap_err();
        assert!(problem.detail.contains(part), "{part}: {problem}");
        assert_eq!(host.files("disks"), 0, "{part}");
    }
    // Without a manifest it is taken, and said so.
    let (ova, _) = archive(directory.path(), OVF, None);
    let made = import(&host.manager, "web", &ova).await.unwrap();
    assert!(made.warnings.join("").contains("no manifest"));
    let problem = import(&host.manager, "web", &ova).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::AlreadyExists);
    let vms = host.manager.vm_list(&ListParams::default()).unwrap();
    assert_eq!(vms.items.len(), 1);
    assert_eq!(host.files("disks"), 2);
    host.manager.close().await;
}

/// What a guest is sent as.
async fn exported(manager: &Manager, vm: &str) -> Vec<u8> {
    let mut download = within(manager.vm_export(&admin(), vm)).await.unwrap();
    assert_eq!(download.file_name, format!("{vm}.ova"));
    let mut content = Vec::new();
    while let Some(piece) = download.pieces.recv().await {
        content.extend(piece.unwrap());
    }
    assert_eq!(download.length, Some(content.len() as u64));
    content
}

#[tokio::test]
async fn go_out_as_they_came_in() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::new().await;
    let (ova, disk) = archive(directory.path(), OVF, Some(("SHA256", "sha256sum")));
    let first = import(&host.manager, "web", &ova).await.unwrap().vm.spec;
    let sent = exported(&host.manager, "web").await;
    fs::write(directory.path().join("sent.ova"), &sent).unwrap();
    let listed = run(directory.path(), "tar", &["-tf", "sent.ova"]);
    assert_eq!(listed, "web.ovf\nweb.mf\nweb-disk0.vmdk\nweb-disk1.vmdk\n");
    run(directory.path(), "tar", &["-xf", "sent.ova"]);
    run(
        directory.path(),
        "qemu-img",
        &["check", "-q", "web-disk1.vmdk"],
    );
    let compare = [
        "compare",
        "-q",
        "-f",
        "raw",
        "-F",
        "vmdk",
        "raw",
        "web-disk0.vmdk",
    ];
    run(directory.path(), "qemu-img", &compare);

    // Its manifest is checked on the way in.
    let again = import(&host.manager, "again", &sent).await.unwrap();
    let mac = first.nics[0].mac.clone().unwrap();
    let warnings = again.warnings.join("\n");
    assert!(
        warnings.contains(&mac) && !warnings.contains("is left out"),
        "{warnings}"
    );
    let mut second = again.vm.spec;
    assert_eq!(second.disks.len(), 2);
    second.name = first.name.clone();
    second.nics = first.nics.clone();
    for (disk, old) in second.disks.iter_mut().zip(&first.disks) {
        disk.disk = old.disk.clone();
    }
    assert_eq!(second, first);
    let copy = host.manager.disk_view("again-disk0").await.unwrap();
    let path = host.config.data_dir.join("disks").join(copy.id.to_string());
    assert!(fs::read(path).unwrap() == disk);
    assert_eq!(host.files("disks"), 4, "nothing is left of what was read");
    host.manager.close().await;
}
