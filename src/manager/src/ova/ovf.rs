//! The descriptor of an OVA, by DMTF's DSP0243 (Open Virtualization Format 1.1 and 2.1): what machine it describes.

use lodge_api::vm::{DiskBus, Firmware, NicModel};

use super::xml::{self, Element};

/// A machine as a descriptor has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) vcpus: Option<u64>,
    pub(crate) cores_per_socket: Option<u64>,
    /// In bytes.
    pub(crate) memory: Option<u64>,
    pub(crate) firmware: Option<Firmware>,
    pub(crate) disks: Vec<MachineDisk>,
    pub(crate) cdroms: usize,
    pub(crate) nics: Vec<MachineNic>,
    /// What is not taken over, for people.
    pub(crate) warnings: Vec<String>,
}

/// A disk of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MachineDisk {
    /// The file of the archive; `None`: an empty disk.
    pub(crate) file: Option<String>,
    /// In bytes.
    pub(crate) capacity: u64,
    pub(crate) bus: DiskBus,
}

/// A network card of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MachineNic {
    pub(crate) model: NicModel,
    pub(crate) mac: Option<String>,
    /// What it is connected to where the machine comes from.
    pub(crate) network: Option<String>,
}

/// Resource types of CIM, those that matter.
mod resource {
    pub(super) const CPU: u32 = 3;
    pub(super) const MEMORY: u32 = 4;
    pub(super) const IDE: u32 = 5;
    pub(super) const SCSI: u32 = 6;
    pub(super) const NIC: u32 = 10;
    pub(super) const FLOPPY: u32 = 14;
    pub(super) const CD: u32 = 15;
    pub(super) const DVD: u32 = 16;
    pub(super) const DISK: u32 = 17;
    pub(super) const OTHER_STORAGE: u32 = 20;
    pub(super) const SERIAL: u32 = 21;
    pub(super) const USB: u32 = 23;
    pub(super) const GRAPHICS: u32 = 24;
}

/// Reads a descriptor.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn read(text: &str) -> Result<Machine, String> {
    let envelope = xml::parse(text)?;
    if envelope.name != "Envelope" {
        return Err(format!("it is no envelope but \"{}\"", envelope.name));
    }
    let system = envelope
        .child("VirtualSystem")
        .ok_or("it has no machine of its own; export the machines of a vApp one by one")?;
    let hardware = system
        .child("VirtualHardwareSection")
        .ok_or("it says nothing of the machine's hardware")?;
    let mut machine = Machine {
        name: system
            .text_of("Name")
            .or_else(|| system.attribute("id"))
            .unwrap_or_default()
            .to_owned(),
        description: annotation(system),
        firmware: firmware(hardware),
        ..Machine::default()
    };
    let files = Files::new(&envelope);
    let items: Vec<&Element> = hardware
        .children
        .iter()
        .filter(|child| {
            matches!(
                child.name.as_str(),
                "Item" | "StorageItem" | "EthernetPortItem"
            )
        })
        .collect();
    for item in &items {
        machine.add(item, &items, &files)?;
    }
    Ok(machine)
}

fn annotation(system: &Element) -> String {
    let section = system.child("AnnotationSection");
    let text = section.and_then(|section| section.text_of("Annotation"));
    text.unwrap_or_default().chars().take(1024).collect()
}

/// `vmw:Config` of VMware; VirtualBox has its own element in a section of its own.
fn firmware(hardware: &Element) -> Option<Firmware> {
    let config = hardware
        .all("Config")
        .find(|config| config.attribute("key") == Some("firmware"))?;
    match config.attribute("value")?.to_ascii_lowercase().as_str() {
        "efi" | "uefi" => Some(Firmware::Uefi),
        _ => Some(Firmware::Bios),
    }
}

/// Disks and files by their ids.
struct Files<'a> {
    disks: Vec<&'a Element>,
    files: Vec<&'a Element>,
}

impl<'a> Files<'a> {
    fn new(envelope: &'a Element) -> Self {
        let section = |section: &str, name: &'a str| -> Vec<&'a Element> {
            let sections = envelope
                .children
                .iter()
                .filter(|child| child.name == section);
            sections.flat_map(|section| section.all(name)).collect()
        };
        Self {
            disks: section("DiskSection", "Disk"),
            files: section("References", "File"),
        }
    }

    /// The disk that an item's `HostResource` names: `ovf:/disk/ID` or `/disk/ID`.
    fn disk(&self, resource: &str) -> Result<(Option<String>, u64), String> {
        let id = resource.rsplit('/').next().unwrap_or_default();
        let unknown = || format!("a disk of it is \"{resource}\", which it does not describe");
        let disk = find(&self.disks, "diskId", id).ok_or_else(unknown)?;
        if disk.attribute("parentRef").is_some() {
            return Err(format!("the disk \"{id}\" has only the changes to another"));
        }
        let capacity = disk.attribute("capacity").unwrap_or_default();
        let units = disk.attribute("capacityAllocationUnits").unwrap_or("byte");
        let capacity = capacity
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(unit(units)?))
            .ok_or_else(|| format!("the disk \"{id}\" has no size"))?;
        let Some(reference) = disk.attribute("fileRef") else {
            return Ok((None, capacity));
        };
        let file = find(&self.files, "id", reference);
        let href = file.and_then(|file| file.attribute("href"));
        let href = href.ok_or_else(|| format!("the disk \"{id}\" has no file"))?;
        if file.is_some_and(|file| {
            file.attribute("compression")
                .is_some_and(|kind| !kind.is_empty())
        }) {
            return Err(format!("the file \"{href}\" is compressed once more"));
        }
        Ok((Some(href.to_owned()), capacity))
    }
}

fn find<'a>(elements: &[&'a Element], attribute: &str, value: &str) -> Option<&'a Element> {
    let mut elements = elements.iter();
    elements
        .find(|element| element.attribute(attribute) == Some(value))
        .copied()
}

/// Bytes of a unit: `byte * 2^30`, `KiloBytes` and the like.
fn unit(text: &str) -> Option<u64> {
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let plain = plain.to_ascii_lowercase();
    match plain.as_str() {
        "" | "byte" | "bytes" => return Some(1),
        "kilobytes" | "kb" => return Some(1 << 10),
        "megabytes" | "mb" => return Some(1 << 20),
        "gigabytes" | "gb" => return Some(1 << 30),
        _ => {}
    }
    let factor = plain
        .strip_prefix("byte*")
        .or_else(|| plain.strip_prefix("bytes*"))?;
    match factor.split_once('^') {
        Some((base, power)) => base.parse::<u64>().ok()?.checked_pow(power.parse().ok()?),
        None => factor.parse().ok(),
    }
}

fn number(item: &Element, name: &str) -> Option<u64> {
    item.text_of(name)?.parse().ok()
}

impl Machine {
    fn add(&mut self, item: &Element, items: &[&Element], files: &Files<'_>) -> Result<(), String> {
        let kind = number(item, "ResourceType").and_then(|kind| u32::try_from(kind).ok());
        let kind = kind.ok_or("a part of its hardware has no type")?;
        match kind {
            resource::CPU => {
                self.vcpus = number(item, "VirtualQuantity");
                self.cores_per_socket = number(item, "CoresPerSocket");
            }
            resource::MEMORY => {
                let unit = unit(item.text_of("AllocationUnits").unwrap_or("MegaBytes"));
                let count = number(item, "VirtualQuantity");
                self.memory = count
                    .zip(unit)
                    .and_then(|(count, unit)| count.checked_mul(unit));
            }
            resource::DISK => {
                let host = item.text_of("HostResource").unwrap_or_default();
                let (file, capacity) = files.disk(host)?;
                let bus = self.bus(item, items);
                self.disks.push(MachineDisk {
                    file,
                    capacity,
                    bus,
                });
            }
            resource::CD | resource::DVD => self.cdroms += 1,
            resource::NIC => self.add_nic(item),
            // Controllers are looked at with what is on them; what every machine has is not missed.
            resource::IDE | resource::SCSI | resource::OTHER_STORAGE | resource::GRAPHICS => {}
            resource::FLOPPY | resource::SERIAL | resource::USB => self.left_out(item),
            _ => self.left_out(item),
        }
        Ok(())
    }

    fn left_out(&mut self, item: &Element) {
        let name = item
            .text_of("ElementName")
            .or_else(|| item.text_of("Description"));
        let name: String = name
            .unwrap_or("a part without a name")
            .chars()
            .take(60)
            .collect();
        self.warnings.push(format!("{name} is left out"));
    }

    /// What a disk hangs on here: what needs no driver that the guest might not have.
    fn bus(&mut self, item: &Element, items: &[&Element]) -> DiskBus {
        let parent = item.text_of("Parent");
        let controller = items
            .iter()
            .find(|other| parent.is_some() && other.text_of("InstanceID") == parent);
        let kind = controller.and_then(|controller| controller.text_of("ResourceSubType"));
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        if kind.contains("nvme") {
            DiskBus::Nvme
        } else if kind.contains("virtio") && !kind.contains("scsi") {
            DiskBus::Virtio
        } else {
            DiskBus::Sata
        }
    }

    fn add_nic(&mut self, item: &Element) {
        let kind = item.text_of("ResourceSubType").unwrap_or_default();
        let model = if kind.to_ascii_lowercase().contains("virtio") {
            NicModel::Virtio
        } else {
            NicModel::E1000e
        };
        let known = matches!(
            kind.to_ascii_lowercase().as_str(),
            "e1000" | "e1000e" | "virtio" | ""
        );
        if !known {
            let kind: String = kind.chars().take(40).collect();
            self.warnings.push(format!(
                "a network card of model {kind} becomes an Intel 82574L (e1000e)"
            ));
        }
        self.nics.push(MachineNic {
            model,
            mac: item.text_of("Address").map(str::to_ascii_lowercase),
            network: item.text_of("Connection").map(str::to_owned),
        });
    }
}
