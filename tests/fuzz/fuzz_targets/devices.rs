//! Fuzzes [`lodge_fuzz::devices`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::devices(data));
