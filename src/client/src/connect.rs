//! One connection to a host.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{BaseUrl, ClientError, Fingerprint, resolve, tls};

/// How long one address may take to accept, and a handshake to finish.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One request or response line, for `--debug`.
#[derive(Debug)]
pub enum Exchange<'a> {
    /// A line sent.
    Sent(&'a str),
    /// A line received.
    Received(&'a str),
}

/// Where the lines of `--debug` go.
pub type Trace = fn(&Exchange<'_>);

/// Reads the fingerprint of the certificate a host shows, sending nothing.
///
/// # Errors
/// When the host cannot be reached or does not speak TLS.
pub async fn fetch_fingerprint(url: &BaseUrl) -> Result<Fingerprint, ClientError> {
    let (config, pin) = tls::configuration(None);
    handshake(url, &TlsConnector::from(config)).await?;
    pin.seen()
        .ok_or_else(|| protocol(url, "it showed no certificate"))
}

/// A TLS connection to the host whose certificate is pinned.
pub(crate) async fn open(
    url: &BaseUrl,
    expected: Fingerprint,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let (config, pin) = tls::configuration(Some(expected));
    match handshake(url, &TlsConnector::from(config)).await {
        Err(_) if pin.seen().is_some_and(|found| found != expected) => {
            Err(ClientError::WrongCertificate {
                host: url.authority(),
                expected,
                found: pin.seen().unwrap_or(expected),
            })
        }
        other => other,
    }
}

async fn handshake(
    url: &BaseUrl,
    connector: &TlsConnector,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let stream = connect(url, |_| true).await?;
    let name = server_name(url)?;
    match timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(protocol(url, format!("TLS failed: {error}"))),
        Err(_) => Err(protocol(url, "no TLS handshake within 10 seconds")),
    }
}

/// Connects to the first address that answers, of those that are `reachable`.
pub(crate) async fn connect(
    url: &BaseUrl,
    reachable: impl Fn(IpAddr) -> bool,
) -> Result<TcpStream, ClientError> {
    let mut last = "no address".to_owned();
    for address in resolve::addresses(url).await? {
        if !reachable(address.ip()) {
            last = format!("{} is not reached from here", address.ip());
            continue;
        }
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Consoles send single key strokes; a failure only costs latency.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = "no answer within 10 seconds".to_owned(),
        }
    }
    Err(ClientError::Connect {
        host: url.authority(),
        problem: last,
    })
}

pub(crate) fn server_name(url: &BaseUrl) -> Result<ServerName<'static>, ClientError> {
    match url.host().parse::<IpAddr>() {
        Ok(address) => Ok(ServerName::IpAddress(address.into())),
        Err(_) => ServerName::try_from(url.host().to_owned())
            .map_err(|_| ClientError::Usage(format!("\"{}\" is not a host name", url.host()))),
    }
}

pub(crate) fn protocol(url: &BaseUrl, problem: impl fmt::Display) -> ClientError {
    ClientError::Protocol {
        host: url.authority(),
        problem: problem.to_string(),
    }
}
