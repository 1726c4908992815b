//! The host network against a real kernel and a real DHCP server, each test in network namespaces of its own.
//!
//! Needs root, and the programs `ip` (iproute2) and `dnsmasq` (dnsmasq-base). Without root every test says that
//! it is skipped; with root, a missing program is a failure.

mod bridges;
mod ipv6;
mod lab;
mod leases;
mod links;
mod queues;
mod traffic;
