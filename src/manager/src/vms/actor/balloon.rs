//! How much of its memory the guest is to keep.

use std::time::Duration;

use lodge_api::{Problem, Size};
use lodge_vmm_proto::RequestBody;
use tokio::time::Instant;

use super::Actor;
use crate::vms::balloon;

/// Whoever asked looks soon at what came of it.
const SOON: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) async fn set_balloon(&mut self, target: Size) -> Result<(), Problem> {
        self.require_not_held()?;
        let launched = self.observed.borrow().launched.clone();
        // It may run with other memory than when the command was given, or not at all, which is
        // found out below.
        let bytes = launched.map_or(Ok(0), |spec| balloon::size(spec.memory, target))?;
        self.ask(RequestBody::SetBalloon { bytes }, None).await?;
        self.observed
            .send_modify(|observed| observed.set_balloon_target(bytes));
        self.tick_at = self.tick_at.min(Instant::now() + SOON);
        Ok(())
    }
}
