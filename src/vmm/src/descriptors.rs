//! The descriptors that came with a message.

use std::os::fd::OwnedFd;

use lodge_vmm_proto::{FdIndex, LaunchError};

use crate::machine::Failure;

/// The descriptors of one message. Each has one owner.
pub struct Descriptors {
    fds: Vec<Option<OwnedFd>>,
}

impl Descriptors {
    /// All of them, in their order.
    pub fn new(fds: Vec<OwnedFd>) -> Self {
        Self {
            fds: fds.into_iter().map(Some).collect(),
        }
    }

    /// Takes a descriptor out of the list.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take(&mut self, index: FdIndex) -> Result<OwnedFd, Failure> {
        let missing = || {
            Failure::new(
                LaunchError::Internal,
                format!("descriptor {} is named more than once", index.0),
            )
        };
        self.fds
            .get_mut(usize::from(index.0))
            .and_then(Option::take)
            .ok_or_else(missing)
    }
}
