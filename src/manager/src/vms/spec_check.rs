//! Checking a guest's configuration: each error names the field and the way out.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use lodge_api::image::ImageKind;
use lodge_api::vm::{NicModel, VmDisk, VmNic, VmSpec};
use lodge_api::{Name, Problem, Size};
use lodge_store::{Snapshot, Versioned};
use uuid::Uuid;

use super::{VmRecord, boot, cpu, disc};
use crate::backups;
use crate::catalogue;
use crate::cloud_init;
use crate::disks::DiskRecord;
use crate::images::ImageRecord;
use crate::networks::NetworkRecord;
use crate::snapshots;

const MAX_DESCRIPTION: usize = 1024;
const MAX_VCPUS: u8 = lodge_vmm_proto::MAX_VCPUS;
const MIN_MEMORY: Size = Size(lodge_vmm_proto::MIN_MEMORY);
const MAX_DISKS: usize = 16;
const MAX_NICS: usize = 8;
/// Pairs of queues of a network interface.
const QUEUES: RangeInclusive<u8> = 1..=lodge_vmm_proto::NicConfig::MAX_QUEUE_PAIRS as u8;

/// The first three bytes of the addresses made up here: locally administered, as KVM guests use them.
const MAC_PREFIX: [u8; 3] = [0x52, 0x54, 0x00];

/// What the configuration is checked against.
pub(crate) struct Surroundings<'a> {
    pub(crate) snapshot: &'a Snapshot,
    /// Memory of the host in bytes.
    pub(crate) host_memory: u64,
    /// The guest itself, when it exists already.
    pub(crate) own: Option<&'a Versioned<VmRecord>>,
}

/// Checks a configuration and fills in what is left to us: firmware, MAC addresses.
pub(crate) fn check(spec: &mut VmSpec, around: &Surroundings<'_>) -> Result<(), Problem> {
    let schedule = spec.backup_schedule.as_ref();
    schedule.map_or(Ok(()), |schedule| {
        backups::require_target(schedule, around.snapshot)
    })?;
    check_beside(spec, around, &mut others_macs(around))
}

/// The same beside guests that have the MAC addresses `taken`, to which its own are added.
pub(crate) fn check_beside(
    spec: &mut VmSpec,
    around: &Surroundings<'_>,
    taken: &mut HashSet<String>,
) -> Result<(), Problem> {
    check_values(spec, around.host_memory)?;
    cpu::configured(spec)?;
    boot::check(spec, around.snapshot)?;
    check_disks(&spec.disks, around.snapshot)?;
    disc::check(spec, around.snapshot)?;
    spec.cloud_init.as_ref().map_or(Ok(()), cloud_init::check)?;
    let schedule = spec.snapshot_schedule.as_ref();
    schedule.map_or(Ok(()), snapshots::check_schedule)?;
    let schedule = spec.backup_schedule.as_ref();
    schedule.map_or(Ok(()), backups::check_schedule)?;
    check_queues(spec)?;
    check_nics(&mut spec.nics, around, taken)
}

fn check_values(spec: &VmSpec, host_memory: u64) -> Result<(), Problem> {
    let invalid = |pointer: &str, detail: String, hint: String| {
        Err(Problem::invalid(pointer, detail).with_hint(hint))
    };
    if spec.description.chars().count() > MAX_DESCRIPTION {
        return invalid(
            "/description",
            "the description is too long".to_owned(),
            format!("use at most {MAX_DESCRIPTION} characters"),
        );
    }
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if !spec.description.chars().all(printable) {
        return invalid(
            "/description",
            "the description has control characters".to_owned(),
            "use text, line breaks and tabs only".to_owned(),
        );
    }
    if !(1..=MAX_VCPUS).contains(&spec.vcpus) {
        return invalid(
            "/vcpus",
            format!("{} virtual CPUs are not possible", spec.vcpus),
            format!("give 1 to {MAX_VCPUS}"),
        );
    }
    let memory = spec.memory;
    if memory < MIN_MEMORY || !memory.bytes().is_multiple_of(Size::mib(1).bytes()) {
        return invalid(
            "/memory",
            format!("{} bytes of memory are not possible", memory.bytes()),
            format!("give a multiple of 1 MiB, at least {MIN_MEMORY}"),
        );
    }
    if memory.bytes() > host_memory {
        return invalid(
            "/memory",
            format!("{memory} are more than the host has"),
            format!("the host has {}", Size(host_memory)),
        );
    }
    Ok(())
}

/// The image of that name, if it is of the right kind.
pub(crate) fn image(
    snapshot: &Snapshot,
    name: &Name,
    kind: ImageKind,
    pointer: &str,
) -> Result<ImageRecord, Problem> {
    let word = match kind {
        ImageKind::Kernel => "kernel",
        ImageKind::Initrd => "initrd",
        ImageKind::Disk => "disk",
        ImageKind::Iso => "iso",
    };
    match catalogue::find_optional::<ImageRecord>(snapshot, name.as_str())? {
        None => Err(
            Problem::invalid(pointer, format!("there is no image \"{name}\""))
                .with_hint(format!("upload it first, as an image of kind `{word}`")),
        ),
        Some(image) if image.value.kind != kind => Err(Problem::invalid(
            pointer,
            format!("the image \"{name}\" is not of kind `{word}`"),
        )
        .with_hint(format!("choose an image of kind `{word}`"))),
        Some(image) => Ok(image.value),
    }
}

fn check_disks(disks: &[VmDisk], snapshot: &Snapshot) -> Result<(), Problem> {
    if disks.len() > MAX_DISKS {
        return Err(Problem::invalid("/disks", "too many disks")
            .with_hint(format!("a guest may have {MAX_DISKS}")));
    }
    let mut seen = HashSet::new();
    for (number, entry) in disks.iter().enumerate() {
        let pointer = format!("/disks/{number}/disk");
        disk(snapshot, &entry.disk, &pointer)?;
        if !seen.insert(&entry.disk) {
            return Err(Problem::invalid(
                pointer,
                format!("the disk \"{}\" is listed twice", entry.disk),
            )
            .with_hint("list each disk once"));
        }
    }
    Ok(())
}

/// The disk of that name.
pub(crate) fn disk(snapshot: &Snapshot, name: &Name, pointer: &str) -> Result<DiskRecord, Problem> {
    catalogue::find_optional::<DiskRecord>(snapshot, name.as_str())?
        .map(|disk| disk.value)
        .ok_or_else(|| {
            Problem::invalid(pointer, format!("there is no disk \"{name}\""))
                .with_hint("make it first with POST /v1/disks")
        })
}

fn check_nics(
    nics: &mut [VmNic],
    around: &Surroundings<'_>,
    taken: &mut HashSet<String>,
) -> Result<(), Problem> {
    if nics.len() > MAX_NICS {
        return Err(Problem::invalid("/nics", "too many network interfaces")
            .with_hint(format!("a guest may have {MAX_NICS}")));
    }
    for (number, nic) in nics.iter_mut().enumerate() {
        let network = &nic.network;
        if catalogue::find_optional::<NetworkRecord>(around.snapshot, network.as_str())?.is_none() {
            return Err(Problem::invalid(
                format!("/nics/{number}/network"),
                format!("there is no network \"{network}\""),
            )
            .with_hint("make it first with POST /v1/networks, or use \"default\""));
        }
        let pointer = format!("/nics/{number}/mac");
        let Some(text) = &nic.mac else { continue };
        let mac = parse_mac(text).map_err(|detail| {
            Problem::invalid(pointer.clone(), detail)
                .with_hint("write a unicast address like 52:54:00:12:34:56, or leave it out")
        })?;
        let text = show_mac(mac);
        if !taken.insert(text.clone()) {
            return Err(
                Problem::invalid(pointer, format!("the address {text} is in use"))
                    .with_hint("leave it out, and one is made up"),
            );
        }
        nic.mac = Some(text);
    }
    fill_macs(nics, around.own, taken)
}

/// Refuses pairs of queues that a network interface cannot have, or nobody could use.
fn check_queues(spec: &VmSpec) -> Result<(), Problem> {
    for (number, nic) in spec.nics.iter().enumerate() {
        let queues = nic.queues.unwrap_or(1);
        let vcpus = spec.vcpus;
        let (detail, hint) = if !QUEUES.contains(&queues) {
            (
                format!("{queues} pairs of queues are not possible"),
                format!("give {} to {}", QUEUES.start(), QUEUES.end()),
            )
        } else if queues > 1 && nic.model != NicModel::Virtio {
            (
                "only a virtio interface has several pairs of queues".to_owned(),
                "leave the field out, or make the model `virtio`".to_owned(),
            )
        } else if queues > 1 && queues > vcpus {
            (
                format!("{queues} pairs of queues are more than the guest has vCPUs, {vcpus}"),
                format!("give at most {vcpus}, or more vCPUs: each uses one pair"),
            )
        } else {
            continue;
        };
        return Err(Problem::invalid(format!("/nics/{number}/queues"), detail).with_hint(hint));
    }
    Ok(())
}

/// Keeps the address an interface had, or makes one up.
fn fill_macs(
    nics: &mut [VmNic],
    own: Option<&Versioned<VmRecord>>,
    taken: &mut HashSet<String>,
) -> Result<(), Problem> {
    for (number, nic) in nics.iter_mut().enumerate() {
        if nic.mac.is_some() {
            continue;
        }
        let before = own
            .and_then(|vm| vm.value.spec.nics.get(number)?.mac.clone())
            .filter(|mac| taken.insert(mac.clone()));
        nic.mac = match before {
            Some(mac) => Some(mac),
            None => loop {
                let [a, b, c] = crate::password::random_bytes()?;
                let [x, y, z] = MAC_PREFIX;
                let mac = show_mac([x, y, z, a, b, c]);
                if taken.insert(mac.clone()) {
                    break Some(mac);
                }
            },
        };
    }
    Ok(())
}

fn others_macs(around: &Surroundings<'_>) -> HashSet<String> {
    let own: Option<Uuid> = around.own.map(|vm| vm.value.id);
    catalogue::list::<VmRecord>(around.snapshot)
        .into_iter()
        .filter(|vm| Some(vm.value.id) != own)
        .flat_map(|vm| vm.value.spec.nics)
        .filter_map(|nic| nic.mac)
        .collect()
}

/// A unicast MAC address.
pub(crate) fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let shown = catalogue::shown(text);
    let mut mac = [0; 6];
    let mut pairs = text.split(':');
    for byte in &mut mac {
        let pair = pairs.next().unwrap_or("");
        let valid = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
        *byte = u8::from_str_radix(pair, 16)
            .ok()
            .filter(|_| valid)
            .ok_or_else(|| format!("\"{shown}\" is not a MAC address"))?;
    }
    if pairs.next().is_some() {
        return Err(format!("\"{shown}\" is not a MAC address"));
    }
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(format!("\"{shown}\" is not the address of an interface"));
    }
    Ok(mac)
}

pub(super) fn show_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use lodge_api::vm::{NicLink, VmNicLimits};

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_unicast_and_normalised() {
        let show = |text: &str| parse_mac(text).map(show_mac);
        assert_eq!(show("52:54:00:AB:cd:0f").unwrap(), "52:54:00:ab:cd:0f");
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "5:54:00:12:34:56",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "+2:54:00:12:34:56",
        ] {
            assert!(show(text).is_err(), "{text}");
        }
    }

    fn spec() -> VmSpec {
        serde_json::from_str(r#"{"name": "web", "boot": {"kernel": "k"}}"#).unwrap()
    }

    #[test]
    fn values_out_of_range_are_pointed_at() {
        let host = 1 << 30;
        assert!(check_values(&spec(), host).is_ok());
        type Change = fn(&mut VmSpec);
        let changes: [(&str, Change); 7] = [
            ("/vcpus", |spec| spec.vcpus = 0),
            ("/vcpus", |spec| spec.vcpus = 65),
            ("/memory", |spec| spec.memory = Size::mib(15)),
            ("/memory", |spec| {
                spec.memory = Size(Size::mib(64).bytes() + 4096);
            }),
            ("/memory", |spec| spec.memory = Size::gib(2)),
            ("/description", |spec| spec.description = "x".repeat(1025)),
            ("/description", |spec| {
                spec.description = "\u{1b}[31m".to_owned();
            }),
        ];
        for (pointer, change) in changes {
            let mut spec = spec();
            change(&mut spec);
            let problem = check_values(&spec, host).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some(pointer));
            assert!(problem.hint.is_some());
        }
    }

    #[test]
    fn pairs_of_queues_need_a_virtio_card_and_vcpus() {
        let checked = |vcpus, nic: &str| {
            let mut spec = spec();
            spec.vcpus = vcpus;
            spec.nics = vec![
                serde_json::from_str("{}").unwrap(),
                serde_json::from_str(nic).unwrap(),
            ];
            check_queues(&spec)
        };
        for (vcpus, nic) in [
            (1, r#"{"queues": 1}"#),
            (4, r#"{"queues": 4}"#),
            (64, r#"{"queues": 8}"#),
            (4, r#"{"queues": 1, "model": "e1000e"}"#),
        ] {
            assert_eq!(checked(vcpus, nic), Ok(()), "{nic}");
        }
        for (vcpus, nic, says) in [
            (64, r#"{"queues": 0}"#, "0 pairs of queues are not possible"),
            (64, r#"{"queues": 9}"#, "9 pairs of queues are not possible"),
            (4, r#"{"queues": 2, "model": "e1000e"}"#, "only a virtio"),
            (2, r#"{"queues": 3}"#, "more than the guest has vCPUs, 2"),
        ] {
            let problem = checked(vcpus, nic).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some("/nics/1/queues"));
            assert!(problem.detail.contains(says), "{problem:?}");
            assert!(problem.hint.is_some());
        }
    }

    #[test]
    fn what_is_missing_is_pointed_at() {
        let snapshot = Snapshot::default();
        let around = Surroundings {
            snapshot: &snapshot,
            host_memory: 1 << 30,
            own: None,
        };
        let problem = check(&mut spec(), &around).unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some("/boot/kernel"));
        let disks = [VmDisk {
            disk: "d".parse().unwrap(),
            read_only: false,
            bus: lodge_api::vm::DiskBus::Virtio,
            limits: lodge_api::vm::VmDiskLimits::default(),
            on_error: lodge_api::vm::OnDiskError::default(),
        }];
        let problem = check_disks(&disks, &snapshot).unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some("/disks/0/disk"));
    }

    #[test]
    fn a_made_up_address_stays() {
        let mut taken = HashSet::new();
        let nic = || VmNic {
            network: "default".parse().unwrap(),
            mac: None,
            model: NicModel::default(),
            link: NicLink::default(),
            queues: None,
            limits: VmNicLimits::default(),
        };
        let mut nics = [nic(), nic()];
        fill_macs(&mut nics, None, &mut taken).unwrap();
        assert_ne!(nics[0].mac, nics[1].mac);
        let mut spec = spec();
        spec.nics = nics.to_vec();
        let own = Versioned {
            value: VmRecord::new(spec),
            revision: 1,
        };
        let mut again = [nic(), nic(), nic()];
        fill_macs(&mut again, Some(&own), &mut HashSet::new()).unwrap();
        assert_eq!(again[..2], nics);
        assert!(again[2].mac.is_some());
    }

    proptest! {
        #[test]
        fn no_address_panics(text in ".{0,30}") {
            if let Ok(mac) = parse_mac(&text) {
                prop_assert_eq!(show_mac(mac), text.to_ascii_lowercase());
            }
        }
    }
}
