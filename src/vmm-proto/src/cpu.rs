//! A guest's processors: which model, with which features, in which sockets.

use serde::{Deserialize, Serialize};

/// What a guest's processors are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuConfig {
    /// What they can do.
    pub model: CpuModel,
    /// Features beyond the model's, by their names in [`FEATURES`], with those they need.
    pub add: Vec<String>,
    /// Features less than the model's, with those that need them.
    pub remove: Vec<String>,
    /// Where they sit; absent: all in one socket, a core each.
    pub topology: Option<CpuTopology>,
    /// Whether the guest finds Hyper-V, for Windows.
    pub hyperv: bool,
}

/// What a processor can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuModel {
    /// All that the host can give.
    #[default]
    Host,
    /// `x86-64-v2` of the System V ABI for AMD64, exactly.
    X86V2,
    /// `x86-64-v3`, and what all such processors have that systems make use of.
    X86V3,
    /// `x86-64-v4`, likewise.
    X86V4,
}

/// How many of each there are; the product is the number of vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTopology {
    /// Sockets of the board, at least 1.
    pub sockets: u8,
    /// Cores of a socket, at least 1.
    pub cores: u8,
    /// Threads of a core: 1 or 2.
    pub threads: u8,
}

impl CpuTopology {
    /// All in one socket, a core each.
    pub fn flat(vcpus: u8) -> Self {
        Self {
            sockets: 1,
            cores: vcpus,
            threads: 1,
        }
    }

    /// Whether it has that many vCPUs.
    pub fn fits(self, vcpus: u8) -> bool {
        let product = u32::from(self.sockets) * u32::from(self.cores) * u32::from(self.threads);
        matches!(self.threads, 1 | 2) && product == u32::from(vcpus)
    }
}

/// A register of a CPUID leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuidRegister {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// A feature with a name, and the bit of CPUID that stands for it (Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuFeature {
    /// As Linux calls it in `/proc/cpuinfo`, or nearly so.
    pub name: &'static str,
    /// EAX of CPUID.
    pub leaf: u32,
    /// ECX of CPUID.
    pub index: u32,
    /// Where the bit is.
    pub register: CpuidRegister,
    /// Which one, 0 to 31.
    pub bit: u32,
    /// The feature without which there is none of it.
    pub needs: Option<&'static str>,
}

impl CpuFeature {
    /// The feature of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        FEATURES.iter().find(|feature| feature.name == name)
    }
}

/// Lists the features of one register, each as `name bit` or `name bit needs other`.
macro_rules! features {
    ($($leaf:literal.$index:literal $register:ident: $($name:literal $bit:literal $(needs $other:literal)?),+;)+) => {
        &[$($(CpuFeature {
            name: $name,
            leaf: $leaf,
            index: $index,
            register: CpuidRegister::$register,
            bit: $bit,
            needs: features!(@needs $($other)?),
        }),+),+]
    };
    (@needs) => { None };
    (@needs $other:literal) => { Some($other) };
}

/// All features with names.
pub const FEATURES: &[CpuFeature] = features! {
    0x1 . 0 Edx: "fpu" 0, "vme" 1, "de" 2, "pse" 3, "tsc" 4, "msr" 5, "pae" 6, "mce" 7, "cx8" 8, "apic" 9, "sep" 11, "mtrr" 12,
        "pge" 13, "mca" 14, "cmov" 15, "pat" 16, "pse36" 17, "clflush" 19, "mmx" 23, "fxsr" 24, "sse" 25, "sse2" 26, "ss" 27;
    0x1 . 0 Ecx: "sse3" 0, "pclmulqdq" 1, "vmx" 5, "ssse3" 9, "fma" 12 needs "avx", "cx16" 13, "pcid" 17, "sse4_1" 19, "sse4_2" 20,
        "x2apic" 21, "movbe" 22, "popcnt" 23, "tsc_deadline_timer" 24, "aes" 25, "xsave" 26, "avx" 28 needs "xsave",
        "f16c" 29 needs "avx", "rdrand" 30, "hypervisor" 31;
    0x7 . 0 Ebx: "fsgsbase" 0, "tsc_adjust" 1, "bmi1" 3, "hle" 4, "avx2" 5 needs "avx", "smep" 7, "bmi2" 8, "erms" 9, "invpcid" 10,
        "rtm" 11, "mpx" 14 needs "xsave", "avx512f" 16 needs "avx2", "avx512dq" 17 needs "avx512f", "rdseed" 18, "adx" 19, "smap" 20,
        "avx512ifma" 21 needs "avx512f", "clflushopt" 23, "clwb" 24, "avx512cd" 28 needs "avx512f", "sha_ni" 29,
        "avx512bw" 30 needs "avx512f", "avx512vl" 31 needs "avx512f";
    0x7 . 0 Ecx: "avx512vbmi" 1 needs "avx512f", "umip" 2, "pku" 3 needs "xsave", "waitpkg" 5, "avx512_vbmi2" 6 needs "avx512f", "gfni" 8,
        "vaes" 9 needs "avx", "vpclmulqdq" 10 needs "avx", "avx512_vnni" 11 needs "avx512f", "avx512_bitalg" 12 needs "avx512f",
        "avx512_vpopcntdq" 14 needs "avx512f", "la57" 16, "rdpid" 22;
    0x7 . 0 Edx: "fsrm" 4, "avx512_vp2intersect" 8 needs "avx512f", "md_clear" 10, "serialize" 14, "spec_ctrl" 26, "stibp" 27,
        "arch_capabilities" 29, "ssbd" 31;
    0x7 . 1 Eax: "avx_vnni" 4 needs "avx2", "avx512_bf16" 5 needs "avx512f";
    0xd . 1 Eax: "xsaveopt" 0 needs "xsave", "xsavec" 1 needs "xsave", "xgetbv1" 2 needs "xsave", "xsaves" 3 needs "xsavec";
    0x8000_0001 . 0 Edx: "syscall" 11, "nx" 20, "mmxext" 22, "fxsr_opt" 25, "pdpe1gb" 26, "rdtscp" 27, "lm" 29;
    0x8000_0001 . 0 Ecx: "lahf_lm" 0, "svm" 2, "cr8_legacy" 4, "abm" 5, "sse4a" 6, "misalignsse" 7, "3dnowprefetch" 8, "xop" 11 needs "avx",
        "fma4" 16 needs "avx", "tbm" 21;
    0x8000_0008 . 0 Ebx: "clzero" 0, "xsaveerptr" 2 needs "xsave", "wbnoinvd" 9, "ibpb" 12, "ibrs" 14, "amd_stibp" 15, "amd_ssbd" 24, "virt_ssbd" 25;
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_has_one_name_and_what_it_needs_exists() {
        for (number, feature) in FEATURES.iter().enumerate() {
            let place =
                |feature: &CpuFeature| (feature.leaf, feature.index, feature.register, feature.bit);
            for other in &FEATURES[..number] {
                assert_ne!(other.name, feature.name);
                assert_ne!(place(other), place(feature), "{}", feature.name);
            }
            assert!(feature.bit < 32);
            // Chains end, so whoever follows them does.
            let mut next = feature.needs;
            for _ in 0..5 {
                next = next.and_then(|name| CpuFeature::named(name).unwrap().needs);
            }
            assert_eq!(next, None, "{}", feature.name);
        }
    }

    #[test]
    fn a_topology_fits_its_product() {
        let topology = |sockets, cores, threads| CpuTopology {
            sockets,
            cores,
            threads,
        };
        assert!(CpuTopology::flat(64).fits(64));
        assert!(topology(2, 3, 2).fits(12));
        for wrong in [
            topology(2, 3, 2),
            topology(0, 6, 1),
            topology(1, 2, 3),
            topology(255, 255, 255),
        ] {
            assert!(!wrong.fits(6), "{wrong:?}");
        }
    }
}
