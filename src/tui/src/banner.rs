//! The plain summary on a serial line, which may be read by a person or a log.

use std::io::{BufRead, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use lodge_api::local::LocalConsole;
use lodge_client::ClientError;

use crate::local;

/// How often the manager's file is looked at.
const POLL: Duration = Duration::from_secs(1);

/// Prints the summary, again at every change, until Enter is pressed.
///
/// # Errors
/// When the line is closed.
pub(crate) fn wait_for_enter() -> Result<(), ClientError> {
    let (sender, pressed) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let length = std::io::stdin().lock().read_line(&mut line);
        let _ = sender.send(length.is_ok_and(|length| length > 0));
    });
    let mut shown = None;
    loop {
        let now = local::read().map(|local| text(&local));
        if now.is_some() && now != shown {
            print(now.as_deref().unwrap_or_default())?;
            shown = now;
        }
        match pressed.recv_timeout(POLL) {
            Ok(true) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(false) | Err(RecvTimeoutError::Disconnected) => {
                return Err(ClientError::Usage("the line was closed".to_owned()));
            }
        }
    }
}

fn print(text: &str) -> Result<(), ClientError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| ClientError::File {
            path: "console".to_owned(),
            source,
        })
}

fn text(local: &LocalConsole) -> String {
    let mut text = format!("\r\nLodge on {} is ready.\r\n", local.hostname);
    if local.urls.is_empty() {
        text.push_str("  URL:         none yet: no network address\r\n");
    }
    for url in &local.urls {
        text.push_str(&format!("  URL:         {url}\r\n"));
    }
    text.push_str(&format!(
        "  Certificate: {}\r\n",
        local.certificate_fingerprint
    ));
    if let Some(password) = &local.initial_password {
        text.push_str(&format!("  Log in as:   admin, password {password}\r\n"));
    }
    for warning in &local.warnings {
        text.push_str(&format!("  Warning:     {warning}\r\n"));
    }
    text.push_str("Press Enter for the console.\r\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_a_person_needs_first() {
        let mut local = LocalConsole {
            hostname: "lodge-1".to_owned(),
            urls: vec!["https://10.0.0.5".to_owned()],
            local_url: "https://127.0.0.1".to_owned(),
            certificate_fingerprint: "AB:CD".to_owned(),
            token: "secret-token".to_owned(),
            initial_password: Some("pine-otter-42".to_owned()),
            warnings: vec!["data is kept in RAM".to_owned()],
        };
        let shown = text(&local);
        for part in [
            "lodge-1",
            "https://10.0.0.5",
            "AB:CD",
            "pine-otter-42",
            "data is kept in RAM",
        ] {
            assert!(shown.contains(part), "{part}");
        }
        assert!(!shown.contains("secret-token"));
        local.initial_password = None;
        local.urls.clear();
        let shown = text(&local);
        assert!(shown.contains("no network address"));
        assert!(!shown.contains("password"));
    }
}
