//! Ranges of guest-physical memory that the guest can read and execute; its writes leave the guest.
//!
//! Each is one of KVM's memory slots. The first numbers are those of guest memory, from 0.
#![allow(unsafe_code)]

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::MmapRegion;

use crate::kvm::KvmError;

/// The slot of the firmware's code.
pub const CODE: u32 = 16;
/// The slot of the firmware's variables.
pub const VARIABLES: u32 = 17;
/// The slot of the page with the generation id.
pub const GENERATION_ID: u32 = 18;

/// One of KVM's memory slots.
pub struct ReadOnlySlot {
    vm: Arc<VmFd>,
    slot: u32,
    base: u64,
    mapping: MmapRegion,
}

impl ReadOnlySlot {
    /// A slot that the guest does not see yet. `slot` must not be used for anything else.
    pub fn new(vm: &Arc<VmFd>, slot: u32, base: u64, mapping: MmapRegion) -> Self {
        Self {
            vm: Arc::clone(vm),
            slot,
            base,
            mapping,
        }
    }

    /// First guest-physical address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// What is mapped.
    pub fn mapping(&self) -> &MmapRegion {
        &self.mapping
    }

    /// Lets the guest see the memory, or nothing in its place.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn show(&self, visible: bool) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot: self.slot,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: self.base,
            // A slot without length is removed.
            memory_size: if visible {
                self.mapping.size() as u64
            } else {
                0
            },
            userspace_addr: self.mapping.as_ptr() as u64,
        };
        // SAFETY: the mapping is ours and outlives the slot, which `drop` removes; the guest cannot write to it.
        unsafe { self.vm.set_user_memory_region(region) }
            .map_err(KvmError::call("KVM_SET_USER_MEMORY_REGION (read-only)"))
    }
}

impl Drop for ReadOnlySlot {
    fn drop(&mut self) {
        // Removing a slot that is not there is an error, and harmless.
        let _ = self.show(false);
    }
}
