//! Fuzzes [`lodge_fuzz::rfb::viewer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::rfb::viewer(data));
