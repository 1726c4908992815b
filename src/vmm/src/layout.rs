//! The guest-physical address map: where memory, windows and boot data lie.
//!
//! The shape is that of a Q35 machine, so that firmware and systems that know
//! one find their way:
//!
//! | range | what |
//! | --- | --- |
//! | 0 – 640 KiB | memory |
//! | 640 KiB – 1 MiB | memory, reserved: ACPI tables, SMBIOS |
//! | 1 MiB – [`LOW_MEMORY_END`] | memory |
//! | [`ECAM_BASE`] | PCI Express configuration space, 256 MiB |
//! | [`PCI_WINDOW_BASE`] – [`PCI_WINDOW_END`] | 32-bit PCI memory window |
//! | [`IO_APIC_BASE`], [`LOCAL_APIC_BASE`] | interrupt controllers |
//! | [`GENERATION_ID`] | a page with the id of this instance of the guest |
//! | [`KVM_PRIVATE_BASE`] | four pages that KVM on Intel needs for itself |
//! | – [`FIRMWARE_END`] | firmware: variables, then code up to the end |
//! | [`HIGH_MEMORY_BASE`] – | the rest of memory |

/// End of memory below 4 GiB, at most.
pub const LOW_MEMORY_END: u64 = 0xb000_0000;

/// PCI Express enhanced configuration space (ECAM).
pub const ECAM_BASE: u64 = 0xb000_0000;

/// Length of ECAM: the chipset decodes 256 buses, whatever is on them.
pub const ECAM_LENGTH: u64 = 256 << 20;

/// The last bus a guest is told of. There are no bridges, and Linux looks at
/// every device of every bus it hears about: 255 empty ones take it 180 ms.
pub const LAST_BUS: u8 = 0;

/// First address of the 32-bit window for PCI memory BARs.
pub const PCI_WINDOW_BASE: u64 = 0xc000_0000;

/// First address after that window.
pub const PCI_WINDOW_END: u64 = 0xfec0_0000;

/// First port of the window for PCI I/O BARs, above all fixed ports.
pub const PCI_IO_BASE: u16 = 0x1000;

/// The I/O APIC's registers.
pub const IO_APIC_BASE: u32 = 0xfec0_0000;

/// The local APICs' registers.
pub const LOCAL_APIC_BASE: u32 = 0xfee0_0000;

/// The page that begins with the generation id, right below KVM's own.
pub const GENERATION_ID: u64 = KVM_PRIVATE_BASE - 0x1000;

/// Identity-map page (1) and task state segment (3) of `KVM_SET_IDENTITY_MAP_ADDR`
/// and `KVM_SET_TSS_ADDR`.
pub const KVM_PRIVATE_BASE: u64 = 0xfeff_c000;

/// First address after the firmware.
pub const FIRMWARE_END: u64 = 1 << 32;

/// Where a processor starts after power-on.
pub const RESET_VECTOR: u64 = FIRMWARE_END - 16;

/// The end of firmware appears below 1 MiB as well, at most this much of it.
pub const SHADOW_LENGTH: u64 = 128 << 10;

/// Firmware puts PCI windows below 4 GiB no lower than this.
pub const FIRMWARE_PCI_BASE: u64 = 0x8000_0000;

/// Memory that does not fit below [`LOW_MEMORY_END`] continues here.
pub const HIGH_MEMORY_BASE: u64 = 1 << 32;

/// End of conventional memory; the kilobyte above stays free, as if it were an
/// extended BIOS data area.
pub const CONVENTIONAL_END: u64 = 0x9_fc00;

/// Memory above the legacy hole.
pub const ABOVE_1M: u64 = 1 << 20;

/// Global descriptor table at entry.
pub const BOOT_GDT: u64 = 0x500;

/// PVH start information, module list and memory map at entry.
pub const PVH_START_INFO: u64 = 0x6000;

/// The Linux zero page (`boot_params`) at entry.
pub const ZERO_PAGE: u64 = 0x7000;

/// Identity page tables at entry: one PML4, one PDPT, four page directories.
pub const BOOT_PAGE_TABLES: u64 = 0x9000;

/// Stack at entry, growing down.
pub const BOOT_STACK: u64 = 0x8ff0;

/// Kernel command line at entry.
pub const COMMAND_LINE: u64 = 0x2_0000;

/// RSDP and ACPI tables; the RSDP comes first, where a BIOS scan finds it.
pub const ACPI_BASE: u64 = 0xe_0000;

/// End of the space for ACPI tables.
pub const ACPI_END: u64 = 0xf_0000;

/// SMBIOS entry point and tables, where a BIOS scan finds them.
pub const SMBIOS_BASE: u64 = 0xf_0000;

/// End of the space for SMBIOS.
pub const SMBIOS_END: u64 = 0x10_0000;

/// System control interrupt (ACPI) of a Q35 machine.
pub const SCI: u8 = 9;

/// Where PIRQA, the first wire for interrupts of PCI functions, arrives at the I/O APIC; the seven others follow.
pub const PIRQ_A_GSI: u8 = 16;

/// Wires for interrupts of PCI functions.
pub const PIRQS: usize = 8;

/// The wire, from PIRQA on, that pin A of a PCI device is at, as stock firmware expects it of a Q35: PIRQA for the chipset's own
/// device 31, PIRQE to PIRQH in turn for the rest.
pub const fn pirq_of(device: u8) -> u8 {
    if device == 31 { 0 } else { 4 + device % 4 }
}

/// Interrupt of the keyboard, where it has been since the first PC.
pub const KEYBOARD: u8 = 1;

/// Interrupt of the mouse at the keyboard controller.
pub const MOUSE: u8 = 12;

/// First port of the ICH9 power management block.
pub const PM_BASE: u16 = 0x600;

/// Inputs of the I/O APIC.
pub const IO_APIC_INPUTS: u32 = 24;
