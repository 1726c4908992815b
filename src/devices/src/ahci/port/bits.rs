//! Where a port's registers are, and their bits (AHCI 1.3.1, 3.3).

/// Offsets of a port's registers.
pub mod at {
    pub const CLB: u64 = 0x00;
    pub const CLBU: u64 = 0x04;
    pub const FB: u64 = 0x08;
    pub const FBU: u64 = 0x0c;
    pub const IS: u64 = 0x10;
    pub const IE: u64 = 0x14;
    pub const CMD: u64 = 0x18;
    pub const TFD: u64 = 0x20;
    pub const SIG: u64 = 0x24;
    pub const SSTS: u64 = 0x28;
    pub const SCTL: u64 = 0x2c;
    pub const SERR: u64 = 0x30;
    pub const SACT: u64 = 0x34;
    pub const CI: u64 = 0x38;
}

/// PxIS and PxIE.
pub mod event {
    pub const REGISTER: u32 = 1 << 0;
    pub const PIO_SETUP: u32 = 1 << 1;
    pub const DEVICE_BITS: u32 = 1 << 3;
    pub const DESCRIPTOR: u32 = 1 << 5;
    /// Reflects [`super::serr::EXCHANGED`].
    pub const CONNECT: u32 = 1 << 6;
    /// Reflects [`super::serr::PHY_CHANGED`].
    pub const PHY: u32 = 1 << 22;
    pub const OVERFLOW: u32 = 1 << 24;
    pub const INTERFACE: u32 = 1 << 27;
    pub const HOST_BUS: u32 = 1 << 29;
    pub const TASK_FILE: u32 = 1 << 30;
    /// What a driver may clear here. The rest mirrors PxSERR, or never comes.
    pub const STORED: u32 = REGISTER
        | PIO_SETUP
        | DEVICE_BITS
        | DESCRIPTOR
        | OVERFLOW
        | INTERFACE
        | HOST_BUS
        | TASK_FILE;
    /// What can be enabled.
    pub const ALL: u32 = 0xfdc0_00ff;
}

pub mod cmd {
    pub const START: u32 = 1 << 0;
    pub const SPIN_UP: u32 = 1 << 1;
    pub const POWER_ON: u32 = 1 << 2;
    pub const OVERRIDE: u32 = 1 << 3;
    pub const RECEIVE: u32 = 1 << 4;
    pub const RECEIVING: u32 = 1 << 14;
    pub const RUNNING: u32 = 1 << 15;
    pub const ATAPI: u32 = 1 << 24;
    pub const ATAPI_LED: u32 = 1 << 25;
    /// What a driver may change.
    pub const STORED: u32 = START | RECEIVE | ATAPI | ATAPI_LED;
}

pub mod serr {
    pub const PHY_CHANGED: u32 = 1 << 16;
    pub const EXCHANGED: u32 = 1 << 26;
}
