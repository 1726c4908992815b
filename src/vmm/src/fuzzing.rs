//! Ways for the fuzz targets in `tests/fuzz` into what is private here.

use std::fs::File;
use std::io::{self, Write as _};

use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::boot::{self, DirectBoot};
use crate::{memory, saved};

/// Memory of the guest that a kernel is loaded for. What a packed kernel may unpack to follows from it.
const MEMORY: u64 = 4 << 20;

/// Where the ACPI tables would begin.
const RSDP: u64 = 0xe_0000;

/// Loads a kernel and perhaps an initial RAM disk; tells whether there is something to boot.
///
/// # Errors
/// When the host is out of memory.
///
/// # Panics
/// When what was loaded is said to be where no memory is.
pub fn load(kernel: File, initrd: Option<File>) -> io::Result<bool> {
    let memory = memory::reserve(MEMORY).map_err(io::Error::other)?;
    let boot = DirectBoot {
        kernel,
        initrd,
        cmdline: "quiet".to_owned(),
    };
    let Ok(loaded) = boot::load(&memory, &boot, RSDP) else {
        return Ok(false);
    };
    if let Some(mapped) = loaded.mapped {
        let length = usize::try_from(mapped.end - mapped.start).unwrap_or(usize::MAX);
        assert!(memory.check_range(GuestAddress(mapped.start), length));
    }
    Ok(true)
}

/// Reads a saved state with this body and a header that is right; tells whether it is one.
///
/// # Errors
/// When the host has no room for a file.
///
/// # Panics
/// When a state changes by being written and read again.
pub fn read_state(body: &[u8], empty_file: impl Fn() -> io::Result<File>) -> io::Result<bool> {
    let mut file = empty_file()?;
    file.write_all(&saved::with_header(body))?;
    let Ok(state) = saved::read(&file) else {
        return Ok(false);
    };
    // Whoever may read a state does this next.
    let _ = state.check(1, MEMORY);
    let copy = empty_file()?;
    saved::write(&copy, &state).map_err(io::Error::other)?;
    let again = saved::read(&copy).map_err(io::Error::other)?;
    assert_eq!(
        serde_json::to_value(&again).map_err(io::Error::other)?,
        serde_json::to_value(&state).map_err(io::Error::other)?,
    );
    Ok(true)
}
