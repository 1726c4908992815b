//! VMDK in one file.

use super::Workshop;

#[test]
fn all_options() {
    let workshop = Workshop::new();
    // More than one table of 512 grains.
    let disk = workshop.raw((40 << 20) + 512 * 3);
    for options in [
        "subformat=monolithicSparse",
        "subformat=streamOptimized",
        "zeroed_grain=on",
        "compat6=on",
        "adapter_type=lsilogic,hwversion=13,toolsversion=10",
        "subformat=streamOptimized,adapter_type=buslogic",
    ] {
        workshop.make(&["-O", "vmdk", "-o", options]);
        workshop.assert_is(&disk, options);
    }
}

#[test]
fn grains_of_zeroes() {
    let workshop = Workshop::new();
    workshop.raw(2 << 20);
    workshop.make(&["-O", "vmdk", "-o", "zeroed_grain=on"]);
    let script = ["write -z 64k 256k", "write -P 5 1M 512"];
    let mut arguments = vec!["-f", "vmdk"];
    arguments.extend(script.iter().flat_map(|line| ["-c", line]));
    arguments.push("image");
    workshop.run("qemu-io", &arguments);
    workshop.run("qemu-img", &["convert", "-O", "raw", "image", "raw"]);
    let disk = std::fs::read(workshop.path("raw")).unwrap();
    workshop.assert_is(&disk, "zeroed grains");
}

#[test]
fn says_what_it_is() {
    let workshop = Workshop::new();
    workshop.raw(1 << 20);
    workshop.make(&["-O", "vmdk", "-o", "subformat=streamOptimized"]);
    let (_, image) = workshop.open("image").unwrap();
    assert_eq!(image.describe(), "vmdk, streamOptimized");
}
