//! Fuzzes [`lodge_fuzz::saved::file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::saved::file(data));
