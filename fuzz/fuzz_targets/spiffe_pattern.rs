#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidegate_fuzz::spiffe_pattern(bytes));
