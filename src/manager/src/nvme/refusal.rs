//! What it means to people that a target cannot be used.

use lodge_api::{ErrorCode, Problem};
use lodge_host::nvmf::{ConnectError, HostIdentity};

/// In words for whoever asked for it.
pub(super) fn refusal(error: &ConnectError, host: HostIdentity) -> Problem {
    let problem = Problem::new(ErrorCode::TargetFailed, error.to_string());
    let nqn = host.nqn();
    match error {
        ConnectError::Unreachable(..) | ConnectError::Silent(..) => problem
            .with_pointer("/address")
            .with_hint("check the address and the port, and that nothing on the way is in between"),
        ConnectError::NotNvme(..) => problem
            .with_pointer("/address")
            .with_hint("check the address and the port"),
        ConnectError::NoSuchSubsystem(target) => problem.with_pointer("/nqn").with_hint(format!(
            "`lodge nvme discover {}` lists what it offers to this host, which is {nqn}",
            target.ip()
        )),
        ConnectError::NotAllowed(_) => problem
            .with_pointer("/nqn")
            .with_hint(format!("allow this host there; its name is {nqn}")),
        ConnectError::WantsAuthentication(_) => problem.with_hint(
            "have it allow this host by its name alone, on a network that others are not on",
        ),
        ConnectError::Refused(..) => problem.with_hint("its own log says more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_to_be_allowed_is_said() {
        let host = HostIdentity(uuid::Uuid::nil());
        let target = "10.0.0.5:4420".parse().unwrap();
        let problem = refusal(&ConnectError::NotAllowed(target), host);
        let hint = problem.hint.unwrap();
        assert!(hint.contains(host.nqn().as_str()), "{hint}");
        assert_eq!(problem.status, 502);
    }
}
