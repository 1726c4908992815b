//! Fuzzes [`lodge_fuzz::rings::chains`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::rings::chains(data));
