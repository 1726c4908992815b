//! How a guest hears of PCI functions that come and go, and gives them up (ACPI 6.5, 5.6.6 and 6.3).

use acpi_tables::Aml;
use acpi_tables::aml::{
    And, Device, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If, Local,
    Method, Name, Notify, OpRegion, OpRegionSpace, Path, Scope, Store, ZERO,
};
use lodge_devices::hotplug::{
    DOWN, EJECT, EVENT, HOTPLUG_PORTS, HOTPLUG_PORTS_LENGTH, HOTPLUG_SLOTS, UP,
};

use super::{Raw, serialize};

const _: () = assert!(EVENT == 0x01, "the name of the event's method");
const _: () = assert!(
    UP == 0 && DOWN == 4 && EJECT == 8,
    "the order of the fields"
);

/// Look at everything below (ACPI 6.5, 5.6.6).
const BUS_CHECK: u8 = 0;
/// Look whether the device is there.
const DEVICE_CHECK: u8 = 1;
/// Give the device up.
const EJECT_REQUEST: u8 = 3;

/// What belongs into the host bridge's device: the registers, and a device for each slot.
pub fn slots() -> Vec<u8> {
    let mut aml = registers();
    for slot in HOTPLUG_SLOTS {
        aml.extend(device(slot));
    }
    aml
}

fn registers() -> Vec<u8> {
    let (port, length) = (HOTPLUG_PORTS as u16, HOTPLUG_PORTS_LENGTH as u8);
    let region = OpRegion::new("HPRG".into(), OpRegionSpace::SystemIO, &port, &length);
    let fields = [*b"HPUP", *b"HPDN", *b"HPEJ"];
    let fields = fields.map(|name| FieldEntry::Named(name, 32));
    let field = Field::new(
        "HPRG".into(),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        fields.into(),
    );
    let mut aml = serialize(&region);
    aml.extend(serialize(&field));
    aml
}

fn name(slot: u8) -> String {
    format!("S{slot:03}")
}

/// A slot. Whether something is in it, configuration space says.
fn device(slot: u8) -> Vec<u8> {
    let address = u32::from(slot) << 16;
    let bit = 1_u32 << slot;
    let register = Path::new("HPEJ");
    let eject = Store::new(&register, &bit);
    serialize(&Device::new(
        name(slot).as_str().into(),
        vec![
            &Name::new("_ADR".into(), &address),
            &Name::new("_SUN".into(), &slot),
            &Method::new("_EJ0".into(), 1, false, vec![&eject]),
        ],
    ))
}

/// What the general purpose event runs: takes what there is to tell, and tells it.
pub fn event() -> Vec<u8> {
    let path = |name: &str| Path::new(&format!("\\_SB_.PCI0.{name}"));
    let (up, down) = (path("HPUP"), path("HPDN"));
    let mut steps = Vec::new();
    for (local, register) in [(0, &up), (1, &down)] {
        steps.push(serialize(&Store::new(&Local(local), register)));
        steps.push(serialize(&Store::new(register, &Local(local))));
    }
    steps.push(tell(0, 1, &Path::new("\\_SB_.PCI0"), BUS_CHECK));
    for slot in HOTPLUG_SLOTS {
        let (device, bit) = (path(&name(slot)), 1 << slot);
        steps.push(tell(0, bit, &device, DEVICE_CHECK));
        steps.push(tell(1, bit, &device, EJECT_REQUEST));
    }
    let steps: Vec<Raw> = steps.into_iter().map(Raw).collect();
    let steps = steps.iter().map(|step| step as &dyn Aml);
    let method = Method::new("_E01".into(), 0, true, steps.collect());
    serialize(&Scope::new("\\_GPE".into(), vec![&method]))
}

/// `If (Local & bit) { Notify (device, value) }`
fn tell(local: u8, bit: u32, device: &Path, value: u8) -> Vec<u8> {
    let local = Local(local);
    let told = And::new(&ZERO, &local, &bit);
    serialize(&If::new(&told, vec![&Notify::new(device, &value)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_where_it_says_and_gives_up_its_own() {
        let slots = slots();
        let has = |expected: &[u8]| slots.windows(expected.len()).any(|bytes| bytes == expected);
        // Name (_ADR, 0x00090000), Name (_SUN, 9), Method (_EJ0, 1) { HPEJ = 0x200 }: ACPI 6.5, 20.2.
        assert!(has(b"S009\x08_ADR\x0c\x00\x00\x09\x00\x08_SUN\x0a\x09"));
        assert!(has(b"_EJ0\x01\x70\x0b\x00\x02HPEJ"));
        assert!(has(b"HPRG\x01\x0b\x80\x0d\x0a\x0c"));
        let event = event();
        // If (Local1 & 0x200) { Notify (\_SB.PCI0.S009, 3) }
        let wanted = b"\x7b\x61\x0b\x00\x02\x00\x86\\\x2f\x03_SB_PCI0S009\x0a\x03";
        assert!(event.windows(wanted.len()).any(|bytes| bytes == wanted));
    }
}
