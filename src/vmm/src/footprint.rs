//! The program's own pages in a monitor.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

/// Lets go of the pages of code and constants that are in memory, most of which only the start needed: what is needed again
/// comes back from the file with the next touch. Where many guests run it is the same file for all, so little is won but
/// page tables; but each is charged for what it has mapped.
pub fn let_go_of_code() {
    // SAFETY: the callback keeps to what it is given.
    unsafe { libc::dl_iterate_phdr(Some(of_object), std::ptr::null_mut()) };
}

/// Called for the program first, and for nothing after that.
unsafe extern "C" fn of_object(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the C library describes a loaded object, whose program headers stay where they are.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, count);
        (object.dlpi_addr, headers)
    };
    for header in headers {
        // What is written to, be it by relocation alone, would be lost.
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            let address = base + header.p_vaddr;
            let start = address & !(crate::memory::PAGE - 1);
            let length = address + header.p_memsz - start;
            // SAFETY: an unchanged mapping of the program's file, which is read again when it is needed.
            unsafe { libc::madvise(start as *mut c_void, length as usize, libc::MADV_DONTNEED) };
        }
    }
    1
}
