//! Names to addresses, without the C library: Lodge is one static binary, and
//! a static C library cannot load the plug-ins its own resolver needs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_resolver::TokioResolver;

use crate::{BaseUrl, ClientError};

/// Most addresses of one name that are tried.
const MOST: usize = 16;

/// The addresses of a remote, in the order to try.
pub(crate) async fn addresses(url: &BaseUrl) -> Result<Vec<SocketAddr>, ClientError> {
    let found = addresses_of(url.host()).await?.into_iter();
    Ok(found.map(|ip| SocketAddr::new(ip, url.port())).collect())
}

/// The addresses of a machine, given by name or address, in the order to try.
///
/// # Errors
/// When its name has none, or no name server answers.
pub async fn addresses_of(host: &str) -> Result<Vec<IpAddr>, ClientError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
    }
    let failed = |problem: String| ClientError::Connect {
        host: host.to_owned(),
        problem,
    };
    let resolver = TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|error| failed(format!("no name resolution: {error}")))?;
    let found = resolver
        .lookup_ip(host)
        .await
        .map_err(|error| failed(format!("no address for this name ({error})")))?;
    let addresses: Vec<_> = found.iter().take(MOST).collect();
    if addresses.is_empty() {
        return Err(failed("the name has no address".to_owned()));
    }
    Ok(addresses)
}
