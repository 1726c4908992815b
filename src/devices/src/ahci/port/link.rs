//! The link to the device: it goes down, comes up, and the device shows what it is.

use super::bits::{cmd, serr};
use super::{CONTROL_STORED, NO_SIGNATURE, NO_TASK_FILE, Port};
use crate::ahci::ResetKind;
use crate::ahci::fis::{REGISTER_AT, TaskFile};

/// PxSCTL.DET and PxSSTS.DET.
const DETECT: u32 = 0xf;
const DETECT_RESET: u32 = 1;
const DETECT_OFF: u32 = 4;
/// Device present, interface active, communication at the second generation's speed.
const STATUS_UP: u32 = 0x103;
const FASTEST: u32 = 2;

/// The device control register's software reset bit.
const SOFT_RESET: u8 = 1 << 2;

impl Port {
    pub(super) fn link_status(&self) -> u32 {
        let control = self.registers.control;
        if control & DETECT == DETECT_OFF {
            return DETECT_OFF;
        }
        if !self.registers.link {
            return 0;
        }
        let limit = match control >> 4 & 0xf {
            0 => FASTEST,
            limit => limit.min(FASTEST),
        };
        STATUS_UP | limit << 4
    }

    pub(super) fn write_control(&mut self, value: u32) {
        let before = self.registers.control & DETECT;
        self.registers.control = value & CONTROL_STORED;
        let detect = value & DETECT;
        if detect != before && matches!(detect, DETECT_RESET | DETECT_OFF) {
            self.cancel();
            self.registers.link = false;
            self.registers.unannounced = false;
            self.registers.soft_reset = false;
            self.registers.task = NO_TASK_FILE;
            self.registers.signature = NO_SIGNATURE;
        }
        self.settle();
    }

    /// The driver takes all commands back. Those under way end without a trace.
    pub(super) fn cancel(&mut self) {
        self.epoch += 1;
        self.registers.issued = 0;
        self.registers.active = 0;
        self.registers.halted = false;
    }

    /// Brings the link up, if nothing is in the way.
    pub fn settle(&mut self) {
        let registers = &mut self.registers;
        let allowed = registers.control & DETECT == 0;
        if registers.link || !allowed || self.in_flight != 0 {
            return;
        }
        let Some(drive) = &self.drive else { return };
        drive.reset(ResetKind::Hard);
        registers.link = true;
        registers.errors |= serr::EXCHANGED | serr::PHY_CHANGED;
        self.sign();
    }

    /// The device shows what it is (AHCI 1.3.1, 9.3; ACS-3, table 206).
    fn sign(&mut self) {
        let Some(drive) = &self.drive else { return };
        let task = drive.signature();
        self.registers.signature = (task.lba as u32) << 8 | u32::from(task.count);
        self.set_task(&task);
        self.registers.unannounced = true;
        self.announce();
    }

    pub(super) fn announce(&mut self) {
        let ready = self.registers.unannounced && self.registers.cmd & cmd::RECEIVE != 0;
        let (true, Some(drive)) = (ready, &self.drive) else {
            return;
        };
        let frame = drive.signature().register(false);
        self.registers.unannounced = false;
        self.post(REGISTER_AT, &frame);
    }

    /// The device control register: asserts or ends a software reset.
    pub(super) fn control(&mut self, bit: u32, control: u8) {
        self.registers.issued &= !bit;
        let asserted = control & SOFT_RESET != 0;
        let ends = self.registers.soft_reset && !asserted;
        self.registers.soft_reset = asserted;
        if let (true, Some(drive)) = (ends, &self.drive) {
            drive.reset(ResetKind::Soft);
            self.sign();
        }
    }

    pub(super) fn set_task(&mut self, task: &TaskFile) {
        self.registers.task = u32::from(task.error) << 8 | u32::from(task.status);
    }
}
