//! Fuzzes [`lodge_fuzz::pci_config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::pci_config(data));
