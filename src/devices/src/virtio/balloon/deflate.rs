//! The deflate queue (virtio 1.2, 5.5.6): numbers of pages that the driver uses again.
//!
//! There is nothing to do for them: the host gives a page anew when the guest touches it. That is
//! also why `MUST_TELL_HOST` is not offered.

use crate::virtio::chain::Limits;

/// As for pages that go in.
pub(super) const LIMITS: Limits = super::inflate::LIMITS;
