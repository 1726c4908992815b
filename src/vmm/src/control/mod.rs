//! The control conversation: managers connect, ask, and are told.

mod connection;
mod server;

pub use server::Server;
