//! Fuzzes [`lodge_fuzz::saved::devices`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::saved::devices(data));
