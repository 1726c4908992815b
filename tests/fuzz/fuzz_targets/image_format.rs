//! Fuzzes [`lodge_fuzz::files::image`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::files::image(data));
