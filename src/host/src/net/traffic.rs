//! Whether and how fast frames go through a tap: what the guest receives waits its turn (`tbf`), what it sends too fast is dropped (`police`), because only
//! the guest itself could make it wait.
//!
//! The kernel does it, so that it holds whether the monitor moves the frames or vhost-net does.

use super::error::NetError;
use super::kernel::{Kernel, KernelLink, failed, gone_is_fine};
use super::netlink::NetlinkError;
use super::qdisc::{self, Place, Police, TokenBucket};
use super::tap;
use super::worker::Worker;

/// What a frame may have at most, segments that the kernel has not cut yet included, with a header for each.
const LARGEST: u64 = 96 << 10;

/// Most bits that a guest's interface moves in a second; `None` lifts a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TapLimits {
    /// To the guest.
    pub receive: Option<u64>,
    /// From the guest.
    pub transmit: Option<u64>,
}

impl Worker {
    /// Holds a tap to these limits, whatever it was held to.
    pub(super) async fn limit_tap(&mut self, key: &str, limits: TapLimits) -> Result<(), NetError> {
        let link = self.attached(key).await?;
        self.kernel.shape(link.index, limits.receive).await?;
        self.kernel.police(link.index, limits.transmit).await
    }

    /// Lets packets through a tap, or none.
    pub(super) async fn set_tap_up(&mut self, key: &str, up: bool) -> Result<(), NetError> {
        let link = self.attached(key).await?;
        self.kernel.set_up(link.index, up).await
    }

    async fn attached(&mut self, key: &str) -> Result<KernelLink, NetError> {
        let name = tap::tap_name(key);
        let found = self.kernel.find(&name).await?;
        found.ok_or(NetError::UnknownTap { name })
    }
}

impl Kernel {
    /// Has what goes out of a link wait its turn.
    async fn shape(&mut self, index: u32, bits: Option<u64>) -> Result<(), NetError> {
        let action = format!("limit what link {index} sends");
        let done = match bits {
            Some(bits) => {
                let rate = bits / 8;
                // What comes in 10 ms at once, and a queue for what comes in 50.
                let burst = (rate / 100).max(LARGEST);
                let limit = burst.saturating_add((rate / 20).max(LARGEST));
                let bucket = TokenBucket { rate, burst, limit };
                self.try_change(qdisc::set_bucket(index, &bucket)).await
            }
            None => none_is_fine(self.try_change(qdisc::remove(index, Place::Root)).await),
        };
        done.map_err(|error| lacking("sch_tbf", &action, &error))
    }

    /// Drops what comes in through a link too fast.
    async fn police(&mut self, index: u32, bits: Option<u64>) -> Result<(), NetError> {
        let action = format!("limit what link {index} receives");
        let removed = self.try_change(qdisc::remove(index, Place::Ingress)).await;
        none_is_fine(removed).map_err(|error| failed(&action, &error))?;
        let Some(bits) = bits else { return Ok(()) };
        let made = self.try_change(qdisc::add_ingress(index)).await;
        made.map_err(|error| lacking("sch_ingress", &action, &error))?;
        let rate = bits / 8;
        let police = Police {
            rate,
            // TCP that is dropped from slows down by more than was too much: some time's worth at once lets it get near the rate.
            burst: (rate / 20).max(2 * LARGEST),
            largest: LARGEST,
        };
        let made = self.try_change(qdisc::police_all(index, &police)).await;
        made.map_err(|error| {
            let explanation = error.explanation.as_deref();
            let classifier = explanation.is_some_and(|text| text.contains("classifier"));
            let module = if classifier {
                "cls_matchall"
            } else {
                "act_police"
            };
            lacking(module, &action, &error)
        })
    }
}

/// There was nothing to remove.
fn none_is_fine(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match done {
        // So the kernel says that there is only what is always there.
        Err(error) if error.errno() == Some(libc::EINVAL) => Ok(()),
        done => gone_is_fine(done),
    }
}

/// The kernel says of what it does not know, and cannot load, that it is not there.
fn lacking(module: &'static str, action: &str, error: &NetlinkError) -> NetError {
    match error.errno() {
        Some(libc::ENOENT | libc::EOPNOTSUPP) => NetError::KindUnsupported { kind: module },
        _ => failed(action, error),
    }
}
