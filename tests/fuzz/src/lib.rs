//! Fuzz targets: what guests, images, peers and saved states may say, said by a fuzzer.
//!
//! Each target is a function of an input. `fuzz_targets/` has a program for each, as `cargo fuzz` wants it;
//! `corpus/` has inputs to begin with, which the tests here try as well. `docs/fuzzing.md` says how to
//! run them and how to add one.
//!
//! A guest's side of a device is a sequence of [operations](operation::Operation) on a [rig](operation::Rig). What
//! holds at any time is asserted by the rigs: a state that was saved is taken back and is the same when
//! it is saved again; queues return no more than they took; after whatever has happened, the next driver finds a device
//! that works. That nothing takes long or much memory is for the fuzzer to watch.

pub mod ahci;
pub mod board;
pub mod chipset;
pub mod disk_image;
pub mod e1000e;
pub mod file;
pub mod files;
pub mod function;
pub mod input;
pub mod nvme;
pub mod operation;
pub mod rfb;
pub mod rings;
pub mod saved;
pub mod virtio;
pub mod whole;
pub mod wire;

use input::Input;
use operation::run;
use whole::Whole;

/// What is tried with an input. It panics when something is wrong.
pub type Target = fn(&[u8]);

/// What is fuzzed, by the name of its program.
pub const TARGETS: &[(&str, Target)] = &[
    ("acpi_pm", chipset::acpi_pm),
    ("ahci_cdrom", ahci::cdrom),
    ("ahci_disk", ahci::disk),
    ("cmos", chipset::cmos),
    ("devices", devices),
    ("e1000e", e1000e::card),
    ("fw_cfg", chipset::fw_cfg),
    ("hotplug", chipset::hotplug),
    ("i8042", chipset::i8042),
    ("image_format", files::image),
    ("image_qcow2", disk_image::qcow2),
    ("image_vhd", disk_image::vhd),
    ("image_vhdx", disk_image::vhdx),
    ("image_vmdk", disk_image::vmdk),
    ("kernel", files::kernel),
    ("monitor_messages", files::messages),
    ("nvme", nvme::disk),
    ("pci_config", pci_config),
    ("pflash", chipset::pflash),
    ("rfb", rfb::viewer),
    ("saved_devices", saved::devices),
    ("saved_file", saved::file),
    ("serial", chipset::serial),
    ("virtio_balloon", virtio::balloon),
    ("virtio_blk", virtio::block),
    ("virtio_console", virtio::console),
    ("virtio_net", virtio::network),
    ("virtio_rng", virtio::rng),
    ("virtio_vsock", virtio::vsock),
    ("virtqueue", rings::chains),
];

/// All devices of a machine, through its buses.
///
/// # Panics
/// When a device does something wrong.
pub fn devices(data: &[u8]) {
    Whole::with(|_| true, |whole| run(whole, Input::new(data)));
}

/// Configuration space of all functions, by ports and in memory.
///
/// # Panics
/// When a device does something wrong.
pub fn pci_config(data: &[u8]) {
    const ECAM: std::ops::Range<u64> = 0xe000_0000..0xf000_0000;
    let wanted = |&(ports, base, _): &board::Range| {
        if ports {
            base == lodge_devices::pci::CONFIG_PORTS
        } else {
            ECAM.contains(&base)
        }
    };
    Whole::with(wanted, |whole| run(whole, Input::new(data)));
}

#[cfg(test)]
mod tests;
