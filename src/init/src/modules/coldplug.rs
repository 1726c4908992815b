//! The aliases of the devices that are there already.

use std::fs;
use std::path::Path;

/// The alias of every device on every bus, each once.
///
/// Devices that appear later, perhaps because a module loaded for one of these brings a bus of its own, announce
/// themselves by uevents.
pub fn device_aliases() -> Vec<String> {
    aliases_in(Path::new("/sys/bus"))
}

fn aliases_in(buses: &Path) -> Vec<String> {
    let mut aliases = Vec::new();
    for bus in fs::read_dir(buses).into_iter().flatten().flatten() {
        let devices = fs::read_dir(bus.path().join("devices"));
        for device in devices.into_iter().flatten().flatten() {
            if let Ok(alias) = fs::read_to_string(device.path().join("modalias")) {
                let alias = alias.trim();
                if !alias.is_empty() {
                    aliases.push(alias.to_owned());
                }
            }
        }
    }
    aliases.sort_unstable();
    aliases.dedup();
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bus_once() {
        let dir = tempfile::tempdir().unwrap();
        for (device, alias) in [
            ("pci/devices/0", "pci:a\n"),
            ("pci/devices/1", "pci:a\n"),
            ("usb/devices/1-1", "usb:b\n"),
            ("usb/devices/2", "\n"),
        ] {
            let path = dir.path().join(device);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("modalias"), alias).unwrap();
        }
        fs::create_dir_all(dir.path().join("empty")).unwrap();
        assert_eq!(aliases_in(dir.path()), ["pci:a", "usb:b"]);
        assert!(aliases_in(Path::new("/nonexistent")).is_empty());
    }
}
