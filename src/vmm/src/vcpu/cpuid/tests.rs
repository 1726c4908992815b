use lodge_vmm_proto::CpuModel;

use super::*;

const LEAF_1_EDX_HTT: u32 = 1 << 28;

fn host() -> Vec<kvm_cpuid_entry2> {
    let leaf = |function, index, eax| kvm_cpuid_entry2 {
        function,
        index,
        eax,
        ..Default::default()
    };
    vec![
        leaf(0, 0, 0x1f),
        leaf(1, 0, 0),
        leaf(4, 0, 0x21),
        leaf(4, 3, 0x63),
        leaf(0xb, 0, 99),
        leaf(HYPERVISOR_BASE, 0, 0x4000_0001),
        leaf(0x8000_0008, 0, 0x3030),
        leaf(0x8000_001e, 0, 0),
    ]
}

fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
    let found: Vec<_> = cpuid
        .as_slice()
        .iter()
        .filter(|entry| entry.function == function && entry.index == index)
        .collect();
    assert_eq!(found.len(), 1, "leaf {function:#x}.{index}");
    *found[0]
}

#[test]
fn emulated_hosts_get_every_end_of_interrupt() {
    let leaf = kvm_cpuid_entry2 {
        function: KVM_FEATURES,
        eax: 0xff,
        ..Default::default()
    };
    for (emulated, features) in [(false, 0xff), (true, 0xbf)] {
        let template = CpuidTemplate::from_leaves(&[leaf], 1, true, emulated);
        let cpuid = template.for_vcpu(0, None).unwrap();
        assert_eq!(find(&cpuid, KVM_FEATURES, 0).eax, features);
    }
}

#[test]
fn a_host_must_have_every_feature_of_a_saved_machine() {
    let template = |ecx| {
        let mut leaves = host();
        leaves[1].ecx = ecx;
        CpuidTemplate::from_supported(&leaves, 1, true)
    };
    let saved = template(0b0011);
    assert_eq!(saved.check_features(&template(0b0111)), Ok(()));
    let error = saved.check_features(&template(0b0110)).unwrap_err();
    assert_eq!((error.function, error.missing), (1, 1));
    // Not features: the APIC ID of the processor that was asked, addresses of caches.
    let mut leaves = host();
    leaves[1].ebx = 77 << 24;
    let other = CpuidTemplate::from_supported(&leaves, 1, true);
    assert_eq!(other.check_features(&template(0)), Ok(()));
}

#[test]
fn topology_leaves_agree_for_every_count() {
    for count in 1..=64_u8 {
        let template = CpuidTemplate::from_supported(&host(), count, true);
        for id in [0, count / 2, count - 1] {
            let cpuid = template.for_vcpu(id, Some(2_000_000)).unwrap();
            let n = u32::from(count);
            let apic_id = u32::from(id);
            let shift = find(&cpuid, 0xb, 1).eax;
            assert!(n <= 1 << shift && (shift == 0 || n > 1 << (shift - 1)));
            assert_eq!(find(&cpuid, 0xb, 1).ebx, n);
            assert_eq!(find(&cpuid, 0x1f, 0).edx, apic_id);
            assert_eq!(find(&cpuid, 1, 0).ebx >> 24, apic_id);
            assert_eq!((find(&cpuid, 1, 0).ebx >> 16) & 0xff, n);
            assert_eq!(find(&cpuid, 1, 0).edx & LEAF_1_EDX_HTT != 0, n > 1);
            assert_eq!(find(&cpuid, 4, 0).eax >> 26, (1 << shift) - 1);
            assert_eq!((find(&cpuid, 4, 0).eax >> 14) & 0xfff, 0);
            assert_eq!((find(&cpuid, 4, 3).eax >> 14) & 0xfff, (1 << shift) - 1);
            assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx & 0xff, n - 1);
            assert_eq!(find(&cpuid, 0x8000_001e, 0).eax, apic_id);
            assert_eq!(find(&cpuid, HYPERVISOR_TIMING, 0).eax, 2_000_000);
            assert_eq!(find(&cpuid, HYPERVISOR_BASE, 0).eax, HYPERVISOR_TIMING);
        }
    }
}

/// A host that has every feature there is, and more of everything else.
fn rich() -> Vec<kvm_cpuid_entry2> {
    let all = u32::MAX;
    let leaf = |function, index, [eax, ebx, ecx, edx]: [u32; 4]| kvm_cpuid_entry2 {
        function,
        index,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    };
    let genu = u32::from_le_bytes(*b"Genu");
    vec![
        leaf(0, 0, [0x1f, genu, 2, 3]),
        leaf(1, 0, [0x1234, all, all, all]),
        leaf(2, 0, [1, 2, 3, 4]),
        leaf(4, 0, [0x21, 1, 2, 3]),
        leaf(6, 0, [all; 4]),
        leaf(7, 0, [2, all, all, all]),
        leaf(7, 1, [all; 4]),
        leaf(7, 2, [all; 4]),
        leaf(0xd, 0, [0x2e7, 2696, 2696, 0]),
        leaf(0xd, 1, [0x1f, 2696, 0x1900, 0]),
        leaf(0xd, 2, [256, 576, 0, 0]),
        leaf(0xd, 5, [64, 1088, 0, 0]),
        leaf(0xd, 6, [512, 1152, 0, 0]),
        leaf(0xd, 7, [1024, 1664, 0, 0]),
        leaf(0xd, 9, [8, 2688, 0, 0]),
        leaf(0xd, 11, [16, 0, 1, 0]),
        leaf(0x14, 0, [all; 4]),
        leaf(HYPERVISOR_BASE, 0, [KVM_FEATURES, 1, 2, 3]),
        leaf(KVM_FEATURES, 0, [all, 0, 0, all]),
        leaf(0x8000_0000, 0, [0x8000_0021, 0, 0, 0]),
        leaf(0x8000_0001, 0, [all; 4]),
        leaf(0x8000_0002, 0, [all; 4]),
        leaf(0x8000_0007, 0, [all; 4]),
        leaf(0x8000_0008, 0, [0x3934, all, all, all]),
        leaf(0x8000_0021, 0, [all; 4]),
    ]
}

fn config(model: CpuModel, add: &[&str], remove: &[&str]) -> CpuConfig {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    CpuConfig {
        model,
        add: names(add),
        remove: names(remove),
        topology: None,
        hyperv: false,
    }
}

fn made(leaves: &[kvm_cpuid_entry2], cpu: &CpuConfig) -> Result<CpuidTemplate, MissingFeatures> {
    CpuidTemplate::from_leaves(leaves, 4, true, false).reduced_to(cpu, 1 << 30)
}

const BASELINES: [CpuModel; 3] = [CpuModel::X86V2, CpuModel::X86V3, CpuModel::X86V4];

#[test]
fn a_baseline_is_the_same_on_every_host_that_has_it() {
    for model in BASELINES {
        let here = made(&rich(), &config(model, &[], &[])).unwrap();
        // A host that has the baseline and nothing else.
        let exact = made(&here.entries, &config(CpuModel::Host, &[], &[])).unwrap();
        let there = made(&here.entries, &config(model, &[], &[])).unwrap();
        assert_eq!(here.entries, there.entries, "{model:?}");
        assert_eq!(here.check_features(&exact), Ok(()), "{model:?}");
        let everything = made(&rich(), &config(CpuModel::Host, &[], &[])).unwrap();
        assert!(everything.check_features(&exact).is_err(), "{model:?}");
        assert!(here.has("hypervisor") && !here.has("arch_capabilities"));
        assert_eq!(here.physical_address_bits(), 39);
    }
    // The next lower one has less.
    for pair in BASELINES.windows(2) {
        let [lower, higher] =
            [pair[0], pair[1]].map(|model| made(&rich(), &config(model, &[], &[])).unwrap());
        assert_eq!(lower.check_features(&higher), Ok(()));
        assert!(higher.check_features(&lower).is_err());
        assert!(made(&lower.entries, &config(pair[1], &[], &[])).is_err());
    }
}

#[test]
fn state_components_follow_from_features() {
    let xsave = |cpu: &CpuConfig| {
        let cpuid = made(&rich(), cpu).unwrap().for_vcpu(0, None).unwrap();
        let found = find(&cpuid, 0xd, 0);
        let leaves = cpuid
            .as_slice()
            .iter()
            .filter(|entry| entry.function == 0xd);
        (found.eax, found.ecx, leaves.count())
    };
    assert_eq!(xsave(&config(CpuModel::X86V2, &[], &[])), (0, 0, 2));
    assert_eq!(xsave(&config(CpuModel::X86V3, &[], &[])), (0b111, 832, 3));
    assert_eq!(xsave(&config(CpuModel::X86V4, &[], &[])), (0xe7, 2688, 6));
    assert_eq!(
        xsave(&config(CpuModel::X86V3, &["pku"], &[])),
        (0x207, 2696, 4)
    );
    assert_eq!(xsave(&config(CpuModel::Host, &[], &[])), (0x2e7, 2696, 8));
    assert_eq!(
        xsave(&config(CpuModel::Host, &[], &["avx512f"])),
        (0x207, 2696, 5)
    );
    assert_eq!(
        xsave(&config(CpuModel::Host, &[], &["pku", "avx"])),
        (0b11, 576, 3)
    );
    assert_eq!(xsave(&config(CpuModel::Host, &[], &["xsave"])), (0, 0, 2));
}

#[test]
fn features_come_and_go_with_those_they_need() {
    let more = made(&rich(), &config(CpuModel::X86V2, &["avx2", "aes"], &[])).unwrap();
    for (name, has) in [
        ("avx2", true),
        ("avx", true),
        ("xsave", true),
        ("aes", true),
        ("fma", false),
    ] {
        assert_eq!(more.has(name), has, "{name}");
    }
    for model in [CpuModel::Host, CpuModel::X86V4] {
        let less = made(&rich(), &config(model, &[], &["avx2"])).unwrap();
        for (name, has) in [
            ("avx2", false),
            ("avx512f", false),
            ("avx512vl", false),
            ("avx", true),
        ] {
            assert_eq!(less.has(name), has, "{name}");
        }
    }
}

#[test]
fn what_a_host_lacks_is_named() {
    let mut poor = rich();
    let removed = 1 << 5 | 1 << 8;
    poor.iter_mut()
        .filter(|entry| entry.function == 7)
        .for_each(|entry| entry.ebx &= !removed);
    let says = |cpu: &CpuConfig| made(&poor, cpu).err().map(|missing| missing.to_string());
    assert_eq!(says(&config(CpuModel::X86V2, &[], &[])), None);
    let message = says(&config(CpuModel::X86V3, &[], &[])).unwrap();
    assert!(message.contains("lacks avx2, bmi2 of"), "{message}");
    assert_eq!(says(&config(CpuModel::X86V3, &[], &["avx2", "bmi2"])), None);
    assert!(
        says(&config(CpuModel::Host, &["bmi2"], &[]))
            .unwrap()
            .contains("lacks bmi2 of")
    );
}

#[test]
fn every_topology_gives_ids_that_tell_it() {
    for (sockets, cores, threads) in (1..=64_u8)
        .flat_map(|sockets| (1..=64_u8).map(move |cores| (sockets, cores)))
        .flat_map(|(sockets, cores)| [1, 2].map(|threads| (sockets, cores, threads)))
    {
        let count = u32::from(sockets) * u32::from(cores) * u32::from(threads);
        let Ok(count) = u8::try_from(count).map(|count| count.min(65)) else {
            continue;
        };
        let topology = CpuTopology {
            sockets,
            cores,
            threads,
        };
        if count > 64 || !topology.fits(count) {
            continue;
        }
        let cpu = CpuConfig {
            topology: Some(topology),
            ..CpuConfig::default()
        };
        let template = CpuidTemplate::from_leaves(&host(), count, true, false);
        let template = template.reduced_to(&cpu, 1 << 30).unwrap();
        let ids = template.apic_ids();
        let mut places = std::collections::BTreeSet::new();
        for &id in &ids {
            let cpuid = template.for_vcpu(id, None).unwrap();
            let (thread, core) = (find(&cpuid, 0xb, 0), find(&cpuid, 0xb, 1));
            assert_eq!(
                (thread.ebx, core.ebx),
                (u32::from(threads), u32::from(cores) * u32::from(threads))
            );
            let id = thread.edx;
            let within = |bits: u32| (1 << bits) - 1;
            let place = (
                id >> core.eax,
                (id & within(core.eax)) >> thread.eax,
                id & within(thread.eax),
            );
            assert!(
                place.0 < u32::from(sockets)
                    && place.1 < u32::from(cores)
                    && place.2 < u32::from(threads)
            );
            assert!(places.insert(place));
            let amd = find(&cpuid, 0x8000_001e, 0);
            assert_eq!(
                (amd.eax, amd.ebx, amd.ecx),
                (id, place.1 | u32::from(threads - 1) << 8, place.0)
            );
            assert_eq!(find(&cpuid, 4, 0).eax >> 14 & 0xfff, u32::from(threads) - 1);
        }
        assert_eq!(places.len(), usize::from(count));
        assert!(ids.iter().all(|&id| id < 0xf0), "that is the I/O APIC's");
    }
}

#[test]
fn hyperv_comes_before_kvm_and_is_compared_with_itself() {
    let wanted = CpuConfig {
        hyperv: true,
        ..CpuConfig::default()
    };
    let template = made(&rich(), &wanted).unwrap();
    assert!(template.has_hyperv());
    let cpuid = template.for_vcpu(0, Some(2_000_000)).unwrap();
    let vendor = find(&cpuid, HYPERVISOR_BASE, 0);
    assert_eq!(vendor.ebx, u32::from_le_bytes(*b"Micr"));
    assert!(vendor.eax < HYPERVISOR_TIMING);
    // All of KVM's is there, a little further up.
    let kvm = find(&cpuid, HYPERVISOR_BASE + 0x100, 0);
    assert_eq!((kvm.eax, kvm.ebx), (KVM_FEATURES + 0x100, 1));
    assert_eq!(find(&cpuid, KVM_FEATURES + 0x100, 0).eax, u32::MAX);
    // A host does not have it of itself, and lacks what it lacks.
    let host = CpuidTemplate::from_supported(&rich(), 4, true);
    assert_eq!(template.check_features(&host), Ok(()));
    let mut poor = rich();
    for leaf in &mut poor {
        if leaf.function == KVM_FEATURES {
            leaf.eax = 1;
        }
    }
    let poor = CpuidTemplate::from_supported(&poor, 4, true);
    let error = template.check_features(&poor).unwrap_err();
    assert_eq!(error.function, KVM_FEATURES + 0x100);
}
