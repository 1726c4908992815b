//! Disk images and machines of other hypervisors, in and out. `qemu-img` makes them and judges them.

use std::path::Path;

use lodge_tests::host::Host;
use lodge_tests::process::{sha256, tool};
use lodge_tests::shared::Shared;
use lodge_tests::web::{Authority, Web};

/// Bytes of the disk; what is in it does not shrink to nothing, and has holes.
const SIZE: usize = 24 << 20;

const OVF: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
 <References><File ovf:id="f" ovf:href="disk.vmdk"/></References>
 <DiskSection><Info/><Disk ovf:capacity="24" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="d" ovf:fileRef="f" ovf:format="x"/></DiskSection>
 <NetworkSection><Info/><Network ovf:name="VM Network"/></NetworkSection>
 <VirtualSystem ovf:id="old"><Info/><Name>old</Name><VirtualHardwareSection><Info/>
  <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
  <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>128</rasd:VirtualQuantity></Item>
  <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>AHCI</rasd:ResourceSubType><rasd:ResourceType>20</rasd:ResourceType></Item>
  <Item><rasd:HostResource>ovf:/disk/d</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
  <Item><rasd:Connection>VM Network</rasd:Connection><rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceSubType>E1000e</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
 </VirtualHardwareSection></VirtualSystem>
</Envelope>
"#;

fn content() -> Vec<u8> {
    let mut state = 1_u32;
    let mut content = Vec::with_capacity(SIZE);
    for block in 0..SIZE / 4096 {
        // Two blocks of three are zeroes.
        content.extend((0..4096).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if block % 3 == 0 {
                (state >> 24) as u8
            } else {
                0
            }
        }));
    }
    content
}

fn qemu_img(arguments: &[&str]) {
    tool("qemu-img", arguments).unwrap();
}

/// A name in `folder`.
fn at(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// The host gets it from a web server, whoever asks it to; another file than was wanted leaves nothing.
fn fetched_by_the_host(host: &Host, folder: &Path) {
    let web = Web::serve(folder).unwrap();
    let disk = ["--kind", "disk", "--sha256"];
    let sum = &*sha256(&folder.join("web.qcow2")).unwrap();
    let fetch = |file: &str, sum: &str| {
        let url = web.url(file);
        let upload = ["image", "upload", &url, "fetched"];
        host.cli
            .outcome(&[&upload[..], &disk, &[sum]].concat(), "")
            .unwrap()
    };
    let said = fetch("web.vhdx", sum).failure().unwrap();
    assert!(said.contains("SHA-256"), "{said}");
    let said = fetch("none", sum).failure().unwrap();
    assert!(said.contains("10.0.2.2 answered 404"), "{said}");
    let said = fetch("web.qcow2", sum).success().unwrap();
    assert!(
        said.contains("fetched: raw") && said.contains("made from qcow2"),
        "{said}"
    );
    let image = host.cli.json(&["image", "show", "fetched"]).unwrap();
    assert_eq!(image["sha256"], *sum, "{image}");
}

/// A server that no public authority vouches for is trusted when the host was told of its authority, and no longer.
fn fetched_by_private_authority(host: &Host, folder: &Path) {
    let authority = Authority::new(folder).unwrap();
    let web = Web::serve_securely(folder, &authority).unwrap();
    let certificate = authority.certificate.display().to_string();
    let fetch = || {
        let upload = ["image", "upload", &web.url("web.qcow2"), "trusted"];
        let upload = [&upload[..], &["--kind", "disk"]].concat();
        host.cli.outcome(&upload, "").unwrap()
    };
    let said = fetch().failure().unwrap();
    assert!(said.contains("TLS failed"), "{said}");
    let add = ["system", "authority", "add", "lab", &certificate];
    host.cli.ok(&add).unwrap();
    fetch().success().unwrap();
    let again = ["system", "authority", "add", "lab-2", &certificate];
    let said = host.cli.fails(&again).unwrap();
    assert!(said.contains("as \"lab\""), "{said}");
    let listed = host.cli.ok(&["system", "authority", "list"]).unwrap();
    assert!(listed.contains("lab"), "{listed}");
    host.cli
        .ok(&["system", "authority", "remove", "lab"])
        .unwrap();
    host.cli.ok(&["image", "delete", "trusted"]).unwrap();
    let said = fetch().failure().unwrap();
    assert!(said.contains("TLS failed"), "{said}");
}

/// The archive has what it says, and its disk is the one that came in.
fn goes_out_again(host: &Host, folder: &Path) {
    let archive = at(folder, "again.ova");
    host.cli.ok(&["vm", "export", "old", &archive]).unwrap();
    let again = folder.join("again");
    std::fs::create_dir(&again).unwrap();
    tool("tar", ["-C", &at(&again, ""), "-xf", &archive]).unwrap();
    let sums = std::fs::read_to_string(again.join("old.mf")).unwrap();
    for file in ["old.ovf", "old-disk0.vmdk"] {
        let sum = sha256(&again.join(file)).unwrap();
        assert!(sums.contains(&format!("SHA256({file})= {sum}\n")), "{sums}");
    }
    let (raw, disk) = (at(folder, "raw"), at(&again, "old-disk0.vmdk"));
    qemu_img(&["compare", "-f", "raw", "-F", "vmdk", &raw, &disk]);
    // And as it was.
    host.cli.ok(&["snapshot", "create", "old", "then"]).unwrap();
    let disk = at(folder, "then.qcow2");
    host.cli.ok(&["snapshot", "export", "then", &disk]).unwrap();
    qemu_img(&["compare", "-f", "raw", "-F", "qcow2", &raw, &disk]);
}

#[test]
fn disks_and_machines_of_others_come_in_and_go_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| at(folder.path(), name);
    std::fs::write(path("raw"), content()).unwrap();
    let convert = ["convert", "-f", "raw", "-O"];
    qemu_img(
        &[
            &convert[..],
            &["qcow2", "-c", &path("raw"), &path("web.qcow2")],
        ]
        .concat(),
    );
    qemu_img(&[&convert[..], &["vhdx", &path("raw"), &path("web.vhdx")]].concat());
    let stream = ["vmdk", "-o", "subformat=streamOptimized"];
    let disk = [path("raw"), path("disk.vmdk")];
    qemu_img(&[&convert[..], &stream, &[&disk[0], &disk[1]]].concat());
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        &path("raw"),
        "-F",
        "raw",
        &path("top.qcow2"),
    ]);
    std::fs::write(path("old.ovf"), OVF).unwrap();
    let archive = path("old.ova");
    let inside = folder.path().display().to_string();
    tool(
        "tar",
        ["-C", &inside, "-cf", &archive, "old.ovf", "disk.vmdk"],
    )
    .unwrap();

    let host = Shared::take().unwrap();
    for (name, was) in [
        ("web.qcow2", "made from qcow2"),
        ("web.vhdx", "made from vhdx"),
    ] {
        let image = name.replace('.', "-");
        let upload = ["image", "upload", &path(name), &image, "--kind", "disk"];
        let said = host.cli.ok(&upload).unwrap();
        assert!(said.contains(was), "{said}");
        host.cli
            .ok(&["disk", "create", &image, "--image", &image])
            .unwrap();
    }
    let top = [
        "image",
        "upload",
        &path("top.qcow2"),
        "top",
        "--kind",
        "disk",
    ];
    let said = host.cli.fails(&top).unwrap();
    assert!(said.contains("backing file"), "{said}");
    let images = host.cli.json(&["image", "list"]).unwrap();
    // These two, and the guest's kernel and initrd.
    assert_eq!(images.as_array().unwrap().len(), 4, "{images}");

    fetched_by_the_host(&host, folder.path());
    fetched_by_private_authority(&host, folder.path());

    let said = host.cli.ok(&["vm", "import", &archive]).unwrap();
    assert!(
        said.contains("2 CPUs, 128 MiB, 1 disks, 1 network"),
        "{said}"
    );
    let vm = host.vm("old").unwrap();
    assert_eq!(vm["disks"][0]["bus"], "sata", "{vm}");
    goes_out_again(&host, folder.path());
    let imported = vm["disks"][0]["disk"].as_str().unwrap();

    for (disk, file, format) in [
        ("web-qcow2", "out.vmdk", "vmdk"),
        ("web-vhdx", "out.qcow2", "qcow2"),
        (imported, "out.img", "raw"),
    ] {
        let file = path(file);
        let export = ["disk", "export", disk, &file];
        host.cli.ok(&export).unwrap();
        qemu_img(&["compare", "-f", "raw", "-F", format, &path("raw"), &file]);
        let said = host.cli.fails(&export).unwrap();
        assert!(said.contains("exists"), "{said}");
    }
}
