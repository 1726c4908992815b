//! How many connections there are, in all and by peer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections. Clones share one count.
#[derive(Debug, Clone)]
pub struct Permits {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    per_peer: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    peers: HashMap<IpAddr, usize>,
}

/// The right to one connection, given back on drop.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    peer: IpAddr,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The server has as many as it takes.
    #[error("too many connections")]
    Total,
    /// The peer has as many as one may have.
    #[error("too many connections from one address")]
    Peer,
}

impl Permits {
    /// At most `total` connections, of them at most `per_peer` from one peer.
    pub fn new(total: usize, per_peer: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                total,
                per_peer,
                counts: Mutex::default(),
            }),
        }
    }

    /// Asks for one connection from `address`.
    pub fn acquire(&self, address: IpAddr) -> Result<Permit, Refused> {
        let peer = peer_of(address);
        let mut counts = self.shared.counts();
        if counts.total >= self.shared.total {
            return Err(Refused::Total);
        }
        let count = counts.peers.get(&peer).copied().unwrap_or(0);
        if count >= self.shared.per_peer {
            return Err(Refused::Peer);
        }
        counts.peers.insert(peer, count + 1);
        counts.total += 1;
        Ok(Permit {
            shared: Arc::clone(&self.shared),
            peer,
        })
    }
}

impl Shared {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.shared.counts();
        counts.total -= 1;
        if let Some(count) = counts.peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.peers.remove(&self.peer);
            }
        }
    }
}

/// Who counts as one peer: an IPv4 address, or the /64 of an IPv6 address, as any host has a whole one.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn peers_are_bounded_and_permits_come_back() {
        let permits = Permits::new(3, 2);
        let a = permits.acquire(ip("192.0.2.1")).unwrap();
        let _b = permits.acquire(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(permits.acquire(ip("192.0.2.1")).unwrap_err(), Refused::Peer);
        let _c = permits.acquire(ip("192.0.2.2")).unwrap();
        assert_eq!(
            permits.acquire(ip("192.0.2.3")).unwrap_err(),
            Refused::Total
        );
        drop(a);
        let _d = permits.acquire(ip("192.0.2.1")).unwrap();
        assert_eq!(permits.shared.counts().total, 3);
    }

    #[test]
    fn one_ipv6_network_is_one_peer() {
        let permits = Permits::new(9, 1);
        let a = permits.acquire(ip("2001:db8::1")).unwrap();
        assert_eq!(
            permits.acquire(ip("2001:db8::ffff")).unwrap_err(),
            Refused::Peer
        );
        let _b = permits.acquire(ip("2001:db8:0:1::1")).unwrap();
        drop(a);
        assert!(permits.shared.counts().peers.len() == 1);
    }
}
