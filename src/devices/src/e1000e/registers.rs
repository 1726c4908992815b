//! Offsets of registers (82574 datasheet, 10.2), and those that only keep what a driver writes.

use serde::{Deserialize, Serialize};

/// Offsets in BAR 0.
pub(super) mod at {
    pub const CTRL: u64 = 0x0000;
    /// The same again.
    pub const CTRL_DUP: u64 = 0x0004;
    pub const STATUS: u64 = 0x0008;
    pub const EECD: u64 = 0x0010;
    pub const EERD: u64 = 0x0014;
    pub const CTRL_EXT: u64 = 0x0018;
    pub const MDIC: u64 = 0x0020;
    pub const VET: u64 = 0x0038;
    pub const ICR: u64 = 0x00c0;
    pub const ICS: u64 = 0x00c8;
    pub const IMS: u64 = 0x00d0;
    pub const IMC: u64 = 0x00d8;
    pub const EIAC: u64 = 0x00dc;
    pub const IAM: u64 = 0x00e0;
    pub const IVAR: u64 = 0x00e4;
    pub const RCTL: u64 = 0x0100;
    pub const TCTL: u64 = 0x0400;
    pub const PBA: u64 = 0x1000;
    pub const PSRCTL: u64 = 0x2170;
    /// Receive rings: base, length, head and tail of the first; the second's are 0x100 further.
    pub const RDBAL: u64 = 0x2800;
    /// Transmit rings, likewise.
    pub const TDBAL: u64 = 0x3800;
    pub const STATISTICS: u64 = 0x4000;
    pub const RFCTL: u64 = 0x5008;
    pub const MTA: u64 = 0x5200;
    pub const RAL0: u64 = 0x5400;
    pub const RAH0: u64 = 0x5404;
    pub const VFTA: u64 = 0x5600;
    pub const SYSTIML: u64 = 0xb600;
    pub const SYSTIMH: u64 = 0xb604;
    pub const TIMINCA: u64 = 0xb608;
}

/// End of the registers kept here.
const END: u64 = 0x6000;

/// Neighbouring registers of one kind.
struct Plain {
    first: u64,
    count: u64,
    /// Bits a driver may change.
    writable: u32,
    /// At power-on and after a reset.
    initial: u32,
}

const fn plain(first: u64, writable: u32, initial: u32) -> Plain {
    table(first, 1, writable, initial)
}

const fn table(first: u64, count: u64, writable: u32, initial: u32) -> Plain {
    Plain {
        first,
        count,
        writable,
        initial,
    }
}

const ALL: u32 = u32::MAX;

/// What is not in this list, and is no register of its own in `card.rs`, reads as zero.
const PLAIN: &[Plain] = &[
    // Full duplex, link, gigabit. Not the two resets, which are done at once.
    plain(at::CTRL, !(1 << 31 | 1 << 26), 0x0241),
    // Not the request to read the NVM anew, nor that to clear pending bits: both are done at once.
    plain(at::CTRL_EXT, !(1 << 31 | 1 << 13), 0),
    // Lines to the NVM's serial interface, access request, firmware's and flash's bits.
    plain(at::EECD, 0x0010_007f, 0),
    // Addresses and type of pause frames.
    plain(0x0028, ALL, 0x00c2_8001),
    plain(0x002c, 0xffff, 0x0100),
    plain(0x0030, 0xffff, 0x8808),
    plain(at::VET, 0xffff, 0x8100),
    plain(0x00c4, 0xffff, 0), // ITR
    plain(at::EIAC, 0x01f0_0000, 0),
    plain(at::IAM, ALL, 0),
    plain(at::IVAR, 0x800f_ffff, 0),
    table(0x00e8, 5, 0xffff, 0), // EITR
    plain(at::RCTL, ALL, 0),
    plain(0x0170, 0xffff, 0), // FCTTV
    plain(at::TCTL, ALL, 0),
    plain(0x0404, ALL, 0),           // TCTL_EXT
    plain(0x0410, ALL, 0x0060_2008), // TIPG
    plain(0x0458, 0xffff, 0),        // AIT
    plain(0x0e00, ALL, 0x0706_1302), // LEDCTL
    plain(0x0f00, 1 << 5, 0),        // EXTCNF_CTRL: whose the PHY is
    plain(0x0f10, ALL, 0),           // PHY_CTRL
    plain(at::PBA, 0x3f, 20),
    plain(0x1010, 0, 1 << 18), // EEMNGCTL: configuration is done
    plain(0x102c, 0, 1 << 1),  // EEWR: done; the NVM is read-only
    plain(0x2008, 0x7fff, 0),  // ERT
    plain(0x2160, ALL, 0),     // FCRTL
    plain(0x2168, ALL, 0),     // FCRTH
    plain(at::PSRCTL, 0x3f3f_3f7f, 0x0004_0402),
    plain(0x2820, 0xffff, 0),        // RDTR
    plain(0x2828, ALL, 0x0001_0000), // RXDCTL
    plain(0x282c, 0xffff, 0),        // RADV
    plain(0x2928, ALL, 0x0001_0000),
    plain(0x2c00, 0xfff, 0),  // RSRPD
    plain(0x2c08, 0xffff, 0), // RAID
    plain(0x3820, 0xffff, 0), // TIDV
    plain(0x3828, ALL, 0),    // TXDCTL
    plain(0x382c, 0xffff, 0), // TADV
    plain(0x3840, ALL, 3),    // TARC
    plain(0x3928, ALL, 0),
    plain(0x3940, ALL, 3),
    plain(0x5000, ALL, 0), // RXCSUM
    plain(at::RFCTL, ALL, 0),
    table(at::MTA, 128, ALL, 0),
    table(at::RAL0, 32, ALL, 0),
    table(at::VFTA, 128, ALL, 0),
    plain(0x5800, ALL, 0),     // WUC
    plain(0x5808, ALL, 0),     // WUFC
    plain(0x5818, ALL, 0),     // MRQC
    plain(0x5820, ALL, 0),     // MANC
    plain(0x5860, ALL, 0),     // MANC2H
    table(0x5890, 8, ALL, 0),  // MDEF
    plain(0x5b00, ALL, 0),     // GCR
    plain(0x5b50, 0xb, 0),     // SWSM
    plain(0x5b64, ALL, 0),     // GCR2
    table(0x5c00, 32, ALL, 0), // RETA
    table(0x5c80, 10, ALL, 0), // RSSRK
];

/// The registers.
pub(super) struct Registers {
    words: Box<[u32]>,
}

/// Registers that differ from how they are after a reset, as offset and value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changed(Vec<(u64, u32)>);

fn find(offset: u64) -> Option<&'static Plain> {
    PLAIN
        .iter()
        .find(|plain| (plain.first..plain.first + plain.count * 4).contains(&offset))
}

impl Registers {
    /// As after a reset.
    pub fn new() -> Self {
        let mut words = vec![0; (END / 4) as usize].into_boxed_slice();
        for plain in PLAIN {
            let first = (plain.first / 4) as usize;
            words[first..first + plain.count as usize].fill(plain.initial);
        }
        Self { words }
    }

    /// The register at `offset`, a multiple of 4; zero for one that is not kept here.
    pub fn get(&self, offset: u64) -> u32 {
        self.words.get((offset / 4) as usize).copied().unwrap_or(0)
    }

    /// Whether any bit of `bits` is set in the register at `offset`.
    pub fn has(&self, offset: u64, bits: u32) -> bool {
        self.get(offset) & bits != 0
    }

    /// Writes what a driver may change of the register at `offset`, a multiple of 4.
    pub fn write(&mut self, offset: u64, value: u32) {
        if let Some(plain) = find(offset) {
            let word = &mut self.words[(offset / 4) as usize];
            *word = *word & !plain.writable | value & plain.writable;
        }
    }

    /// What was changed since the last reset.
    pub fn save(&self) -> Changed {
        let fresh = Self::new();
        let pairs = (0..).step_by(4).zip(self.words.iter().zip(&fresh.words));
        let changed = pairs.filter(|(_, (now, then))| now != then);
        Changed(changed.map(|(offset, (now, _))| (offset, *now)).collect())
    }

    /// Back to how they were; what a driver could not have written is left out.
    pub fn restore(changed: &Changed) -> Self {
        let mut registers = Self::new();
        for &(offset, value) in &changed.0 {
            registers.write(offset & !3, value);
        }
        registers
    }
}
