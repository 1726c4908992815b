//! Direct boot: kernel, initial RAM disk, command line and tables into fresh guest memory.

mod bzimage;
mod decompress;
mod elf;
mod foreign;
mod image;
mod lz4_legacy;
pub mod memory_map;
mod pvh;
mod zero_page;

use std::fs::File;
use std::io;
use std::ops::Range;

use lodge_devices::GuestMemory;
use lodge_vmm_proto::LaunchError;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::layout::{COMMAND_LINE, CONVENTIONAL_END, RESET_VECTOR};
use crate::memory::PAGE;
use bzimage::BzImage;
use decompress::{Compression, MAX_UNPACKED};
use image::Image;

/// How and where the first vCPU enters the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode at this address, by the PVH protocol.
    Pvh(u64),
    /// 64-bit mode at this address, by Linux's 64-bit boot protocol.
    Linux64(u64),
    /// Where a processor begins after power-on: firmware.
    ResetVector,
}

impl Entry {
    /// The guest-physical address of the first instruction.
    pub fn address(self) -> u64 {
        match self {
            Self::Pvh(address) | Self::Linux64(address) => address,
            Self::ResetVector => RESET_VECTOR,
        }
    }
}

/// Files of a direct boot, kept open so that a reset can load them again.
pub struct DirectBoot {
    /// bzImage or ELF kernel, plain or compressed.
    pub kernel: File,
    /// Initial RAM disk.
    pub initrd: Option<File>,
    /// Kernel command line without NUL.
    pub cmdline: String,
}

/// A kernel that cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Not a kernel for this machine. Says what it is instead.
    #[error("not a bootable kernel: this is {0}")]
    Foreign(String),
    /// A kernel, but something in it makes no sense.
    #[error("the kernel is damaged: {0}")]
    Damaged(String),
    /// The file is shorter than it says.
    #[error("the kernel is cut short: it has {found} of {expected} bytes")]
    Truncated {
        /// What the header says.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// It does not fit in the guest's memory.
    #[error("the kernel needs memory up to address {end:#x}; give the guest more memory")]
    TooLarge {
        /// First address after it.
        end: u64,
    },
    /// It unpacks to more than allowed.
    #[error("the kernel unpacks to more than {0} bytes; give the guest more memory")]
    UnpacksTooLarge(u64),
    /// A compression this program does not know how to unpack.
    #[error("{0} compression is not supported for a bare kernel; use its bzImage or unpack it")]
    Compression(&'static str),
    /// The file could not be read.
    #[error("the kernel cannot be read: {0}")]
    Read(#[source] io::Error),
}

impl KernelError {
    /// For errors of unpacking on the way.
    fn unpack(error: &io::Error) -> Self {
        Self::Damaged(format!("its compressed data: {error}"))
    }

    /// Tells a file that ends too early from one that cannot be read.
    fn read(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Damaged("it ends in the middle of something".to_owned())
        } else {
            Self::Read(error)
        }
    }
}

/// A boot that cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel's fault.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The initial RAM disk does not fit or cannot be read.
    #[error("initrd: {0}")]
    Initrd(String),
    /// The command line does not fit.
    #[error("the command line is too long")]
    Cmdline,
    /// A table of ours could not be written, for lack of memory.
    #[error("boot tables do not fit in guest memory")]
    Tables,
}

impl BootError {
    /// The field of the launch message to point at.
    pub fn kind(&self) -> LaunchError {
        match self {
            Self::Kernel(_) => LaunchError::Kernel,
            Self::Initrd(_) => LaunchError::Initrd,
            Self::Cmdline => LaunchError::Cmdline,
            Self::Tables => LaunchError::Internal,
        }
    }
}

struct Kernel {
    entry: Entry,
    end: u64,
    setup_header: Option<Vec<u8>>,
    initrd_max: u64,
}

/// An initial RAM disk in guest memory.
#[derive(Clone, Copy)]
struct Ramdisk {
    address: u64,
    length: u64,
}

/// What has become of the files of a direct boot.
pub struct Loaded {
    /// Where the first vCPU enters.
    pub entry: Entry,
    /// Guest memory that is a view of a file until it is written to, if there is any.
    pub mapped: Option<Range<u64>>,
}

/// Loads everything into fresh guest memory; `rsdp` is where the ACPI tables begin.
///
/// # Errors
/// [`BootError`] with what is wrong. Guest memory may then hold a part of it.
pub fn load(memory: &GuestMemory, boot: &DirectBoot, rsdp: u64) -> Result<Loaded, BootError> {
    let kernel = load_kernel(memory, &boot.kernel)?;
    let ramdisk = match &boot.initrd {
        Some(file) => Some(load_ramdisk(memory, file, &kernel)?),
        None => None,
    };
    load_cmdline(memory, &boot.cmdline)?;
    match kernel.entry {
        Entry::Pvh(_) => pvh::write(memory, rsdp, ramdisk),
        Entry::Linux64(_) => {
            zero_page::write(memory, rsdp, kernel.setup_header.as_deref(), ramdisk)
        }
        // No kernel file has this entry.
        Entry::ResetVector => None,
    }
    .ok_or(BootError::Tables)?;
    Ok(Loaded {
        entry: kernel.entry,
        mapped: ramdisk.map(|disk| disk.address..disk.address.saturating_add(disk.length)),
    })
}

fn load_kernel(memory: &GuestMemory, file: &File) -> Result<Kernel, KernelError> {
    let image = Image::new(file).map_err(KernelError::Read)?;
    let head = image.head(foreign::HEAD).map_err(KernelError::read)?;
    if elf::is_elf(&head) {
        return Ok(from_elf(elf::load(memory, &image)?));
    }
    if bzimage::is_bzimage(&head) {
        return load_bzimage(memory, &image);
    }
    if let Some(compression) = Compression::detect(&head) {
        return unpack(memory, &image, 0, image.len(), compression);
    }
    Err(KernelError::Foreign(foreign::describe(&head).to_owned()))
}

/// Unpacks the kernel in a bzImage here, which is faster than in the guest; one
/// packed in a way unknown here is left to its own decompressor.
fn load_bzimage(memory: &GuestMemory, image: &Image<'_>) -> Result<Kernel, KernelError> {
    let container = BzImage::parse(image)?;
    if let Some((offset, length)) = container.payload() {
        let mut magic = [0; 8];
        image
            .read_at(offset, &mut magic)
            .map_err(KernelError::read)?;
        match Compression::detect(&magic) {
            None | Some(Compression::Unsupported(_)) => {}
            Some(compression) => return unpack(memory, image, offset, length, compression),
        }
    }
    let loaded = container.load(memory, image)?;
    Ok(Kernel {
        entry: loaded.entry,
        end: loaded.end,
        setup_header: Some(loaded.setup_header),
        initrd_max: loaded.initrd_max,
    })
}

fn unpack(
    memory: &GuestMemory,
    image: &Image<'_>,
    offset: u64,
    length: u64,
    compression: Compression,
) -> Result<Kernel, KernelError> {
    // An ELF file is hardly larger than what it occupies when loaded, unless
    // it carries debugging symbols, which come after.
    let limit = low_memory_end(memory).saturating_mul(2).min(MAX_UNPACKED);
    let mut stream = compression.unpack(image.reader(offset, length))?;
    Ok(from_elf(elf::load_stream(memory, &mut *stream, limit)?))
}

fn from_elf(loaded: elf::Loaded) -> Kernel {
    Kernel {
        entry: loaded.entry,
        end: loaded.end,
        setup_header: None,
        initrd_max: u64::from(u32::MAX),
    }
}

fn load_ramdisk(memory: &GuestMemory, file: &File, kernel: &Kernel) -> Result<Ramdisk, BootError> {
    let unreadable = |error: io::Error| BootError::Initrd(format!("cannot be read: {error}"));
    let image = Image::new(file).map_err(unreadable)?;
    let length = image.len();
    let top = low_memory_end(memory).min(kernel.initrd_max.saturating_add(1));
    let address = top
        .checked_sub(length)
        .map(|address| address / PAGE * PAGE)
        .filter(|&address| address >= kernel.end);
    let Some(address) = address else {
        return Err(BootError::Initrd(format!(
            "{length} bytes do not fit between the kernel and {top:#x}; give the guest more memory"
        )));
    };
    image.map(memory, address).map_err(unreadable)?;
    Ok(Ramdisk { address, length })
}

fn load_cmdline(memory: &GuestMemory, cmdline: &str) -> Result<(), BootError> {
    let room = (CONVENTIONAL_END - COMMAND_LINE) as usize;
    if cmdline.len() >= room {
        return Err(BootError::Cmdline);
    }
    memory
        .write_slice(cmdline.as_bytes(), GuestAddress(COMMAND_LINE))
        .and_then(|()| memory.write_obj(0_u8, GuestAddress(COMMAND_LINE + cmdline.len() as u64)))
        .map_err(|_| BootError::Tables)
}

fn low_memory_end(memory: &GuestMemory) -> u64 {
    memory
        .find_region(GuestAddress(0))
        .map_or(0, GuestMemoryRegion::len)
}

#[cfg(test)]
mod tests;
