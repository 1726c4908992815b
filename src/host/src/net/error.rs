//! What can go wrong with the host network, each with what to do about it.

use crate::seed::MacAddress;

/// An error of the host network. [`NetError::hint`] says what the person in front of the machine can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The configuration cannot be right, whatever the machine is like.
    #[error("{field}: {problem}")]
    InvalidConfig {
        /// Path of the bad field.
        field: String,
        /// What is wrong and how it should be.
        problem: String,
    },
    /// The kernel refused for want of `CAP_NET_ADMIN` (or `CAP_NET_RAW` for DHCP).
    #[error("not allowed to {action}")]
    Permission {
        /// What was tried.
        action: String,
    },
    /// `/dev/net/tun` cannot be opened because it, or its driver, is not there.
    #[error("{path} is missing")]
    DeviceMissing {
        /// The device file.
        path: &'static str,
        /// The kernel module that brings it.
        module: &'static str,
    },
    /// The kernel lacks what makes this kind of thing.
    #[error("the kernel has no '{kind}'")]
    KindUnsupported {
        /// Kind of thing, which is also the name of the module.
        kind: &'static str,
    },
    /// A network, bridge or tap of that name exists.
    #[error("{what} '{name}' exists already")]
    NameTaken {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The uplink belongs to another network.
    #[error("link {mac} is the uplink of network '{network}'")]
    UplinkTaken {
        /// The link.
        mac: MacAddress,
        /// Its network.
        network: String,
    },
    /// The link cannot be taken as an uplink since somebody else uses it.
    #[error("link {mac} ({name}) is in use: {problem}")]
    UplinkBusy {
        /// The link.
        mac: MacAddress,
        /// Its kernel name.
        name: String,
        /// What uses it.
        problem: String,
    },
    /// No network of that name.
    #[error("there is no network '{name}'")]
    UnknownNetwork {
        /// The name asked for.
        name: String,
    },
    /// No tap of that name.
    #[error("there is no tap '{name}'")]
    UnknownTap {
        /// Its kernel name.
        name: String,
    },
    /// The network is configured, but its bridge is not there.
    #[error("the bridge of network '{name}' could not be set up")]
    NetworkDown {
        /// The network.
        name: String,
    },
    /// Guests are attached to the network.
    #[error("network '{name}' is in use by {taps} guest interface(s)")]
    NetworkBusy {
        /// The network.
        name: String,
        /// How many taps are attached.
        taps: usize,
    },
    /// The kernel refused a request for another reason.
    #[error("cannot {action}: {problem}")]
    Kernel {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        problem: String,
        /// The error number, if there was one.
        errno: Option<i32>,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {problem}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: String,
        /// The system's answer.
        problem: String,
    },
    /// The host network was shut down.
    #[error("the host network has been shut down")]
    Stopped,
}

impl NetError {
    /// What to do about it, for a person; never empty.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::InvalidConfig { field, .. } => format!("correct {field}"),
            Self::Permission { .. } => {
                "run lodge as root, or give it the capabilities CAP_NET_ADMIN and CAP_NET_RAW"
                    .to_owned()
            }
            Self::DeviceMissing { module, .. } => {
                format!("load the kernel module with: modprobe {module}")
            }
            Self::KindUnsupported { kind } => {
                format!("load the kernel module with: modprobe {kind}")
            }
            Self::NameTaken { what, .. } => {
                format!("choose another {what} name, or remove the existing one")
            }
            Self::UplinkTaken { network, .. } => {
                format!("choose another link, or remove network '{network}' first")
            }
            Self::UplinkBusy { .. } => "free the link first, or choose another one".to_owned(),
            Self::UnknownTap { .. } => "start the guest anew".to_owned(),
            Self::UnknownNetwork { .. } => "list the networks to see which exist".to_owned(),
            Self::NetworkDown { .. } => {
                "see the warnings of the host's network for the reason".to_owned()
            }
            Self::NetworkBusy { .. } => {
                "stop the guests that use the network, or move them to another one".to_owned()
            }
            Self::Kernel { .. } => "look into the kernel log for details".to_owned(),
            Self::File { path, .. } => {
                format!("check that the directory of {path} exists and is writable")
            }
            Self::Stopped => "start the service again".to_owned(),
        }
    }
}
