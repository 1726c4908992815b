//! Requests about the guest's saved state.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use lodge_vmm_proto::{Answer, ErrorCode, MAX_PIECE, RunState};

use super::{RunControl, error};
use crate::saved::{self, StateError};

impl RunControl {
    pub(super) fn save_state(&self, fds: Vec<OwnedFd>) -> Answer {
        let file = match self.file_to_save_in("save_state", fds) {
            Ok(file) => file,
            Err((code, message)) => return error(code, message),
        };
        let saved = self.machine.save();
        match saved.and_then(|machine| saved::write(&file, &machine)) {
            Ok(()) => Answer::Done,
            Err(problem) => {
                let code = match &problem {
                    StateError::Io(problem) => code(problem),
                    _ => ErrorCode::Internal,
                };
                error(code, format!("saving the guest: {problem}"))
            }
        }
    }

    pub(super) fn save_memory(&self, offset: u64, length: u64, fds: Vec<OwnedFd>) -> Answer {
        let file = match self.file_to_save_in("save_memory", fds) {
            Ok(file) => file,
            Err((code, message)) => return error(code, message),
        };
        if length > MAX_PIECE {
            let message = format!("a piece of memory has at most {MAX_PIECE} bytes");
            return error(ErrorCode::BadRequest, message);
        }
        let range = offset..offset.saturating_add(length);
        match self.machine.save_memory(range, &file) {
            Ok(written) => Answer::Saved { written },
            Err(problem) => error(code(&problem), format!("saving memory: {problem}")),
        }
    }

    fn file_to_save_in(
        &self,
        request: &str,
        fds: Vec<OwnedFd>,
    ) -> Result<File, (ErrorCode, String)> {
        let Ok([file]) = <[OwnedFd; 1]>::try_from(fds) else {
            let message = format!("{request} takes exactly one descriptor");
            return Err((ErrorCode::BadRequest, message));
        };
        if self.state != RunState::Paused {
            let message = "only a paused guest can be saved".to_owned();
            return Err((ErrorCode::WrongState, message));
        }
        Ok(file.into())
    }
}

fn code(problem: &io::Error) -> ErrorCode {
    match problem.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
        _ => ErrorCode::Internal,
    }
}
