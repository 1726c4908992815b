//! The descriptor of a guest's OVA (DSP0243, OVF 1.1), in the words that VMware's and VirtualBox's programs read.

use std::fmt::Write;

use lodge_api::vm::{DiskBus, Firmware, VmDisk, VmNic, VmSpec};

/// Where VMware says what a disk of an OVA is.
const VMDK: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// The oldest virtual hardware of VMware that has UEFI, SATA and NVMe.
const HARDWARE: &str = "vmx-14";

/// A disk's file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) name: String,
    /// Of the file, in bytes.
    pub(crate) length: u64,
    /// Of the disk, in bytes.
    pub(crate) capacity: u64,
}

/// Numbers of what hardware hangs on, and of everything else from the last on.
const SATA: u32 = 3;
const NVME: u32 = 4;
const REST: u32 = 5;

/// Writes the descriptor of a guest whose disks are these files. Disks and network cards become those which every hypervisor has.
pub(crate) fn write(spec: &VmSpec, files: &[File]) -> String {
    let name = &spec.name;
    let mut text = String::from(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
"#,
    );
    references(files, &mut text);
    networks(spec, &mut text);
    let description = escaped(&spec.description);
    let annotation = match description.is_empty() {
        true => String::new(),
        false => format!(
            "  <AnnotationSection><Info>A description</Info><Annotation>{description}</Annotation></AnnotationSection>\n"
        ),
    };
    let _ = write!(
        text,
        r#" <VirtualSystem ovf:id="{name}">
  <Info>A virtual machine</Info>
  <Name>{name}</Name>
  <OperatingSystemSection ovf:id="102" vmw:osType="otherGuest64"><Info>The operating system</Info></OperatingSystemSection>
{annotation}  <VirtualHardwareSection>
   <Info>Virtual hardware</Info>
   <System><vssd:ElementName>Virtual Hardware Family</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID><vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier><vssd:VirtualSystemType>{HARDWARE}</vssd:VirtualSystemType></System>
"#
    );
    processors_and_memory(spec, &mut text);
    hardware(spec, &mut text);
    if spec.boot.firmware != Some(Firmware::Bios) {
        text += "   <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>\n";
    }
    text += "  </VirtualHardwareSection>\n </VirtualSystem>\n</Envelope>\n";
    text
}

fn references(files: &[File], text: &mut String) {
    *text += " <References>\n";
    for (number, File { name, length, .. }) in files.iter().enumerate() {
        let _ = writeln!(
            text,
            r#"  <File ovf:id="file{number}" ovf:href="{name}" ovf:size="{length}"/>"#
        );
    }
    *text += " </References>\n <DiskSection>\n  <Info>Virtual disks</Info>\n";
    for (number, File { capacity, .. }) in files.iter().enumerate() {
        let _ = writeln!(
            text,
            r#"  <Disk ovf:diskId="disk{number}" ovf:fileRef="file{number}" ovf:capacity="{capacity}" ovf:capacityAllocationUnits="byte" ovf:format="{VMDK}"/>"#
        );
    }
    *text += " </DiskSection>\n";
}

fn networks(spec: &VmSpec, text: &mut String) {
    let mut networks: Vec<_> = spec.nics.iter().map(|nic| &nic.network).collect();
    networks.sort_unstable();
    networks.dedup();
    *text += " <NetworkSection>\n  <Info>Networks</Info>\n";
    for network in networks {
        let _ = writeln!(
            text,
            r#"  <Network ovf:name="{network}"><Description>{network}</Description></Network>"#
        );
    }
    *text += " </NetworkSection>\n";
}

/// An element for each field; the schema wants them in the order of the alphabet.
fn item(fields: &[(&str, &str)], text: &mut String) {
    debug_assert!(fields.is_sorted());
    *text += "   <Item>";
    for (name, value) in fields {
        let _ = write!(text, "<rasd:{name}>{value}</rasd:{name}>");
    }
    *text += "</Item>\n";
}

fn processors_and_memory(spec: &VmSpec, text: &mut String) {
    let vcpus = spec.vcpus.to_string();
    *text += "   <Item>";
    for (name, value) in [
        ("AllocationUnits", "hertz * 10^6"),
        ("ElementName", "Processors"),
        ("InstanceID", "1"),
        ("ResourceType", "3"),
        ("VirtualQuantity", vcpus.as_str()),
    ] {
        let _ = write!(text, "<rasd:{name}>{value}</rasd:{name}>");
    }
    if let Some(cores) = spec.cpu.cores {
        let cores = u16::from(cores) * u16::from(spec.cpu.threads.unwrap_or(1));
        let _ = write!(
            text,
            r#"<vmw:CoresPerSocket ovf:required="false">{cores}</vmw:CoresPerSocket>"#
        );
    }
    *text += "</Item>\n";
    let memory = (spec.memory.0 >> 20).to_string();
    let fields = [
        ("AllocationUnits", "byte * 2^20"),
        ("ElementName", "Memory"),
        ("InstanceID", "2"),
        ("ResourceType", "4"),
        ("VirtualQuantity", memory.as_str()),
    ];
    item(&fields, text);
}

fn hardware(spec: &VmSpec, text: &mut String) {
    let on_nvme = |disk: &VmDisk| disk.bus == DiskBus::Nvme;
    let any_sata = !spec.cdroms.is_empty() || !spec.disks.iter().all(on_nvme);
    for (wanted, number, kind, name) in [
        (any_sata, SATA, "vmware.sata.ahci", "SATA controller"),
        (
            spec.disks.iter().any(on_nvme),
            NVME,
            "vmware.nvme.controller",
            "NVMe controller",
        ),
    ] {
        if wanted {
            controller(number, kind, name, text);
        }
    }
    let mut parts = Parts {
        text,
        next: REST,
        on_sata: 0,
        on_nvme: 0,
    };
    for (at, disk) in spec.disks.iter().enumerate() {
        parts.disk(at, on_nvme(disk));
    }
    for at in 0..spec.cdroms.len() {
        parts.drive(at);
    }
    for (at, nic) in spec.nics.iter().enumerate() {
        parts.nic(at, nic);
    }
}

/// What is numbered one after the other.
struct Parts<'a> {
    text: &'a mut String,
    next: u32,
    /// Places that are taken on the controllers.
    on_sata: u32,
    on_nvme: u32,
}

impl Parts<'_> {
    fn disk(&mut self, at: usize, on_nvme: bool) {
        let (parent, place) = match on_nvme {
            true => (NVME, take(&mut self.on_nvme)),
            false => (SATA, take(&mut self.on_sata)),
        };
        item(
            &[
                ("AddressOnParent", &place),
                ("ElementName", &format!("Disk {at}")),
                ("HostResource", &format!("ovf:/disk/disk{at}")),
                ("InstanceID", &take(&mut self.next)),
                ("Parent", &parent.to_string()),
                ("ResourceType", "17"),
            ],
            self.text,
        );
    }

    fn drive(&mut self, at: usize) {
        item(
            &[
                ("AddressOnParent", &take(&mut self.on_sata)),
                ("AutomaticAllocation", "false"),
                ("ElementName", &format!("CD-ROM drive {at}")),
                ("InstanceID", &take(&mut self.next)),
                ("Parent", &SATA.to_string()),
                ("ResourceSubType", "vmware.cdrom.remotepassthrough"),
                ("ResourceType", "15"),
            ],
            self.text,
        );
    }

    fn nic(&mut self, at: usize, nic: &VmNic) {
        let (element, number) = (format!("Network card {at}"), take(&mut self.next));
        let mac = nic.mac.iter().map(|mac| ("Address", mac.as_str()));
        let fields = [
            ("AutomaticAllocation", "true"),
            ("Connection", nic.network.as_str()),
            ("ElementName", element.as_str()),
            ("InstanceID", number.as_str()),
            ("ResourceSubType", "E1000e"),
            ("ResourceType", "10"),
        ];
        item(&mac.chain(fields).collect::<Vec<_>>(), self.text);
    }
}

/// The next number, in words.
fn take(next: &mut u32) -> String {
    *next += 1;
    (*next - 1).to_string()
}

fn controller(number: u32, kind: &str, name: &str, text: &mut String) {
    let number = number.to_string();
    let fields = [
        ("ElementName", name),
        ("InstanceID", number.as_str()),
        ("ResourceSubType", kind),
        ("ResourceType", "20"),
    ];
    item(&fields, text);
}

/// Text that is no markup. Characters that XML does not have are left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '\t' | '\n' => escaped.push(character),
            '\u{fffe}' | '\u{ffff}' => {}
            other if other.is_control() => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use lodge_api::Size;

    use super::*;
    use crate::ova::ovf;

    #[test]
    fn what_is_written_is_read_again() {
        let spec = serde_json::json!({
            "name": "web", "description": "a < b & c\u{7}\nnext", "vcpus": 4, "cpu": {"cores": 2}, "memory": "96MiB",
            "disks": [{"disk": "one"}, {"disk": "two", "bus": "nvme"}, {"disk": "three", "bus": "sata"}],
            "cdroms": [{}, {"image": "disc"}],
            "nics": [{"mac": "52:54:00:00:00:01"}, {"network": "inside", "model": "e1000e"}],
        });
        let mut spec: VmSpec = serde_json::from_value(spec).unwrap();
        let file = |name: &str, capacity| File {
            name: name.to_owned(),
            length: 1000,
            capacity,
        };
        let files = [file("a", 3 << 20), file("b", 5 << 30), file("c", 1 << 20)];
        let machine = ovf::read(&write(&spec, &files)).unwrap();
        assert_eq!(machine.name, "web");
        assert_eq!(machine.description, "a < b & c\nnext");
        assert_eq!(
            (machine.vcpus, machine.cores_per_socket),
            (Some(4), Some(2))
        );
        assert_eq!(machine.memory, Some(Size::mib(96).0));
        assert_eq!(machine.firmware, Some(Firmware::Uefi));
        let disks: Vec<_> = machine
            .disks
            .iter()
            .map(|disk| (disk.file.as_deref().unwrap(), disk.capacity, disk.bus))
            .collect();
        let (sata, nvme) = (DiskBus::Sata, DiskBus::Nvme);
        assert_eq!(
            disks,
            [
                ("a", 3 << 20, sata),
                ("b", 5 << 30, nvme),
                ("c", 1 << 20, sata)
            ]
        );
        assert_eq!(machine.cdroms, 2);
        assert_eq!(machine.nics[0].mac.as_deref(), Some("52:54:00:00:00:01"));
        assert_eq!(machine.nics[1].network.as_deref(), Some("inside"));
        assert_eq!(machine.warnings, Vec::<String>::new());

        spec.boot.firmware = Some(Firmware::Bios);
        spec.disks.clear();
        spec.cdroms.clear();
        let machine = ovf::read(&write(&spec, &[])).unwrap();
        assert_eq!(machine.firmware, None);
        assert!(machine.disks.is_empty());
    }
}
