//! Register bits of a 16550A.

pub(super) const IER_RECEIVE: u8 = 1 << 0;
pub(super) const IER_EMPTY: u8 = 1 << 1;
pub(super) const IER_LINE: u8 = 1 << 2;
pub(super) const IER_MODEM: u8 = 1 << 3;
pub(super) const IER_MASK: u8 = 0x0f;

pub(super) const IIR_NONE: u8 = 0x01;
pub(super) const IIR_MODEM: u8 = 0x00;
pub(super) const IIR_EMPTY: u8 = 0x02;
pub(super) const IIR_RECEIVE: u8 = 0x04;
pub(super) const IIR_LINE: u8 = 0x06;
pub(super) const IIR_TIMEOUT: u8 = 0x0c;
pub(super) const IIR_FIFO: u8 = 0xc0;

pub(super) const FCR_ENABLE: u8 = 1 << 0;
pub(super) const FCR_CLEAR_RECEIVE: u8 = 1 << 1;
pub(super) const FCR_TRIGGER: u8 = 0xc0;

pub(super) const LCR_DIVISOR: u8 = 1 << 7;

pub(super) const MCR_DTR: u8 = 1 << 0;
pub(super) const MCR_RTS: u8 = 1 << 1;
pub(super) const MCR_OUT1: u8 = 1 << 2;
pub(super) const MCR_OUT2: u8 = 1 << 3;
pub(super) const MCR_LOOP: u8 = 1 << 4;
pub(super) const MCR_MASK: u8 = 0x1f;

pub(super) const LSR_READY: u8 = 1 << 0;
pub(super) const LSR_OVERRUN: u8 = 1 << 1;
pub(super) const LSR_HOLDING_EMPTY: u8 = 1 << 5;
pub(super) const LSR_IDLE: u8 = 1 << 6;

pub(super) const MSR_CTS: u8 = 1 << 4;
pub(super) const MSR_DSR: u8 = 1 << 5;
pub(super) const MSR_RI: u8 = 1 << 6;
pub(super) const MSR_DCD: u8 = 1 << 7;
