//! The Linux machine Lodge runs on: its hardware, filesystems, control groups, kernel log, and the seam to PID 1.
//!
//! Nothing here knows what a virtual machine means to a user; the manager and PID 1 do.

pub mod boot;
pub mod cgroup;
pub mod disk;
pub mod hostname;
pub mod install;
pub mod kmsg;
pub mod kvm;
mod modules;
pub mod net;
pub mod nvmf;
pub mod power;
pub mod private_file;
pub mod process;
pub mod seed;
pub mod system;
pub mod vsock;
