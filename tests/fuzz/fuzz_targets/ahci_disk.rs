//! Fuzzes [`lodge_fuzz::ahci::disk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::ahci::disk(data));
