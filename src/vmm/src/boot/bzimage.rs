//! The bzImage container (Linux, Documentation/arch/x86/boot.rst).

use lodge_devices::GuestMemory;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::{Entry, Image, KernelError};
use crate::layout::ABOVE_1M;
use crate::memory::PAGE;

/// The setup header within the file and within `boot_params`.
pub const SETUP_HEADER: usize = 0x1f1;

/// End of the longest setup header known; newer fields lie beyond and stay zero.
const HEAD: usize = 0x280;

/// First version with `xloadflags` (Linux 3.8).
const OLDEST_VERSION: u16 = 0x020c;

const XLF_KERNEL_64: u16 = 1 << 0;

/// Offset of the 64-bit entry point from the load address.
const ENTRY_64: u64 = 0x200;

/// What the header of a bzImage says.
pub struct BzImage {
    head: Vec<u8>,
    /// Offset of the protected-mode code in the file.
    code: u64,
    code_length: u64,
}

/// A bzImage loaded as it is, to unpack itself.
pub struct Loaded {
    /// Its 64-bit entry point.
    pub entry: Entry,
    /// First guest-physical address that it needs no longer to unpack.
    pub end: u64,
    /// Setup header for the zero page, from [`SETUP_HEADER`] on.
    pub setup_header: Vec<u8>,
    /// Highest address an initial RAM disk may occupy.
    pub initrd_max: u64,
}

/// Tells whether an image that starts so is a bzImage.
pub fn is_bzimage(head: &[u8]) -> bool {
    head.get(0x202..0x206) == Some(b"HdrS") && head.get(0x1fe..0x200) == Some(&[0x55, 0xaa])
}

impl BzImage {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// When the kernel is too old, for another processor, or cut short.
    pub fn parse(image: &Image<'_>) -> Result<Self, KernelError> {
        let mut head = vec![0; HEAD];
        image.read_at(0, &mut head).map_err(KernelError::read)?;
        let sectors = match head[SETUP_HEADER] {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let code = (sectors + 1) * 512;
        let mut parsed = Self {
            head,
            code,
            code_length: 0,
        };
        parsed.check()?;
        // The size is in paragraphs of 16 bytes.
        let length = u64::from(parsed.u32_at(0x1f4)) * 16;
        if length <= ENTRY_64 || code >= image.len() {
            return Err(KernelError::Damaged("it holds no code".to_owned()));
        }
        if code + length > image.len() {
            return Err(KernelError::Truncated {
                expected: code + length,
                found: image.len(),
            });
        }
        parsed.code_length = length;
        Ok(parsed)
    }

    fn check(&self) -> Result<(), KernelError> {
        let version = self.u16_at(0x206);
        if version < OLDEST_VERSION {
            return Err(KernelError::Foreign(format!(
                "a kernel for boot protocol {}.{:02}; at least 2.12 (Linux 3.8) is needed",
                version >> 8,
                version & 0xff
            )));
        }
        if self.u16_at(0x236) & XLF_KERNEL_64 == 0 {
            return Err(KernelError::Foreign(
                "a 32-bit kernel; only 64-bit ones run".to_owned(),
            ));
        }
        Ok(())
    }

    /// Where the compressed kernel proper lies in the file: offset and length.
    pub fn payload(&self) -> Option<(u64, u64)> {
        let offset = u64::from(self.u32_at(0x248));
        let length = u64::from(self.u32_at(0x24c));
        let inside = length > 0 && offset + length <= self.code_length;
        inside.then_some((self.code + offset, length))
    }

    /// Loads the container for its own decompressor to run in the guest.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn load(&self, memory: &GuestMemory, image: &Image<'_>) -> Result<Loaded, KernelError> {
        let base = u64::from_le_bytes(self.head[0x258..0x260].try_into().unwrap_or_default());
        let need = u64::from(self.u32_at(0x260)).max(self.code_length);
        if base < ABOVE_1M || base % PAGE != 0 {
            return Err(KernelError::Damaged(format!(
                "it wants to be loaded at {base:#x}"
            )));
        }
        let end = base.saturating_add(need);
        let fits =
            usize::try_from(need).is_ok_and(|need| memory.check_range(GuestAddress(base), need));
        if !fits {
            return Err(KernelError::TooLarge { end });
        }
        image
            .copy(memory, self.code, base, self.code_length)
            .map_err(KernelError::read)?;
        // The header's length is given by the jump over it at 0x200.
        let length = (0x202 + usize::from(self.head[0x201])).clamp(0x260, HEAD);
        Ok(Loaded {
            entry: Entry::Linux64(base + ENTRY_64),
            end,
            setup_header: self.head[SETUP_HEADER..length].to_vec(),
            initrd_max: u64::from(self.u32_at(0x22c)),
        })
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.head[at], self.head[at + 1]])
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from(self.u16_at(at)) | u32::from(self.u16_at(at + 2)) << 16
    }
}
