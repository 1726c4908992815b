//! Fuzzes [`lodge_fuzz::ahci::cdrom`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::ahci::cdrom(data));
