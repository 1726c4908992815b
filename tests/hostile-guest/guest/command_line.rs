//! What the guest was told.

/// Its options.
pub struct CommandLine {
    pub seed: u64,
    pub rounds: u64,
    pub memory: u64,
    pub first: &'static [u8],
    pub only: &'static [u8],
    /// Where a flash chip begins, or 0.
    pub flash: u64,
    /// Whether somebody watches who wants to look before the first attack and after the last.
    pub watched: bool,
}

impl CommandLine {
    /// Reads it through the PVH start information at `start_info`.
    pub fn find(start_info: u64) -> Self {
        let mut options = Self {
            seed: 1,
            rounds: 1,
            memory: 64 << 20,
            first: b"",
            only: b"",
            flash: 0,
            watched: false,
        };
        // SAFETY: by the boot protocol the address of the command line is there, and the line ends with a zero.
        let line = unsafe {
            let address = *((start_info + 24) as *const u64);
            core::ffi::CStr::from_ptr(address as *const _).to_bytes()
        };
        for word in line.split(|&byte| byte == b' ') {
            if let Some(value) = word.strip_prefix(b"seed=") {
                options.seed = number(value);
            } else if let Some(value) = word.strip_prefix(b"rounds=") {
                options.rounds = number(value);
            } else if let Some(value) = word.strip_prefix(b"memory=") {
                options.memory = number(value);
            } else if let Some(value) = word.strip_prefix(b"first=") {
                options.first = value;
            } else if let Some(value) = word.strip_prefix(b"only=") {
                options.only = value;
            } else if let Some(value) = word.strip_prefix(b"flash=") {
                options.flash = number(value);
            } else if word == b"watched" {
                options.watched = true;
            }
        }
        options
    }
}

/// A decimal number, or a hexadecimal one with `0x`.
fn number(text: &[u8]) -> u64 {
    let (digits, base) = match text.strip_prefix(b"0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    digits.iter().fold(0_u64, |sum, &digit| {
        let value = (digit as char).to_digit(base as u32).unwrap_or(0);
        sum.wrapping_mul(base).wrapping_add(u64::from(value))
    })
}
