//! Names of servers, without the C library: a static one cannot load what its own resolver needs.

use std::net::IpAddr;

use hickory_resolver::TokioResolver;

/// Most addresses of one name that are tried.
const MOST: usize = 4;

/// The addresses of a server, in the order to try. An error is text for people.
pub(crate) async fn addresses(server: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = server.parse() {
        return Ok(vec![address]);
    }
    let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
    let resolver = resolver.map_err(|error| format!("no name resolution: {error}"))?;
    let found = resolver.lookup_ip(server).await;
    let found = found.map_err(|error| format!("no address for \"{server}\" ({error})"))?;
    let addresses: Vec<IpAddr> = found.iter().take(MOST).collect();
    if addresses.is_empty() {
        return Err(format!("the name \"{server}\" has no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_need_no_resolver() {
        for address in ["192.0.2.7", "fd00::7"] {
            let found = addresses(address).await.unwrap();
            assert_eq!(found, [address.parse::<IpAddr>().unwrap()]);
        }
    }
}
