//! Frames between host and device (Serial ATA 3.x, 10.5), as the command table and the
//! received FIS area hold them (AHCI 1.3.1, 4.2).

/// Where frames go in the received FIS area (AHCI 1.3.1, 4.2.1).
pub(super) const PIO_SETUP_AT: u64 = 0x20;
pub(super) const REGISTER_AT: u64 = 0x40;
pub(super) const DEVICE_BITS_AT: u64 = 0x58;

/// Bytes of a register frame.
pub(super) const REGISTER_BYTES: usize = 20;

const HOST_TO_DEVICE: u8 = 0x27;
const DEVICE_TO_HOST: u8 = 0x34;
const PIO_SETUP: u8 = 0x5f;
const SET_DEVICE_BITS: u8 = 0xa1;

/// Byte 1 of a frame from the host: it carries a command, not a control register.
const IS_COMMAND: u8 = 1 << 7;
/// Byte 1 of a frame from the device.
const INTERRUPT: u8 = 1 << 6;
const TO_HOST: u8 = 1 << 5;

/// A command as the driver wrote it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub code: u8,
    pub features: u16,
    /// 48 bits.
    pub lba: u64,
    pub device: u8,
    pub count: u16,
}

/// What a driver can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    Command(Command),
    /// The device control register.
    Control(u8),
}

/// The device's registers at the end of a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TaskFile {
    pub status: u8,
    pub error: u8,
    pub lba: u64,
    pub device: u8,
    pub count: u16,
}

impl Frame {
    /// Reads a register frame; `None` for any other kind, which no device here understands.
    pub fn parse(bytes: &[u8; REGISTER_BYTES]) -> Option<Self> {
        if bytes[0] != HOST_TO_DEVICE {
            return None;
        }
        if bytes[1] & IS_COMMAND == 0 {
            return Some(Self::Control(bytes[15]));
        }
        let [low, high] = [
            [bytes[4], bytes[5], bytes[6]],
            [bytes[8], bytes[9], bytes[10]],
        ];
        Some(Self::Command(Command {
            code: bytes[2],
            features: u16::from_le_bytes([bytes[3], bytes[11]]),
            lba: u64::from_le_bytes([low[0], low[1], low[2], high[0], high[1], high[2], 0, 0]),
            device: bytes[7],
            count: u16::from_le_bytes([bytes[12], bytes[13]]),
        }))
    }
}

impl TaskFile {
    /// The register frame that ends a command or announces a device.
    pub fn register(&self, interrupt: bool) -> [u8; REGISTER_BYTES] {
        let mut frame = [0; REGISTER_BYTES];
        frame[0] = DEVICE_TO_HOST;
        frame[1] = if interrupt { INTERRUPT } else { 0 };
        frame[2] = self.status;
        self.fill(&mut frame);
        frame
    }

    /// The frame before data of `bytes` bytes. `status` is the one while data moves.
    pub fn pio_setup(&self, status: u8, to_host: bool, bytes: u16) -> [u8; REGISTER_BYTES] {
        let mut frame = [0; REGISTER_BYTES];
        frame[0] = PIO_SETUP;
        frame[1] = INTERRUPT | if to_host { TO_HOST } else { 0 };
        frame[2] = status;
        self.fill(&mut frame);
        frame[15] = self.status;
        frame[16..18].copy_from_slice(&bytes.to_le_bytes());
        frame
    }

    fn fill(&self, frame: &mut [u8; REGISTER_BYTES]) {
        let lba = self.lba.to_le_bytes();
        frame[3] = self.error;
        frame[4..7].copy_from_slice(&lba[..3]);
        frame[7] = self.device;
        frame[8..11].copy_from_slice(&lba[3..6]);
        frame[12..14].copy_from_slice(&self.count.to_le_bytes());
    }

    /// The frame that ends queued commands.
    pub fn device_bits(&self, finished: u32) -> [u8; 8] {
        let mut frame = [0; 8];
        frame[0] = SET_DEVICE_BITS;
        frame[1] = INTERRUPT;
        // BSY and DRQ are not among the bits it carries.
        frame[2] = self.status & 0x77;
        frame[3] = self.error;
        frame[4..].copy_from_slice(&finished.to_le_bytes());
        frame
    }
}
