//! How fast frames go through a tap: what the guest receives waits its turn (`tbf`), what it sends too fast is dropped (`police`), because only
//! the guest itself could make it wait.
//!
//! The kernel does it, so that it holds whether the monitor moves the frames or vhost-net does.

use nlink::netlink::Error;
use nlink::netlink::action::{ActionList, PoliceAction};
use nlink::netlink::filter::MatchallFilter;
use nlink::netlink::tc::{IngressConfig, TbfConfig};
use nlink::{Bytes, Rate, TcHandle};

use super::error::NetError;
use super::kernel::{Kernel, failed, gone_is_fine};
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
        let name = tap::tap_name(key);
        let found = self.kernel.find(&name).await?;
        let link = found.ok_or(NetError::UnknownTap { name })?;
        self.kernel.shape(link.index, limits.receive).await?;
        self.kernel.police(link.index, limits.transmit).await
    }
}

impl Kernel {
    /// Has what goes out of a link wait its turn.
    async fn shape(&self, index: u32, bits: Option<u64>) -> Result<(), NetError> {
        let action = format!("limit what link {index} sends");
        let done = match bits {
            Some(bits) => {
                let bytes = bits / 8;
                // What comes in 10 ms at once, and a queue for what comes in 50.
                let burst = (bytes / 100).max(LARGEST);
                let config = TbfConfig::new()
                    .rate(Rate::bits_per_sec(bits))
                    .burst(Bytes::new(burst))
                    .limit(Bytes::new(burst + (bytes / 20).max(LARGEST)));
                self.connection.replace_qdisc_by_index(index, config).await
            }
            None => {
                let deleted = self
                    .connection
                    .del_qdisc_by_index(index, TcHandle::ROOT)
                    .await;
                none_is_fine(deleted)
            }
        };
        done.map_err(|error| lacking("sch_tbf", &action, &error))
    }

    /// Drops what comes in through a link too fast.
    async fn police(&self, index: u32, bits: Option<u64>) -> Result<(), NetError> {
        let action = format!("limit what link {index} receives");
        let deleted = self
            .connection
            .del_qdisc_by_index(index, TcHandle::INGRESS)
            .await;
        none_is_fine(deleted).map_err(|error| failed(&action, &error))?;
        let Some(bits) = bits else { return Ok(()) };
        let made = self
            .connection
            .add_qdisc_by_index(index, IngressConfig::new())
            .await;
        made.map_err(|error| lacking("sch_ingress", &action, &error))?;
        // TCP that is dropped from slows down by more than was too much: some time's worth at once lets it get near the rate.
        let burst = (bits / 8 / 20).max(2 * LARGEST);
        let police = PoliceAction::new()
            .rate(Rate::bits_per_sec(bits))
            .burst(Bytes::new(burst))
            .mtu(Bytes::new(LARGEST))
            .conform_pass()
            .exceed_drop();
        let filter = MatchallFilter::new().actions(ActionList::new().with(police));
        let made = self
            .connection
            .add_filter_by_index(index, TcHandle::INGRESS, filter)
            .await;
        made.map_err(|error| {
            let classifier = error
                .ext_ack()
                .is_some_and(|text| text.contains("classifier"));
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
fn none_is_fine(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        // So the kernel says that there is only what is always there.
        Err(error) if error.is_invalid_argument() => Ok(()),
        done => gone_is_fine(done),
    }
}

/// The kernel says of what it does not know, and cannot load, that it is not there.
fn lacking(module: &'static str, action: &str, error: &Error) -> NetError {
    match error.errno().map(i32::abs) {
        Some(libc::ENOENT | libc::EOPNOTSUPP) => NetError::KindUnsupported { kind: module },
        _ => failed(action, error),
    }
}
