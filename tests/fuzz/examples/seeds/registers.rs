//! Drivers of devices that are all registers.

use super::script::{Script, Seed};

/// Registers of a board's range begin there: offsets before it are before the range.
const AT: u16 = 4;

/// Ranges of the whole machine with the ports and memory of configuration space only.
const CONFIG_PORTS: u8 = 0;
const ECAM_OF_SATA: u8 = 1;
const ECAM_OF_FIRST_VIRTIO: u8 = 3;

/// Ranges of the whole machine.
const FW_CFG: u8 = 8;
const SATA: u8 = 10;
const FIRST_BAR: u8 = 17;

/// Inputs for all of them.
pub fn seeds() -> Vec<Seed> {
    vec![
        ("serial", "driver", serial()),
        ("cmos", "clock", cmos()),
        ("i8042", "driver", i8042()),
        ("acpi_pm", "buttons", acpi_pm()),
        ("hotplug", "plug", hotplug()),
        ("fw_cfg", "files", fw_cfg()),
        ("fw_cfg", "screen", screen()),
        ("pflash", "variables", pflash()),
        ("pci_config", "probe", pci_config()),
        ("devices", "boot", devices().bytes()),
        ("saved_devices", "forged", saved_devices()),
    ]
}

fn serial() -> Vec<u8> {
    Script::default()
        // Divisor, 8N1, FIFO, interrupts, loopback off.
        .write(0, AT + 3, &[0x80])
        .write(0, AT, &[1])
        .write(0, AT + 1, &[0])
        .write(0, AT + 3, &[3])
        .write(0, AT + 2, &[0xc7])
        .write(0, AT + 4, &[0xb])
        .write(0, AT + 1, &[0xf])
        .write(0, AT, b"H")
        .read(0, AT + 2, 1)
        .host(0, b"typed text that is longer than the FIFO")
        .read(0, AT + 5, 1)
        .read(0, AT, 1)
        .write(0, AT + 4, &[0x1b])
        .save_restore()
        .bytes()
}

fn cmos() -> Vec<u8> {
    let mut script = Script::default();
    for (index, value) in [
        (0xb, 0x02),
        (0xa, 0x26),
        (5, 1),
        (3, 2),
        (1, 3),
        (0xb, 0x72),
    ] {
        script = script.write(0, AT, &[index]).write(0, AT + 1, &[value]);
    }
    for index in [0, 2, 4, 7, 8, 9, 0xc, 0xd, 0x32, 0x70] {
        script = script.write(0, AT, &[index]).read(0, AT + 1, 1);
    }
    script.save_restore().bytes()
}

fn i8042() -> Vec<u8> {
    let mut script = Script::default();
    // Self tests, both ports on with interrupts, then keyboard and mouse as Linux sets them up.
    for command in [0xaa, 0xab, 0xa9, 0xae, 0xa8, 0x20] {
        script = script.write(0, AT + 4, &[command]).read(0, AT, 1);
    }
    script = script.write(0, AT + 4, &[0x60]).write(0, AT, &[0x47]);
    for byte in [0xff, 0xf2, 0xed, 7, 0xf0, 2, 0xf3, 0, 0xf4] {
        script = script
            .write(0, AT, &[byte])
            .read(0, AT + 4, 1)
            .read(0, AT, 1);
    }
    for byte in [
        0xff, 0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf2, 0xe8, 3, 0xe9, 0xf4,
    ] {
        script = script
            .write(0, AT + 4, &[0xd4])
            .write(0, AT, &[byte])
            .read(0, AT, 1);
    }
    script
        .host(4, &0x61_u32.to_le_bytes())
        .host(0, &0x61_u32.to_le_bytes())
        .host(7, &[5, 0, 0, 0, 0xfb, 0xff, 0xff, 0xff, 1, 0, 0, 0])
        .read(0, AT, 1)
        .read(0, AT, 1)
        .save_restore()
        .host(1, &[])
        .bytes()
}

fn acpi_pm() -> Vec<u8> {
    Script::default()
        .write(0, AT + 2, &[0x21, 1])
        .write(0, AT + 4, &[1, 0])
        .host(0, &[])
        .read(0, AT, 2)
        .write(0, AT, &[0, 1])
        .host(1, &[3])
        .read(0, AT + 8, 4)
        .save_restore()
        .write(0, AT + 4, &[1, 0x34])
        .bytes()
}

/// As the methods of the DSDT do it: a device comes, is asked for, kept, asked for again and ejected.
fn hotplug() -> Vec<u8> {
    let slot = (1_u32 << 9).to_le_bytes();
    Script::default()
        .host(0, &[9])
        .read(0, AT, 4)
        .write(0, AT, &slot)
        .host(1, &[9])
        .read(0, AT + 4, 4)
        .write(0, AT + 4, &slot)
        .host(2, &[9])
        .save_restore()
        .host(1, &[9])
        .write(0, AT + 8, &slot)
        .host(3, &[9])
        .read(0, AT, 4)
        .bytes()
}

/// A DMA request at 0x1000: control word, length, address.
fn dma(control: u32, length: u32, address: u64) -> Script {
    let mut request = control.to_be_bytes().to_vec();
    request.extend(length.to_be_bytes());
    request.extend(address.to_be_bytes());
    Script::default()
        .put(0x1000, &request)
        .write(0, AT + 4, &0_u32.to_be_bytes())
        .write(0, AT + 8, &0x1000_u32.to_be_bytes())
}

fn fw_cfg() -> Vec<u8> {
    let mut script = Script::default();
    for key in [0_u16, 1, 0x19, 0x20, 0x21] {
        script = script.write(0, AT, &key.to_le_bytes());
        for _ in 0..4 {
            script = script.read(0, AT + 1, 1);
        }
    }
    // Select and read, skip, read more.
    let mut bytes = script.bytes();
    bytes.extend(dma(0x19 << 16 | 0xa, 64, 0x2000).bytes());
    bytes.extend(dma(4, 10, 0).bytes());
    bytes.extend(dma(2, 1000, 0x7_fff0).save_restore().bytes());
    bytes
}

fn screen() -> Vec<u8> {
    // 32 by 24 pixels of XRGB8888 at 0x10000, in big-endian.
    let mut config = 0x1_0000_u64.to_be_bytes().to_vec();
    for field in [0x3432_5258_u32, 0, 32, 24, 128] {
        config.extend(field.to_be_bytes());
    }
    let mut bytes = Script::default().put(0x3000, &config).bytes();
    bytes.extend(
        dma(0x21 << 16 | 0x18, 28, 0x3000)
            .host(0, &[])
            .save_restore()
            .bytes(),
    );
    bytes
}

fn pflash() -> Vec<u8> {
    Script::default()
        .write(0, AT, &[0x70])
        .read(0, AT, 1)
        .write(0, AT + 16, &[0x40])
        .write(0, AT + 16, &[0x55])
        .write(0, AT, &[0xff])
        .read(0, AT + 16, 8)
        .write(0, AT, &[0x20])
        .write(0, AT, &[0xd0])
        .save_restore()
        .write(0, AT, &[0x50])
        .write(0, AT, &[0xff])
        .bytes()
}

fn pci_config() -> Vec<u8> {
    let mut script = Script::default();
    for device in [0_u32, 1, 2, 3, 31] {
        let address = 0x8000_0000 | device << 11;
        script =
            script
                .write(CONFIG_PORTS, AT, &address.to_le_bytes())
                .read(CONFIG_PORTS, AT + 4, 4);
    }
    // Sizes a BAR, moves it, turns decoding on, then MSI-X; the same through memory; PCIEXBAR.
    script
        .write(ECAM_OF_FIRST_VIRTIO, AT + 4, &[0, 0])
        .write(ECAM_OF_FIRST_VIRTIO, AT + 0x10, &[0xff; 4])
        .read(ECAM_OF_FIRST_VIRTIO, AT + 0x10, 4)
        .write(
            ECAM_OF_FIRST_VIRTIO,
            AT + 0x10,
            &0xd000_0000_u64.to_le_bytes(),
        )
        .write(ECAM_OF_FIRST_VIRTIO, AT + 4, &[6, 0])
        .write(ECAM_OF_FIRST_VIRTIO, AT + 0x42, &[0, 0x80])
        .write(ECAM_OF_SATA, AT + 0x24, &0xd000_0000_u32.to_le_bytes())
        .write(ECAM_OF_SATA, AT + 0x82, &[1, 0])
        .save_restore()
        .write(2, AT + 0x60, &0xb000_0001_u64.to_le_bytes())
        .write(CONFIG_PORTS, AT + 1, &[6])
        .bytes()
}

/// A bit of everything.
fn devices() -> Script {
    let mut script = Script::default();
    for range in 0..20 {
        script = script.read(range, AT, 4);
    }
    script = script
        .write(FW_CFG, AT, &[0x19, 0])
        .read(FW_CFG, AT + 1, 1)
        .write(SATA, AT + 4, &[2, 0, 0, 0x80])
        .write(SATA, AT + 0x198, &[0x11, 0, 0, 0]);
    for status in [1, 3, 11, 15] {
        script = script
            .write(FIRST_BAR, AT + 8, &[1, 0, 0, 0])
            .write(FIRST_BAR, AT + 0xc, &[1, 0, 0, 0])
            .write(FIRST_BAR, AT + 0x14, &[status]);
    }
    script.save_restore().power_cycle()
}

fn saved_devices() -> Vec<u8> {
    let before = Script::default()
        .write(0, AT + 3, &[0x80])
        .write(3, AT + 4, &[0xaa])
        .bytes();
    // Device, field, kind of value, value.
    let forgeries = [
        0, 0, 0, 0, 200, 3, 1, 0, 2, 0xff, 0xff, 9, 3, 0, 7, 2, 14, 200, 0, 1, 5,
    ];
    let mut bytes = vec![before.len() as u8];
    bytes.extend(before);
    bytes.push(forgeries.len() as u8);
    bytes.extend(forgeries);
    bytes.extend(Script::default().read(0, AT, 1).power_cycle().bytes());
    bytes
}
