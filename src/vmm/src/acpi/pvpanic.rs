//! How a guest finds the port at which it says that it has crashed. Names and methods are QEMU's, for which drivers look.

use acpi_tables::aml::{
    Arg, Device, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, Method,
    Name, OpRegion, OpRegionSpace, Path, ResourceTemplate, Return, Store,
};
use lodge_devices::pvpanic::{PVPANIC_PORT, PVPANIC_PORT_LENGTH};

use super::serialize;

/// The device.
pub fn device() -> Vec<u8> {
    let (port, length) = (PVPANIC_PORT as u16, PVPANIC_PORT_LENGTH as u8);
    let ports = IO::new(port, port, 1, length);
    let region = OpRegion::new("PEOR".into(), OpRegionSpace::SystemIO, &port, &length);
    let field = Field::new(
        "PEOR".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        vec![FieldEntry::Named(*b"PEPT", 8)],
    );
    let value = Path::new("PEPT");
    let read = Return::new(&value);
    let write = Store::new(&value, &Arg(0));
    serialize(&Device::new(
        "PEVT".into(),
        vec![
            &Name::new("_HID".into(), &"QEMU0001"),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports])),
            &region,
            &field,
            &Method::new("RDPT".into(), 0, false, vec![&read]),
            &Method::new("WRPT".into(), 1, false, vec![&write]),
        ],
    ))
}
