//! What a driver reads and writes.

use super::Port;
use super::bits::{at, cmd, event, serr};
use crate::ahci::ata::status;

impl Port {
    pub fn read(&self, offset: u64) -> u32 {
        let registers = &self.registers;
        match offset {
            at::CLB => registers.list as u32,
            at::CLBU => (registers.list >> 32) as u32,
            at::FB => registers.received as u32,
            at::FBU => (registers.received >> 32) as u32,
            at::IS => self.pending(),
            at::IE => registers.enabled,
            at::CMD => self.read_cmd(),
            at::TFD => registers.task,
            at::SIG => registers.signature,
            at::SSTS => self.link_status(),
            at::SCTL => registers.control,
            at::SERR => registers.errors,
            at::SACT => registers.active,
            at::CI => registers.issued,
            _ => 0,
        }
    }

    /// Tells whether the drive's thread should look.
    pub fn write(&mut self, offset: u64, value: u32) -> bool {
        let registers = &mut self.registers;
        match offset {
            at::CLB => set_low(&mut registers.list, value & !0x3ff),
            at::CLBU => set_high(&mut registers.list, value),
            at::FB => set_low(&mut registers.received, value & !0xff),
            at::FBU => set_high(&mut registers.received, value),
            at::IS => registers.events &= !value,
            at::IE => registers.enabled = value & event::ALL,
            at::CMD => {
                self.write_cmd(value);
                return true;
            }
            at::SCTL => {
                self.write_control(value);
                return true;
            }
            at::SERR => registers.errors &= !value,
            at::SACT if registers.cmd & cmd::START != 0 => registers.active |= value,
            at::CI if registers.cmd & cmd::START != 0 => {
                registers.issued |= value;
                return true;
            }
            _ => {}
        }
        false
    }

    pub(super) fn pending(&self) -> u32 {
        let mut pending = self.registers.events;
        if self.registers.errors & serr::EXCHANGED != 0 {
            pending |= event::CONNECT;
        }
        if self.registers.errors & serr::PHY_CHANGED != 0 {
            pending |= event::PHY;
        }
        pending
    }

    fn read_cmd(&self) -> u32 {
        let registers = &self.registers;
        let mut value = registers.cmd | cmd::SPIN_UP | cmd::POWER_ON | registers.current << 8;
        if registers.cmd & cmd::RECEIVE != 0 {
            value |= cmd::RECEIVING;
        }
        // Until the drive has let go of the driver's memory.
        if registers.cmd & cmd::START != 0 || !self.idle() {
            value |= cmd::RUNNING;
        }
        value
    }

    fn write_cmd(&mut self, value: u32) {
        if value & cmd::OVERRIDE != 0 {
            self.registers.task &= !u32::from(status::BSY | status::DRQ);
        }
        let stopped = self.registers.cmd & !value & cmd::START != 0;
        self.registers.cmd = value & cmd::STORED;
        if stopped {
            self.cancel();
            self.registers.current = 0;
            self.registers.turn = 0;
        }
        self.announce();
    }
}

fn set_low(register: &mut u64, value: u32) {
    *register = *register & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(register: &mut u64, value: u32) {
    *register = *register & u64::from(u32::MAX) | u64::from(value) << 32;
}
