//! The monitor alone, without the rest of `lodge`: what the tests of this crate start.

use std::process::ExitCode;

fn main() -> ExitCode {
    lodge_vmm::main_from_birth_socket()
}
