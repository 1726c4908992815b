//! Fuzzes [`lodge_fuzz::disk_image::qcow2`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::disk_image::qcow2(data));
