//! What firmware shall boot from: Open Firmware paths, as SeaBIOS and OVMF match them with their own.

use lodge_devices::pci::Address;
use lodge_vmm_proto::BootDevice;

/// Where the devices one can boot from sit.
#[derive(Default)]
pub struct Place {
    /// Disks, in order.
    pub disks: Vec<DiskPlace>,
    /// SATA ports of CD-ROM drives, in order.
    pub cdroms: Vec<u8>,
    /// Functions of network interfaces, in order.
    pub nics: Vec<Address>,
}

/// Where a disk sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskPlace {
    /// A virtio function of its own.
    Virtio(Address),
    /// A port of the SATA controller.
    Sata(u8),
    /// An NVMe function of its own, of which the disk is namespace 1.
    Nvme(Address),
}

/// The file `bootorder`: a path on each line, then a NUL. Devices that do not exist are left out.
pub fn boot_order(order: &[BootDevice], place: &Place) -> Vec<u8> {
    let path = |device: &BootDevice| match *device {
        BootDevice::Disk(number) => Some(match *place.disks.get(usize::from(number))? {
            DiskPlace::Virtio(at) => format!("/pci@i0cf8/scsi@{:x}/disk@0,0\n", at.device()),
            DiskPlace::Sata(port) => sata(port),
            // OVMF knows NVMe by the name of one controller, whatever this one's is.
            DiskPlace::Nvme(at) => {
                format!("/pci@i0cf8/pci8086,5845@{:x}/namespace@1,0\n", at.device())
            }
        }),
        BootDevice::Cdrom(number) => place.cdroms.get(usize::from(number)).copied().map(sata),
        BootDevice::Nic(number) => {
            let at = place.nics.get(usize::from(number))?;
            Some(format!(
                "/pci@i0cf8/ethernet@{:x}/ethernet-phy@0\n",
                at.device()
            ))
        }
    };
    let mut text: String = order.iter().filter_map(path).collect();
    text.push('\0');
    text.into_bytes()
}

fn sata(port: u8) -> String {
    format!("/pci@i0cf8/pci8086,2922@1f,2/drive@{port:x}/disk@0\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_stock_firmware() {
        let place = Place {
            disks: vec![
                DiskPlace::Virtio(Address::new(9, 0).unwrap()),
                DiskPlace::Virtio(Address::new(0x1c, 0).unwrap()),
                DiskPlace::Sata(0),
                DiskPlace::Nvme(Address::new(0x1a, 0).unwrap()),
            ],
            cdroms: vec![1],
            nics: vec![Address::new(1, 0).unwrap()],
        };
        let order = [
            BootDevice::Disk(1),
            BootDevice::Nic(0),
            BootDevice::Disk(7),
            BootDevice::Disk(0),
            BootDevice::Disk(2),
            BootDevice::Cdrom(0),
            BootDevice::Disk(3),
        ];
        let text = String::from_utf8(boot_order(&order, &place)).unwrap();
        assert_eq!(
            text,
            "/pci@i0cf8/scsi@1c/disk@0,0\n/pci@i0cf8/ethernet@1/ethernet-phy@0\n/pci@i0cf8/scsi@9/disk@0,0\n\
             /pci@i0cf8/pci8086,2922@1f,2/drive@0/disk@0\n/pci@i0cf8/pci8086,2922@1f,2/drive@1/disk@0\n\
             /pci@i0cf8/pci8086,5845@1a/namespace@1,0\n\0"
        );
        assert_eq!(boot_order(&[], &place), [0]);
    }
}
