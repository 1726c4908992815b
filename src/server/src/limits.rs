//! What a client may ask of the server before it is cut off.

use std::time::Duration;

/// Bounds on what clients, logged in or not, can make the server hold or wait for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most connections at once.
    pub connections: usize,
    /// Most connections at once from one IPv4 address or one IPv6 /64.
    pub connections_per_peer: usize,
    /// Time for the TLS handshake, from the accepted connection on.
    pub handshake: Duration,
    /// Time for a request's header, from its first possible moment on. For HTTP/1.1 it is
    /// also the time a connection may be idle between requests.
    pub header_read: Duration,
    /// Time a connection may be without a request, whatever it sends instead.
    pub idle: Duration,
    /// Longest pause between two pieces of a request's body.
    pub body_progress: Duration,
    /// Time for the whole body of a JSON request.
    pub json_body: Duration,
    /// Longest time in which a client takes none of an answer.
    pub response_stall: Duration,
    /// Size of a request's header, in bytes.
    pub header_bytes: u32,
    /// Requests at once on an HTTP/2 connection.
    pub streams: u32,
    /// How often the peer of a WebSocket is asked whether it is there, and its credential whether it holds.
    pub ping: Duration,
    /// Silence after which the peer of a WebSocket is taken for gone.
    pub silence: Duration,
    /// Most bytes of a body that are read for nothing after an early answer was made.
    pub discard: usize,
    /// Longest time that takes.
    pub discard_time: Duration,
    /// Time for open requests when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_peer: 128,
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(30),
            idle: Duration::from_secs(90),
            body_progress: Duration::from_secs(60),
            json_body: Duration::from_secs(30),
            response_stall: Duration::from_secs(60),
            header_bytes: 32 * 1024,
            streams: 64,
            ping: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            discard: 8 << 20,
            discard_time: Duration::from_secs(5),
            drain: Duration::from_secs(5),
        }
    }
}
