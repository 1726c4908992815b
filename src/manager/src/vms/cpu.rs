//! A guest's processors: checked, and in the words of its monitor.

use lodge_api::Problem;
use lodge_api::vm::{CpuModel, VmCpu, VmSpec};
use lodge_vmm_proto::{CpuConfig, CpuFeature, CpuTopology};

use crate::catalogue;

/// What is wanted. Whether this host can give it is found out when the guest is started.
///
/// # Errors
/// Points at what cannot be on any host.
pub(crate) fn configured(spec: &VmSpec) -> Result<CpuConfig, Problem> {
    let (add, remove) = features(&spec.cpu.features)?;
    Ok(CpuConfig {
        model: match spec.cpu.model {
            CpuModel::Host => lodge_vmm_proto::CpuModel::Host,
            CpuModel::X86V2 => lodge_vmm_proto::CpuModel::X86V2,
            CpuModel::X86V3 => lodge_vmm_proto::CpuModel::X86V3,
            CpuModel::X86V4 => lodge_vmm_proto::CpuModel::X86V4,
        },
        add,
        remove,
        topology: topology(&spec.cpu, spec.vcpus)?,
        hyperv: spec.cpu.hyperv,
    })
}

/// Features to add and to remove.
fn features(signed: &[String]) -> Result<(Vec<String>, Vec<String>), Problem> {
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    for (number, text) in signed.iter().enumerate() {
        let invalid = |detail: String, hint: &str| {
            Problem::invalid(format!("/cpu/features/{number}"), detail).with_hint(hint)
        };
        let shown = catalogue::shown(text);
        let (list, name) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(name), _) => (&mut add, name),
            (_, Some(name)) => (&mut remove, name),
            _ => {
                return Err(invalid(
                    format!("\"{shown}\" has no sign"),
                    "write +aes or -aes",
                ));
            }
        };
        if CpuFeature::named(name).is_none() {
            let hint = "names are those of Linux's /proc/cpuinfo";
            return Err(invalid(format!("there is no feature \"{shown}\""), hint));
        }
        list.push(name.to_owned());
    }
    if let Some(name) = add.iter().find(|name| remove.contains(name)) {
        let detail = format!("\"{name}\" is to be added and removed");
        return Err(Problem::invalid("/cpu/features", detail).with_hint("leave out one of both"));
    }
    Ok((add, remove))
}

/// The topology, if anything is said about it.
fn topology(cpu: &VmCpu, vcpus: u8) -> Result<Option<CpuTopology>, Problem> {
    if (cpu.sockets, cpu.cores, cpu.threads) == (None, None, None) {
        return Ok(None);
    }
    let threads = cpu.threads.unwrap_or(1);
    let left = |taken: u8| {
        let taken = u32::from(taken) * u32::from(threads);
        u32::from(vcpus)
            .checked_div(taken)
            .map_or(0, |left| left as u8)
    };
    let (sockets, cores) = match (cpu.sockets, cpu.cores) {
        (Some(sockets), Some(cores)) => (sockets, cores),
        (Some(sockets), None) => (sockets, left(sockets)),
        (None, Some(cores)) => (left(cores), cores),
        (None, None) => (1, left(1)),
    };
    let topology = CpuTopology {
        sockets,
        cores,
        threads,
    };
    if topology.fits(vcpus) {
        return Ok(Some(topology));
    }
    let detail = format!(
        "{sockets} sockets of {cores} cores of {threads} threads are not {vcpus} virtual CPUs"
    );
    Err(Problem::invalid("/cpu", detail).with_hint(
        "have the product be `vcpus`, with 1 or 2 threads; what is left out is made to fit",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(json: &str, vcpus: u8) -> Result<CpuConfig, Problem> {
        let mut spec: VmSpec = serde_json::from_str(r#"{"name": "web"}"#).unwrap();
        spec.cpu = serde_json::from_str(json).unwrap();
        spec.vcpus = vcpus;
        super::configured(&spec)
    }

    #[test]
    fn a_topology_is_made_to_fit() {
        let topology = |json, vcpus| {
            let found = configured(json, vcpus).unwrap().topology;
            found.map(|found| (found.sockets, found.cores, found.threads))
        };
        assert_eq!(topology("{}", 6), None);
        assert_eq!(topology(r#"{"sockets": 2}"#, 6), Some((2, 3, 1)));
        assert_eq!(topology(r#"{"cores": 3}"#, 6), Some((2, 3, 1)));
        assert_eq!(topology(r#"{"threads": 2}"#, 6), Some((1, 3, 2)));
        assert_eq!(
            topology(r#"{"cores": 2, "threads": 2}"#, 8),
            Some((2, 2, 2))
        );
        for (json, vcpus) in [
            (r#"{"sockets": 4}"#, 6),
            (r#"{"sockets": 0}"#, 6),
            (r#"{"cores": 255, "sockets": 255}"#, 6),
            (r#"{"threads": 3}"#, 6),
            (r#"{"threads": 0}"#, 6),
            (r#"{"sockets": 1, "cores": 2}"#, 4),
        ] {
            let problem = configured(json, vcpus).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some("/cpu"), "{json}");
        }
    }

    #[test]
    fn features_are_named_with_a_sign() {
        let found = configured(
            r#"{"model": "x86-64-v2", "features": ["+aes", "-cx16"]}"#,
            1,
        )
        .unwrap();
        assert_eq!(
            (found.add, found.remove),
            (vec!["aes".to_owned()], vec!["cx16".to_owned()])
        );
        assert_eq!(found.model, lodge_vmm_proto::CpuModel::X86V2);
        for (json, pointer) in [
            (r#"{"features": ["aes"]}"#, "/cpu/features/0"),
            (r#"{"features": ["+aes", "+none_such"]}"#, "/cpu/features/1"),
            (r#"{"features": [""]}"#, "/cpu/features/0"),
            (r#"{"features": ["+aes", "-aes"]}"#, "/cpu/features"),
        ] {
            let problem = configured(json, 1).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some(pointer));
            assert!(problem.hint.is_some());
        }
    }
}
