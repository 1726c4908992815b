//! The transceiver (82574 datasheet, 10.2.8), reached by MDIC (10.2.2.7). It has a partner that
//! speaks gigabit, and agrees with it at once.

use serde::{Deserialize, Serialize};

/// MDIC.
mod mdic {
    pub const WRITE: u32 = 1;
    pub const READ: u32 = 2;
    pub const READY: u32 = 1 << 28;
    pub const INTERRUPT: u32 = 1 << 29;
    pub const ERROR: u32 = 1 << 30;
}

/// The internal transceiver's address.
const ADDRESS: u32 = 1;

/// Registers (IEEE 802.3, 22.2.4; from 16 on the maker's own).
mod register {
    pub const CONTROL: usize = 0;
    pub const STATUS: usize = 1;
    pub const ID_1: usize = 2;
    pub const ID_2: usize = 3;
    pub const ADVERTISEMENT: usize = 4;
    pub const PARTNER: usize = 5;
    pub const EXPANSION: usize = 6;
    pub const GIGABIT_CONTROL: usize = 9;
    pub const GIGABIT_STATUS: usize = 10;
    pub const EXTENDED_STATUS: usize = 15;
    pub const SPECIFIC_STATUS: usize = 17;
    /// Which page registers 16 to 31 are on.
    pub const PAGE: usize = 22;
}

mod control {
    pub const RESET: u16 = 1 << 15;
    pub const POWER_DOWN: u16 = 1 << 11;
    pub const RESTART: u16 = 1 << 9;
}

/// All speeds up to 100 Mb/s, gigabit in the extended register, negotiation.
const STATUS: u16 = 0x7949;
const STATUS_LINK: u16 = 1 << 2;
const STATUS_NEGOTIATED: u16 = 1 << 5;

const COUNT: usize = 32;

/// Register, the bits that may be written, and its value after a reset.
const WRITABLE: [(usize, u16, u16); 9] = [
    // Negotiation on, full duplex, gigabit.
    (register::CONTROL, 0x7dc0, 0x1140),
    (register::ADVERTISEMENT, 0xffff, 0x0de1),
    (register::GIGABIT_CONTROL, 0xff00, 0x0300),
    (16, 0xffff, 0x0078),
    (18, 0xffff, 0),
    (20, 0xffff, 0x0ce0),
    (register::PAGE, 0xffff, 0),
    (29, 0xffff, 0),
    (30, 0xffff, 0),
];

/// The transceiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phy {
    registers: [u16; COUNT],
    /// There is a cable in it.
    plugged: bool,
}

/// Registers that can be written, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved([u16; WRITABLE.len()]);

/// What came of an access.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// What MDIC reads from now on.
    pub mdic: u32,
    /// The driver wants an interrupt at the end of the access, which is now.
    pub interrupt: bool,
    /// The link has come or gone, or came anew.
    pub link_changed: bool,
}

impl Phy {
    /// As after a reset, with a cable in it if it is `plugged`.
    pub fn new(plugged: bool) -> Self {
        let mut registers = [0; COUNT];
        for (register, _, initial) in WRITABLE {
            registers[register] = initial;
        }
        Self { registers, plugged }
    }

    /// Whether there is a cable in it.
    pub fn plugged(&self) -> bool {
        self.plugged
    }

    /// Plugs it in, or pulls it; tells whether that concerned the link.
    pub fn plug(&mut self, plugged: bool) -> bool {
        let before = self.link_up();
        self.plugged = plugged;
        before != self.link_up()
    }

    /// Whether packets pass.
    pub fn link_up(&self) -> bool {
        self.plugged && self.registers[register::CONTROL] & control::POWER_DOWN == 0
    }

    /// Does what was written to MDIC.
    pub fn access(&mut self, value: u32) -> Access {
        let register = (value >> 16 & 0x1f) as usize;
        let mut access = Access {
            mdic: value & 0x3fff_ffff & !mdic::READY | mdic::READY,
            interrupt: value & mdic::INTERRUPT != 0,
            link_changed: false,
        };
        match value >> 26 & 3 {
            _ if value >> 21 & 0x1f != ADDRESS => access.mdic |= mdic::ERROR,
            mdic::READ => access.mdic = access.mdic & !0xffff | u32::from(self.read(register)),
            mdic::WRITE => access.link_changed = self.write(register, value as u16),
            _ => access.mdic |= mdic::ERROR,
        }
        access
    }

    /// Pages other than the first are empty.
    fn on_page(&self, register: usize) -> bool {
        register < 16 || register == register::PAGE || self.registers[register::PAGE] & 0xff == 0
    }

    fn read(&self, register: usize) -> u16 {
        if !self.on_page(register) {
            return 0;
        }
        let when_up = |value| if self.link_up() { value } else { 0 };
        match register {
            register::STATUS => STATUS | when_up(STATUS_LINK | STATUS_NEGOTIATED),
            register::ID_1 => 0x0141,
            register::ID_2 => 0x0cb1,
            // All speeds, without pause frames: a tap has none.
            register::PARTNER => when_up(0x41e1),
            register::EXPANSION => when_up(1),
            // Both receivers well, the partner capable of gigabit.
            register::GIGABIT_STATUS => when_up(0x3800),
            register::EXTENDED_STATUS => 0x3000,
            // Gigabit, full duplex, resolved, link.
            register::SPECIFIC_STATUS => when_up(0xac00),
            _ => self.registers[register],
        }
    }

    /// Tells whether that concerned the link.
    fn write(&mut self, register: usize, value: u16) -> bool {
        if register == register::CONTROL && value & control::RESET != 0 {
            *self = Self::new(self.plugged);
            return true;
        }
        let known = WRITABLE.iter().find(|known| known.0 == register);
        let Some((_, writable, _)) = known.filter(|_| self.on_page(register)) else {
            return false;
        };
        let before = self.link_up();
        let kept = &mut self.registers[register];
        *kept = *kept & !writable | value & writable;
        let restart = register == register::CONTROL && value & control::RESTART != 0;
        restart || before != self.link_up()
    }

    /// The present registers.
    pub fn save(&self) -> Saved {
        Saved(WRITABLE.map(|(register, ..)| self.registers[register]))
    }

    /// Back to how they were; what a driver could not have written is left out.
    pub fn restore(saved: &Saved, plugged: bool) -> Self {
        let mut phy = Self::new(plugged);
        for ((register, writable, initial), value) in WRITABLE.into_iter().zip(saved.0) {
            phy.registers[register] = initial & !writable | value & writable;
        }
        phy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(phy: &mut Phy, register: u32) -> u16 {
        let access = phy.access(mdic::READ << 26 | ADDRESS << 21 | register << 16);
        assert_eq!(access.mdic & (mdic::READY | mdic::ERROR), mdic::READY);
        access.mdic as u16
    }

    fn write(phy: &mut Phy, register: u32, value: u16) -> bool {
        let access =
            phy.access(mdic::WRITE << 26 | ADDRESS << 21 | register << 16 | u32::from(value));
        access.link_changed
    }

    #[test]
    fn drivers_know_it_and_find_its_link_up() {
        let mut phy = Phy::new(true);
        assert_eq!((read(&mut phy, 2), read(&mut phy, 3)), (0x0141, 0x0cb1));
        assert_eq!(read(&mut phy, 1), 0x796d);
        assert!(write(&mut phy, 0, 0x1340), "restarted");
        assert_eq!(read(&mut phy, 0), 0x1140, "done at once");
        assert!(write(&mut phy, 0, 0x1940), "switched off");
        assert!(!phy.link_up());
        assert_eq!((read(&mut phy, 1), read(&mut phy, 17)), (0x7949, 0));
        assert!(write(&mut phy, 0, 0x8000), "reset");
        assert!(phy.link_up());
        assert!(phy.plug(false), "the cable is pulled");
        assert!(write(&mut phy, 0, 0x8000), "reset");
        assert_eq!((read(&mut phy, 1), read(&mut phy, 17)), (0x7949, 0));
        assert!(!phy.plug(false));
        assert!(phy.plug(true));
        assert!(!write(&mut phy, 4, 0x01e1));
        assert_eq!(Phy::restore(&phy.save(), true), phy);
    }

    #[test]
    fn other_pages_and_addresses_are_empty() {
        let mut phy = Phy::new(true);
        write(&mut phy, 22, 2);
        write(&mut phy, 16, 0xffff);
        assert_eq!(read(&mut phy, 16), 0);
        assert_eq!(read(&mut phy, 2), 0x0141, "on every page");
        write(&mut phy, 22, 0);
        assert_eq!(read(&mut phy, 16), 0x0078);
        for value in [mdic::READ << 26 | 2 << 21, ADDRESS << 21] {
            assert_ne!(phy.access(value).mdic & mdic::ERROR, 0);
        }
    }
}
