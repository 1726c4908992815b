//! Sockets between a guest and this host: the guest's address, and connections to it.

use std::io;
use std::time::Duration;

use lodge_api::vm::{VmState, VsockParams};
use lodge_api::{ErrorCode, Problem};
use lodge_host::vsock::{self, GuestEnd};
use lodge_vmm_proto::VsockConfig;
use tokio::net::UnixStream;
use uuid::Uuid;

use super::VmRecord;
use super::launch::Descriptors;
use crate::catalogue::{self, Object};
use crate::core::internal;
use crate::{Caller, Manager};

/// The first address given to guests. Lower ones are those that people choose by hand, for programs
/// beside Lodge.
const FIRST_CID: u32 = 1 << 16;

/// How many addresses there are from the first to the last, 0xffff_fffe.
const CIDS: u32 = u32::MAX - FIRST_CID;

/// Addresses that are tried when others have the ones before.
const TRIES: u32 = 16;

/// How long a guest may take to answer: one of many on a busy host does not run for seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The address of a guest, then those next in line.
///
/// It follows from the guest's identity, so that it stays from start to start; the kernel sees to it that no
/// two running guests have the same.
fn addresses(vm: Uuid) -> impl Iterator<Item = u32> {
    // FNV-1a: the same in every release.
    let hash = vm.as_bytes().iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    (0..TRIES).map(move |step| FIRST_CID + hash.wrapping_add(step) % CIDS)
}

/// What a monitor needs for sockets. A host without them runs guests all the same.
pub(super) fn open(vm: Uuid, fds: &mut Descriptors) -> Option<VsockConfig> {
    match vsock::open_guest_end(addresses(vm)) {
        Ok(Some(GuestEnd { fd, cid })) => Some(VsockConfig {
            cid,
            vhost: fds.add(fd),
        }),
        Ok(None) => {
            tracing::info!(%vm, "the host has no vhost-vsock: the guest gets no sockets to it");
            None
        }
        Err(error) => {
            tracing::warn!(%vm, %error, "vhost-vsock is not used");
            None
        }
    }
}

impl Manager {
    /// Connects to a port on which something in a guest listens (`AF_VSOCK`). The stream carries bytes both ways
    /// until one side closes.
    ///
    /// # Errors
    /// `WrongState` when the guest does not run or has no such sockets, `ConnectionRefused` when nobody listens,
    /// `GuestTimeout` when the guest does not answer.
    pub async fn vm_connect(
        &self,
        caller: &Caller,
        key: &str,
        params: VsockParams,
    ) -> Result<UnixStream, Problem> {
        let port = params.port;
        if port == u32::MAX {
            return Err(Problem::invalid("?port", "4294967295 stands for any port")
                .with_hint("give the port on which the guest listens"));
        }
        let record = catalogue::find::<VmRecord>(&self.core.snapshot(), key)?.value;
        let name = &record.spec.name;
        let observed = self.core.vms.observed(record.id);
        let cid = address(name.as_str(), observed.state, observed.vsock_cid)?;
        let stream = vsock::connect(cid, port, PATIENCE)
            .await
            .map_err(|error| refusal(name.as_str(), port, &error))?;
        caller.audit("vm_connect", &record.target());
        Ok(stream)
    }
}

/// The address of a guest that can answer.
fn address(name: &str, state: VmState, cid: Option<u32>) -> Result<u32, Problem> {
    let hint = match state {
        VmState::Stopped | VmState::Crashed => "start it first",
        VmState::Starting => "wait until it runs",
        VmState::Paused => "resume it first",
        VmState::Running | VmState::Stopping => {
            return cid.ok_or_else(|| {
                Problem::new(
                    ErrorCode::WrongState,
                    format!("the guest \"{name}\" has no sockets to its host"),
                )
                .with_hint(
                    "load the kernel module vhost_vsock on the host, and start the guest again",
                )
            });
        }
    };
    let detail = format!("the guest \"{name}\" is {}", state.as_str());
    Err(Problem::new(ErrorCode::WrongState, detail).with_hint(hint))
}

/// Why a connection was not made, to whoever wanted it.
fn refusal(name: &str, port: u32, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Problem::new(
            ErrorCode::ConnectionRefused,
            format!("nobody listens on vsock port {port} of the guest \"{name}\""),
        )
        .with_hint("start the program in the guest that listens there"),
        io::ErrorKind::TimedOut => Problem::new(
            ErrorCode::GuestTimeout,
            format!("the guest \"{name}\" does not answer on vsock"),
        )
        .with_hint(
            "wait until its system is up; it needs a driver for virtio sockets (vmw_vsock_virtio_transport in Linux)",
        ),
        // Its monitor has gone meanwhile.
        _ if error.raw_os_error() == Some(libc::ENODEV) => Problem::new(
            ErrorCode::WrongState,
            format!("the guest \"{name}\" has just ended"),
        )
        .with_hint("start it first"),
        _ => internal(format!("connecting to the guest \"{name}\" failed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_are_those_of_guests_and_stay(vm: u128) {
            let vm = Uuid::from_u128(vm);
            let all: Vec<u32> = addresses(vm).collect();
            prop_assert!(all.iter().all(|cid| (FIRST_CID..u32::MAX).contains(cid)));
            prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), TRIES as usize);
            prop_assert_eq!(all, addresses(vm).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_address_outlives_releases() {
        let vm = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        assert_eq!(addresses(vm).next(), Some(0x072c_b657));
    }

    #[test]
    fn whoever_cannot_connect_hears_why() {
        for (state, cid, hint) in [
            (VmState::Stopped, None, "start it"),
            (VmState::Crashed, None, "start it"),
            (VmState::Starting, None, "wait"),
            (VmState::Paused, Some(70_000), "resume"),
            (VmState::Running, None, "vhost_vsock"),
        ] {
            let problem = address("web", state, cid).unwrap_err();
            assert_eq!(problem.code, ErrorCode::WrongState);
            assert!(problem.hint.unwrap().contains(hint));
        }
        assert_eq!(address("web", VmState::Running, Some(7)).unwrap(), 7);
        for (errno, code) in [
            (libc::ECONNRESET, ErrorCode::ConnectionRefused),
            (libc::ECONNREFUSED, ErrorCode::ConnectionRefused),
            (libc::ETIMEDOUT, ErrorCode::GuestTimeout),
            (libc::ENODEV, ErrorCode::WrongState),
            (libc::ENOMEM, ErrorCode::Internal),
        ] {
            let problem = refusal("web", 1024, &io::Error::from_raw_os_error(errno));
            assert_eq!(problem.code, code);
        }
    }
}
