//! A vCPU of a guest that finds Hyper-V (Microsoft, Hypervisor Top Level Functional Specification). KVM has it all; what
//! is left to do is to turn it on, to save it, and to refuse what KVM hands on.
#![allow(unsafe_code)]

use kvm_bindings::{KVM_CAP_HYPERV_SYNIC2, KVM_EXIT_HYPERV_HCALL, kvm_enable_cap};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

use crate::kvm::KvmError;

/// `HV_STATUS_INVALID_HYPERCALL_CODE`.
const INVALID_HYPERCALL: u64 = 2;

/// Registers of the synthetic interrupt controller and its timers, which KVM does not list, in the order they are to be
/// written: SCONTROL, SIEFP, SIMP, SINT0 to SINT15, and configuration and count of each timer.
pub fn msr_indices() -> impl Iterator<Item = u32> {
    let controller = [0x4000_0080, 0x4000_0082, 0x4000_0083];
    let sources = 0x4000_0090..=0x4000_009f;
    let timers = 0x4000_00b0..=0x4000_00b7;
    controller.into_iter().chain(sources).chain(timers)
}

/// What of it the host's kernel lacks, if anything.
pub fn missing(kvm: &Kvm) -> Option<&'static str> {
    // Since Linux 4.20 they come together or not at all.
    let needed = [
        (Cap::Hyperv, "Hyper-V"),
        (Cap::HypervVapic, "Hyper-V's local APIC"),
        (Cap::HypervTime, "Hyper-V's clocks"),
        (Cap::HypervSynic2, "Hyper-V's interrupt controller"),
    ];
    let absent = needed
        .into_iter()
        .find(|(capability, _)| !kvm.check_extension(*capability));
    absent.map(|(_, name)| name)
}

/// Turns the synthetic interrupt controller on; the guest itself enables it. Its pages stay as they are, so that a restored
/// guest finds its own.
///
/// # Errors
/// When the kernel refuses.
pub fn enable(fd: &VcpuFd) -> Result<(), KvmError> {
    let capability = kvm_enable_cap {
        cap: KVM_CAP_HYPERV_SYNIC2,
        ..Default::default()
    };
    fd.enable_cap(&capability)
        .map_err(KvmError::call("KVM_ENABLE_CAP of KVM_CAP_HYPERV_SYNIC2"))
}

/// Serves `KVM_EXIT_HYPERV`. Changes of the controller's registers need nothing from us; hypercalls that come this far are about
/// a bus between guest and host that there is not.
pub fn serve_exit(fd: &mut VcpuFd) {
    // SAFETY: the exit reason says that this member of the union is valid.
    let exit = unsafe { &mut fd.get_kvm_run().__bindgen_anon_1.hyperv };
    if exit.type_ == KVM_EXIT_HYPERV_HCALL {
        exit.u.hcall.result = INVALID_HYPERCALL;
    }
}
