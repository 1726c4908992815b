//! Fuzzes [`lodge_fuzz::disk_image::vmdk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::disk_image::vmdk(data));
