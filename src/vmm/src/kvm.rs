//! A virtual machine at the kernel's door: capabilities, memory slots, chipset.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::IntoRawFd;

use kvm_bindings::{
    KVM_API_VERSION, KVM_CAP_PMU_CAPABILITY, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY, KVM_PMU_CAP_DISABLE, kvm_clock_data,
    kvm_enable_cap, kvm_irqchip, kvm_pit_config, kvm_pit_state2, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VmFd};
use lodge_devices::GuestMemory;
use serde::{Deserialize, Serialize};
use std::os::fd::FromRawFd;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::layout::KVM_PRIVATE_BASE;
use crate::memory::PAGE;

/// What the monitor cannot do without, and how to tell a person.
const REQUIRED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::PitState2, "KVM_CAP_PIT_STATE2"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::SetIdentityMapAddr, "KVM_CAP_SET_IDENTITY_MAP_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::IoeventfdNoLength, "KVM_CAP_IOEVENTFD_NO_LENGTH"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::Xcrs, "KVM_CAP_XCRS"),
    (Cap::Debugregs, "KVM_CAP_DEBUGREGS"),
];

/// KVM refused something.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// Not the interface this program was written for.
    #[error("KVM speaks API version {0}, this program version {KVM_API_VERSION}")]
    ApiVersion(i32),
    /// A capability is missing.
    #[error("this host's KVM lacks {0}; use a newer kernel")]
    Capability(&'static str),
    /// More vCPUs than the host allows.
    #[error("this host's KVM allows at most {0} vCPUs in one guest")]
    TooManyVcpus(usize),
    /// A call failed.
    #[error("{call}: {source}")]
    Call {
        /// Which call.
        call: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

impl KvmError {
    /// Wraps the error of a call, for `map_err`.
    pub fn call(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Call {
            call,
            source: error.into(),
        }
    }
}

/// Takes over an open `/dev/kvm` and checks that it can do what guests need.
///
/// # Errors
/// Names the first thing that is missing.
pub fn open(file: File, vcpus: u8) -> Result<Kvm, KvmError> {
    // SAFETY: ownership of the descriptor moves from `file` into `Kvm`.
    let kvm = unsafe { Kvm::from_raw_fd(file.into_raw_fd()) };
    let version = kvm.get_api_version();
    if version < 0 {
        return Err(KvmError::Call {
            call: "KVM_GET_API_VERSION (is the descriptor /dev/kvm?)",
            source: io::Error::last_os_error(),
        });
    }
    if version != KVM_API_VERSION as i32 {
        return Err(KvmError::ApiVersion(version));
    }
    for &(capability, name) in REQUIRED {
        if !kvm.check_extension(capability) {
            return Err(KvmError::Capability(name));
        }
    }
    let most = kvm.get_max_vcpus();
    if usize::from(vcpus) > most {
        return Err(KvmError::TooManyVcpus(most));
    }
    Ok(kvm)
}

/// Creates a virtual machine with PIC, I/O APIC, local APICs and PIT in the kernel.
///
/// # Errors
/// Names the call that failed.
pub fn create_machine(kvm: &Kvm) -> Result<VmFd, KvmError> {
    let vm = create_vm(kvm)?;
    disable_performance_counters(&vm);
    vm.set_identity_map_address(KVM_PRIVATE_BASE)
        .map_err(KvmError::call("KVM_SET_IDENTITY_MAP_ADDR"))?;
    vm.set_tss_address((KVM_PRIVATE_BASE + PAGE) as usize)
        .map_err(KvmError::call("KVM_SET_TSS_ADDR"))?;
    vm.create_irq_chip()
        .map_err(KvmError::call("KVM_CREATE_IRQCHIP"))?;
    let pit = kvm_pit_config {
        // Port 0x61 is the timer's too; a guest that calibrates its clock polls it.
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(pit)
        .map_err(KvmError::call("KVM_CREATE_PIT2"))?;
    Ok(vm)
}

fn create_vm(kvm: &Kvm) -> Result<VmFd, KvmError> {
    // The kernel gives up with EINTR when a signal arrives while it sets up.
    const ATTEMPTS: u32 = 5;
    let mut attempt = 0;
    loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR && attempt < ATTEMPTS => attempt += 1,
            result => return result.map_err(KvmError::call("KVM_CREATE_VM")),
        }
    }
}

/// Performance counters are a large surface that guests rarely need and that
/// no migration carries; hosts that cannot turn them off keep them.
fn disable_performance_counters(vm: &VmFd) {
    let capability = kvm_enable_cap {
        cap: KVM_CAP_PMU_CAPABILITY,
        args: [u64::from(KVM_PMU_CAP_DISABLE), 0, 0, 0],
        ..Default::default()
    };
    if let Err(error) = vm.enable_cap(&capability) {
        tracing::debug!("performance counters stay on: {error}");
    }
}

/// Tells KVM where guest memory is, one slot per range.
///
/// # Errors
/// When KVM refuses a slot.
///
/// # Safety
/// `memory` must stay mapped for as long as the virtual machine exists.
pub unsafe fn set_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), KvmError> {
    for (slot, region) in memory.iter().enumerate() {
        let slot = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.get_mmap().as_ptr() as u64,
        };
        // SAFETY: the range is a live mapping owned by `memory`, which the
        // caller keeps; the guest may do with it what it likes.
        unsafe { vm.set_user_memory_region(slot) }
            .map_err(KvmError::call("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

/// What the machine's clock says that KVM gives its guest, in nanoseconds.
///
/// # Errors
/// When KVM does not tell.
pub fn clock(vm: &VmFd) -> Result<u64, KvmError> {
    let clock = vm.get_clock().map_err(KvmError::call("KVM_GET_CLOCK"))?;
    Ok(clock.clock)
}

/// Sets that clock.
///
/// # Errors
/// When KVM refuses.
pub fn set_clock(vm: &VmFd, nanoseconds: u64) -> Result<(), KvmError> {
    let clock = kvm_clock_data {
        clock: nanoseconds,
        ..Default::default()
    };
    vm.set_clock(&clock)
        .map_err(KvmError::call("KVM_SET_CLOCK"))
}

/// The in-kernel interrupt controllers and timer at a moment.
#[derive(Serialize, Deserialize)]
pub struct ChipsetState {
    chips: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
}

impl ChipsetState {
    /// Records the present state.
    ///
    /// # Errors
    /// When KVM does not tell.
    pub fn save(vm: &VmFd) -> Result<Self, KvmError> {
        let mut chips = Vec::new();
        for chip_id in [
            KVM_IRQCHIP_PIC_MASTER,
            KVM_IRQCHIP_PIC_SLAVE,
            KVM_IRQCHIP_IOAPIC,
        ] {
            let mut chip = kvm_irqchip {
                chip_id,
                ..Default::default()
            };
            vm.get_irqchip(&mut chip)
                .map_err(KvmError::call("KVM_GET_IRQCHIP"))?;
            chips.push(chip);
        }
        let pit = vm.get_pit2().map_err(KvmError::call("KVM_GET_PIT2"))?;
        Ok(Self { chips, pit })
    }

    /// Brings the recorded state back.
    ///
    /// # Errors
    /// When KVM refuses it; chips that do not exist are such a case.
    pub fn restore(&self, vm: &VmFd) -> Result<(), KvmError> {
        for chip in &self.chips {
            vm.set_irqchip(chip)
                .map_err(KvmError::call("KVM_SET_IRQCHIP"))?;
        }
        vm.set_pit2(&self.pit)
            .map_err(KvmError::call("KVM_SET_PIT2"))
    }
}
