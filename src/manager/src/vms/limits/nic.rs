//! What a guest's network interfaces are held to, and whether anything passes: by the host's kernel, at their taps.

use std::ops::RangeInclusive;

use lodge_api::vm::{NicLink, VmNic, VmNicLimits};
use lodge_api::{ErrorCode, Problem};
use lodge_host::net::{NetError, TapLimits};
use uuid::Uuid;

use crate::core::Core;
use crate::networks::{net_problem, unmanaged};

/// Mbit/s.
const RATE: RangeInclusive<u32> = 1..=1_000_000;

const BITS: u64 = 1_000_000;

/// Refuses what makes no sense.
pub(super) fn check(nics: &[VmNic]) -> Result<(), Problem> {
    for (number, nic) in nics.iter().enumerate() {
        let fields = [
            ("receive_mbps", nic.limits.receive_mbps),
            ("transmit_mbps", nic.limits.transmit_mbps),
        ];
        for (field, rate) in fields {
            if let Some(rate) = rate.filter(|rate| !RATE.contains(rate)) {
                let pointer = format!("/nics/{number}/limits/{field}");
                let hint = format!("give {} to {}, or leave it out", RATE.start(), RATE.end());
                let detail = format!("{rate} Mbit/s are not possible");
                return Err(Problem::invalid(pointer, detail).with_hint(hint));
            }
        }
    }
    Ok(())
}

/// Takes limits and links over of those that both have.
pub(super) fn adopt(nics: &mut [VmNic], from: &[VmNic]) {
    for nic in nics {
        if let Some(other) = from.iter().find(|other| other.mac == nic.mac) {
            nic.limits = other.limits;
            nic.link = other.link;
        }
    }
}

/// What the tap of a guest's interface is known by, on this host and over restarts of the manager.
pub(in crate::vms) fn tap_key(vm: Uuid, nic: &VmNic) -> String {
    // Not by its number, which another one may have had.
    format!("{vm}/{}", nic.mac.as_deref().unwrap_or_default())
}

fn of_tap(limits: &VmNicLimits) -> TapLimits {
    let bits = |rate: Option<u32>| rate.map(|rate| u64::from(rate) * BITS);
    TapLimits {
        receive: bits(limits.receive_mbps),
        transmit: bits(limits.transmit_mbps),
    }
}

impl Core {
    /// Holds an interface of a guest to its limits.
    ///
    /// # Errors
    /// `InvalidRequest` when the host's kernel cannot.
    pub(in crate::vms) async fn limit_nic(&self, vm: Uuid, nic: &VmNic) -> Result<(), Problem> {
        let host = self.network.as_ref().ok_or_else(unmanaged)?;
        let limited = host.limit_tap(&tap_key(vm, nic), of_tap(&nic.limits)).await;
        limited.map_err(|error| match &error {
            NetError::KindUnsupported { .. } => Problem::new(
                ErrorCode::InvalidRequest,
                format!("this host cannot limit network interfaces so: {error}"),
            )
            .with_hint(format!("leave the limit out, or {}", error.hint())),
            _ => net_problem(&error),
        })
    }
}

impl Core {
    /// Lets packets through an interface of a guest, or none. Telling the guest is up to its monitor.
    ///
    /// # Errors
    /// When the host's kernel refuses.
    pub(in crate::vms) async fn pass_packets(&self, vm: Uuid, nic: &VmNic) -> Result<(), Problem> {
        let host = self.network.as_ref().ok_or_else(unmanaged)?;
        let up = nic.link == NicLink::Up;
        let done = host.set_tap_up(&tap_key(vm, nic), up).await;
        done.map_err(|error| net_problem(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(mac: u8, limits: &str) -> VmNic {
        let json = format!(r#"{{"mac": "52:54:00:00:00:0{mac}", "limits": {limits}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn what_is_out_of_range_is_pointed_at() {
        for field in ["receive_mbps", "transmit_mbps"] {
            for rate in [0, 1_000_001] {
                let limits = format!(r#"{{"{field}": {rate}}}"#);
                let problem = check(&[nic(1, "{}"), nic(2, &limits)]).unwrap_err();
                let pointer = format!("/nics/1/limits/{field}");
                assert_eq!(problem.pointer, Some(pointer));
                assert!(problem.hint.is_some());
            }
        }
        let both = nic(1, r#"{"receive_mbps": 1, "transmit_mbps": 1000000}"#);
        assert!(check(std::slice::from_ref(&both)).is_ok());
        let limits = of_tap(&both.limits);
        assert_eq!(limits.receive, Some(1_000_000));
        assert_eq!(limits.transmit, Some(1_000_000_000_000));
    }

    #[test]
    fn limits_follow_their_interfaces() {
        let mut nics = [nic(1, r#"{"receive_mbps": 10}"#), nic(2, "{}")];
        let mut other = nic(2, r#"{"receive_mbps": 20}"#);
        other.link = NicLink::Down;
        adopt(&mut nics, &[other]);
        let links = nics.each_ref().map(|nic| nic.link);
        assert_eq!(links, [NicLink::Up, NicLink::Down]);
        let rates = nics.map(|nic| nic.limits.receive_mbps);
        assert_eq!(rates, [Some(10), Some(20)]);
    }
}
