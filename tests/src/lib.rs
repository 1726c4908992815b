//! End-to-end tests: the real ISO on a virtual bare-metal machine, driven from outside.
//!
//! The library is the workshop: a [`machine::Machine`] with firmware, disks and
//! network cards, its [`serial`] line and power button, and the tools a user has:
//! the [`cli`], `curl` and a terminal. The tests are in `tests/tests/end_to_end`, one file a
//! subject. `scripts/test` builds what they need and runs them.
//!
//! Waiting is by progress: a wait fails when what is waited on has been silent
//! too long, not when some amount of time has passed.

pub mod artifacts;
pub mod cli;
pub mod curl;
mod drive;
pub mod host;
pub mod machine;
pub mod media;
pub mod nfs;
pub mod picture;
pub mod process;
mod progress;
pub mod qmp;
pub mod serial;
pub mod shared;
pub mod terminal;
mod trace;
pub mod vnc;
pub mod volatile_disk;
pub mod web;
