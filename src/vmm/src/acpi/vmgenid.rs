//! How a guest finds its generation id, and hears of a new one.

use acpi_tables::aml::{Device, Method, Name, Notify, Package, Path, Scope};
use lodge_devices::vmgenid::EVENT;

use super::serialize;
use crate::layout::GENERATION_ID;

const _: () = assert!(EVENT == 0x05, "the name of the event's method");

/// "Device specific": the value that the specification of the generation id gives a meaning.
const CHANGED: u8 = 0x80;

/// The device. The first compatible id is the specification's, and longer than ACPI allows; the second is its short form.
pub fn device() -> Vec<u8> {
    let compatible = Package::new(vec![&"VM_Gen_Counter", &"VMGENCTR"]);
    let (low, high) = (GENERATION_ID as u32, (GENERATION_ID >> 32) as u32);
    serialize(&Device::new(
        "VGEN".into(),
        vec![
            &Name::new("_HID".into(), &"LODGVGID"),
            &Name::new("_CID".into(), &compatible),
            &Name::new("_DDN".into(), &"VM_Gen_Counter"),
            &Name::new("ADDR".into(), &Package::new(vec![&low, &high])),
        ],
    ))
}

/// What the general purpose event runs.
pub fn event() -> Vec<u8> {
    let device = Path::new("\\_SB_.VGEN");
    let notify = Notify::new(&device, &CHANGED);
    let method = Method::new("_E05".into(), 0, false, vec![&notify]);
    serialize(&Scope::new("\\_GPE".into(), vec![&method]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_where_the_page_is() {
        // Name (ADDR, Package () { 0xfeffb000, 0 }): ACPI 6.5, 20.2.
        let expected = b"\x08ADDR\x12\x08\x02\x0c\x00\xb0\xff\xfe\x00";
        let device = device();
        let found = device
            .windows(expected.len())
            .any(|bytes| bytes == expected);
        assert!(found, "{device:02x?}");
        // Notify (\_SB.VGEN, 0x80)
        assert!(event().ends_with(b"_E05\x00\x86\\\x2e_SB_VGEN\x0a\x80"));
    }
}
