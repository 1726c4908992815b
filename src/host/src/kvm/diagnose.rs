//! From what processor, kernel log and `/dev/kvm` say to one answer.
#![allow(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use super::processor::Processor;
use super::{CpuVendor, KvmState, KvmStatus};
use crate::kmsg::{KmsgItem, KmsgReader};

/// The only version there ever was (`linux/kvm.h`).
const KVM_API_VERSION: i32 = 12;

/// Looks whether guests can run here. Loads nothing: PID 1 has loaded the modules before it asks.
pub fn diagnose() -> KvmStatus {
    let processor = Processor::read();
    let device = open_device();
    let log = match &device {
        Ok(_) => Vec::new(),
        Err(_) => kernel_words(),
    };
    let facts = Facts {
        device,
        log,
        module_loaded: fs::exists("/sys/module/kvm").unwrap_or(false),
        module_file: module_file_exists(),
        nested_paging: nested_paging(processor.vendor),
        processor,
    };
    facts.status()
}

/// Everything the answer is made from.
struct Facts {
    processor: Processor,
    /// The API version `/dev/kvm` answers, or why it does not.
    device: Result<i32, io::Error>,
    /// What the kernel's log says about KVM.
    log: Vec<String>,
    module_loaded: bool,
    /// Whether this kernel has a KVM module on disk; `None` when there are no modules to look at.
    module_file: Option<bool>,
    nested_paging: Option<bool>,
}

impl Facts {
    fn status(&self) -> KvmStatus {
        let (state, message) = self.judge();
        KvmStatus {
            state,
            message,
            vendor: self.processor.vendor,
            hypervisor: self.processor.hypervisor.clone(),
            api_version: self.device.as_ref().ok().copied(),
            nested_paging: match state {
                KvmState::Usable => self.nested_paging,
                _ => None,
            },
        }
    }

    fn judge(&self) -> (KvmState, String) {
        match &self.device {
            Ok(KVM_API_VERSION) => return (KvmState::Usable, self.usable()),
            Ok(other) => {
                let message = format!(
                    "/dev/kvm speaks version {other} of its interface, not {KVM_API_VERSION}."
                );
                return (KvmState::Broken, message);
            }
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                let message =
                    "/dev/kvm may not be opened by this user; run as root or join the group kvm.";
                return (KvmState::PermissionDenied, message.to_owned());
            }
            Err(_) => {}
        }
        self.obstacle()
    }

    fn usable(&self) -> String {
        let extension = match self.processor.vendor {
            CpuVendor::Intel => "VT-x",
            CpuVendor::Amd => "AMD-V",
            CpuVendor::Other => "the kernel's own virtualization",
        };
        match &self.processor.hypervisor {
            Some(name) => format!(
                "Guests run through {extension}, nested inside another hypervisor ({name}): expect them to be slower."
            ),
            None => format!("Guests run through {extension}."),
        }
    }

    /// `/dev/kvm` does not work: the nearest cause first.
    fn obstacle(&self) -> (KvmState, String) {
        let extension = match self.processor.vendor {
            CpuVendor::Intel => "Intel VT-x (VMX)",
            CpuVendor::Amd => "AMD-V (SVM)",
            CpuVendor::Other => "virtualization",
        };
        let said = |words: &[&str]| {
            self.log.iter().rev().find(|line| {
                words
                    .iter()
                    .any(|word| line.to_ascii_lowercase().contains(word))
            })
        };
        let by_firmware = said(&["disabled by bios", "(by bios)", "disabled by the bios"]);
        if self.processor.virtualization && self.processor.disabled == Some(true)
            || by_firmware.is_some()
        {
            let message = format!(
                "{extension} is switched off in the firmware. Switch it on in the machine's BIOS or UEFI set-up, under processor or security, and power the machine off and on."
            );
            return (KvmState::DisabledInFirmware, message);
        }
        if !self.processor.virtualization {
            let message = match &self.processor.hypervisor {
                Some(name) => format!(
                    "This machine is itself virtual ({name}) and its processor shows no {extension}: enable nested virtualization in the hypervisor below."
                ),
                None => format!(
                    "The processor shows no {extension}: either it has none, or the firmware hides it; look in the machine's BIOS or UEFI set-up."
                ),
            };
            return (KvmState::NoCpuSupport, message);
        }
        if !self.module_loaded && self.module_file == Some(false) {
            return (
                KvmState::ModuleMissing,
                "This kernel has no KVM module.".to_owned(),
            );
        }
        let words = self.log.last().map_or_else(
            || {
                self.device
                    .as_ref()
                    .err()
                    .map_or_else(String::new, |e| format!("/dev/kvm: {e}"))
            },
            Clone::clone,
        );
        let state = if fs::exists("/dev/kvm").unwrap_or(false) && self.log.is_empty() {
            KvmState::Broken
        } else {
            KvmState::ModuleRefused
        };
        (state, format!("The kernel refused its KVM module: {words}"))
    }
}

/// Opens `/dev/kvm` and asks its version.
fn open_device() -> Result<i32, io::Error> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
    const KVM_GET_API_VERSION: libc::c_ulong = 0xae00;
    // SAFETY: the request takes no pointer, only the number zero.
    let version = unsafe { libc::ioctl(device.as_raw_fd(), KVM_GET_API_VERSION, 0) };
    if version < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(version)
}

/// Lines of the kernel's log about KVM, oldest first.
fn kernel_words() -> Vec<String> {
    let mut lines = Vec::new();
    let Ok(mut reader) = KmsgReader::open() else {
        return lines;
    };
    while let Ok(Some(item)) = reader.read() {
        if let KmsgItem::Record(record) = item
            && record.facility == 0
            && is_about_kvm(&record.message)
        {
            lines.push(record.message);
        }
    }
    lines
}

fn is_about_kvm(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let mine = [
        "kvm:",
        "kvm_intel:",
        "kvm_amd:",
        "x86/cpu: vmx",
        "x86/cpu: svm",
    ];
    mine.iter().any(|word| line.contains(word))
        && !line.contains("kvm: exiting hardware virtualization")
}

fn module_file_exists() -> Option<bool> {
    let release = nix::sys::utsname::uname().ok()?;
    let index = format!("/lib/modules/{}/modules.dep", release.release().to_str()?);
    let index = fs::read_to_string(index).ok()?;
    Some(index.contains("/kvm.ko"))
}

/// `npt` of `kvm_amd` or `ept` of `kvm_intel`.
fn nested_paging(vendor: CpuVendor) -> Option<bool> {
    let parameter = match vendor {
        CpuVendor::Intel => "/sys/module/kvm_intel/parameters/ept",
        CpuVendor::Amd => "/sys/module/kvm_amd/parameters/npt",
        CpuVendor::Other => return None,
    };
    let text = fs::read_to_string(parameter).ok()?;
    Some(matches!(text.trim(), "Y" | "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            processor: Processor {
                vendor: CpuVendor::Amd,
                virtualization: true,
                hypervisor: None,
                disabled: None,
            },
            device: Err(io::Error::from_raw_os_error(libc::ENOENT)),
            log: Vec::new(),
            module_loaded: true,
            module_file: Some(true),
            nested_paging: Some(true),
        }
    }

    fn state(facts: &Facts) -> KvmState {
        facts.status().state
    }

    #[test]
    fn usable_and_nested() {
        let mut facts = facts();
        facts.device = Ok(12);
        let status = facts.status();
        assert!(status.usable());
        assert_eq!(status.nested_paging, Some(true));
        assert_eq!(status.message, "Guests run through AMD-V.");
        facts.processor.hypervisor = Some("KVMKVMKVM".into());
        assert!(
            facts
                .status()
                .message
                .contains("nested inside another hypervisor (KVMKVMKVM)")
        );
    }

    #[test]
    fn each_obstacle_has_its_name() {
        let mut facts = facts();
        facts.device = Err(io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(state(&facts), KvmState::PermissionDenied);
        facts.device = Ok(11);
        assert_eq!(state(&facts), KvmState::Broken);
        facts.device = Err(io::Error::from_raw_os_error(libc::ENOENT));
        facts.log = vec!["kvm_amd: CPU 0 isn't AMD or Hygon".into()];
        assert_eq!(state(&facts), KvmState::ModuleRefused);
        assert!(facts.status().message.ends_with("CPU 0 isn't AMD or Hygon"));
        facts.log = vec!["kvm_amd: SVM disabled (by BIOS) in MSR_VM_CR on CPU 0".into()];
        assert_eq!(state(&facts), KvmState::DisabledInFirmware);
        facts.log.clear();
        facts.processor.disabled = Some(true);
        assert_eq!(state(&facts), KvmState::DisabledInFirmware);
        facts.processor.disabled = None;
        facts.module_loaded = false;
        facts.module_file = Some(false);
        assert_eq!(state(&facts), KvmState::ModuleMissing);
        facts.processor.virtualization = false;
        assert_eq!(state(&facts), KvmState::NoCpuSupport);
        facts.processor.hypervisor = Some("VMwareVMware".into());
        assert!(
            facts
                .status()
                .message
                .contains("enable nested virtualization")
        );
    }

    #[test]
    fn intel_s_words_for_the_firmware_s_switch() {
        let mut facts = facts();
        facts.processor.vendor = CpuVendor::Intel;
        for line in [
            "kvm: disabled by bios",
            "x86/cpu: VMX (outside TXT) disabled by BIOS",
            "kvm_intel: VMX not enabled (by BIOS) in MSR_IA32_FEAT_CTL on CPU 0",
        ] {
            assert!(is_about_kvm(line), "{line}");
            facts.log = vec![line.to_owned()];
            assert_eq!(state(&facts), KvmState::DisabledInFirmware, "{line}");
        }
        assert!(!is_about_kvm("Booting paravirtualized kernel on KVM"));
    }

    #[test]
    fn this_machine_gives_an_answer() {
        let status = diagnose();
        assert!(!status.message.is_empty());
    }
}
