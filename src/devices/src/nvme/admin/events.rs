//! Events that a driver hears of by keeping requests with the controller (NVM Express 1.4, 5.2).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::log::{CHANGED_NAMESPACES, ERRORS};
use crate::nvme::command::{Command, Done, Status};
use crate::nvme::shared::{Event, Shared};

/// Most requests a driver may leave.
pub(super) const MOST_REQUESTS: usize = 4;

/// Bit of the asynchronous event configuration: notices of changed namespaces.
const NAMESPACE_NOTICES: u32 = 1 << 8;

/// What a driver waits for and was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::nvme) struct Events {
    /// Identifiers of requests.
    requests: VecDeque<u16>,
    /// An error was told, and the driver has not looked at its log since: no other one is.
    errors_told: bool,
    /// The same of notices.
    notices_told: bool,
    /// The namespace changed since the driver last read the log of that.
    namespace_changed: bool,
}

impl Events {
    pub fn check(&self) -> Result<(), String> {
        if self.requests.len() > MOST_REQUESTS {
            return Err(format!("{} event requests", self.requests.len()));
        }
        Ok(())
    }

    /// Keeps a request.
    pub fn request(&mut self, command: &Command) -> Result<(), Status> {
        if self.requests.len() >= MOST_REQUESTS {
            return Err(Status::TOO_MANY_EVENT_REQUESTS);
        }
        self.requests.push_back(command.id);
        Ok(())
    }

    /// Ends requests with what happened, as far as the driver may hear of it now.
    pub fn tell(&mut self, shared: &Shared, wanted: u32) -> Vec<Done> {
        let mut told = Vec::new();
        for event in Event::ALL {
            if shared.events.load(Ordering::SeqCst) & event.bit() == 0 {
                continue;
            }
            let (masked, unwanted) = match event {
                Event::DoorbellRegister | Event::DoorbellValue => (self.errors_told, false),
                Event::Namespace => {
                    self.namespace_changed = true;
                    (self.notices_told, wanted & NAMESPACE_NOTICES == 0)
                }
            };
            let request = if masked || unwanted {
                None
            } else {
                self.requests.pop_front()
            };
            // What nobody wants to hear is not kept for later.
            if unwanted || request.is_some() {
                shared.events.fetch_and(!event.bit(), Ordering::SeqCst);
            }
            let Some(id) = request else { continue };
            told.push(Done {
                id,
                status: Status::SUCCESS,
                result: self.note(event),
            });
        }
        told
    }

    /// Type, what happened, and the log page that says more.
    fn note(&mut self, event: Event) -> u32 {
        let (kind, what, page) = match event {
            Event::DoorbellRegister => (0, 0, ERRORS),
            Event::DoorbellValue => (0, 1, ERRORS),
            Event::Namespace => (2, 0, CHANGED_NAMESPACES),
        };
        match event {
            Event::Namespace => self.notices_told = true,
            _ => self.errors_told = true,
        }
        kind | what << 8 | u32::from(page) << 16
    }

    /// The driver has read log `page` and wants to hear of what it is about again.
    pub fn heard(&mut self, page: u8) {
        match page {
            ERRORS => self.errors_told = false,
            CHANGED_NAMESPACES => {
                self.notices_told = false;
                self.namespace_changed = false;
            }
            _ => {}
        }
    }

    pub fn namespace_changed(&self) -> bool {
        self.namespace_changed
    }
}
