//! The HTTPS server: TLS, authentication, authorisation and the routes of the API.
//!
//! What the API means is the manager's. A request's way: `listen` accepts the connection and
//! bounds it, `app` gives the request an id and a router, `auth` decides who asks and whether
//! it may, and the function in `routes` calls the manager.

mod app;
mod args;
mod auth;
mod limits;
mod listen;
mod local_console;
mod logging;
mod openapi;
mod power;
mod route;
mod routes;
mod serve;
#[cfg(test)]
mod tests;
mod tls;
mod trial;
mod wire;

pub use serve::serve_main;
