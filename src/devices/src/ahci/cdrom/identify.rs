//! What a drive says of itself (IDENTIFY PACKET DEVICE, ACS-3, 7.13.6).

use crate::ahci::ata::{IDENTITY_BYTES, Identity};

pub(super) const MODEL: &str = "Lodge CD-ROM";

pub(super) fn identity(serial: &str) -> [u8; IDENTITY_BYTES] {
    let mut words = Identity::new();
    words.set(&[
        // A packet device, CD-ROM, removable, 12-byte packets.
        (0, 0x85c0),
        // DMA, logical addresses, IORDY.
        (49, 0x0f00),
        (50, 0x4000),
        // Words 64 to 70 and 88 are valid.
        (53, 0x0006),
        (63, 0x0007),
        (64, 0x0003),
        (65, 120),
        (66, 120),
        (67, 120),
        (68, 120),
        // Two generations of speed.
        (76, 0x0006),
        // ATA/ATAPI-4 to ACS-3.
        (80, 0x07f0),
        // DEVICE RESET, packets, power management.
        (82, 0x0218),
        (83, 0x4000),
        (84, 0x4000),
        (85, 0x0218),
        (87, 0x4000),
        (88, 0x407f),
    ]);
    words.text(10, 10, serial);
    words.text(23, 4, "1");
    words.text(27, 20, MODEL);
    words.finish()
}
