//! Fuzzes [`lodge_fuzz::chipset::serial`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::chipset::serial(data));
