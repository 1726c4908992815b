//! The file that tells the local console where and who we are.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use lodge_api::local::LocalConsole;
use lodge_manager::Manager;

use lodge_host::private_file::write_private;

/// Changes often come in bursts (a lease brings addresses, routes, a name): one file for all of them.
const SETTLE: Duration = Duration::from_millis(200);

/// What of the file does not change while the server runs.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// Where we listen.
    pub listen: SocketAddr,
    /// The certificate's fingerprint.
    pub fingerprint: String,
    /// Warnings of the server itself.
    pub warnings: Vec<String>,
}

/// Writes the file whenever what it says has changed.
pub async fn keep(manager: Manager, path: impl AsRef<Path>, fixed: Fixed) {
    let path = path.as_ref();
    let mut changes = manager.watch_console();
    loop {
        if let Err(error) = write(&manager, path, &fixed) {
            tracing::warn!(%error, path = %path.display(), "the local console is not told");
        }
        if changes.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
    }
}

fn write(manager: &Manager, path: &Path, fixed: &Fixed) -> io::Result<()> {
    let console = LocalConsole {
        hostname: manager.hostname(),
        urls: manager.urls(),
        local_url: format!("https://{}", local_address(fixed.listen)),
        certificate_fingerprint: fixed.fingerprint.clone(),
        token: manager.local_token().to_owned(),
        initial_password: manager.initial_password(),
        warnings: [fixed.warnings.clone(), manager.warnings()].concat(),
    };
    let text = serde_json::to_vec_pretty(&console).map_err(io::Error::other)?;
    write_private(path, &text)
}

/// How the server is reached from its own machine.
fn local_address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_reached_by_loopback() {
        let local = |text: &str| local_address(text.parse().unwrap()).to_string();
        assert_eq!(local("[::]:443"), "127.0.0.1:443");
        assert_eq!(local("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(local("192.0.2.1:2"), "192.0.2.1:2");
        assert_eq!(local("[::1]:2"), "[::1]:2");
    }
}
