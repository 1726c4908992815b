//! Fuzzes [`lodge_fuzz::files::messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::files::messages(data));
