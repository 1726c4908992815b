//! Fuzzes [`lodge_fuzz::chipset::i8042`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lodge_fuzz::chipset::i8042(data));
