#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidegate_fuzz::access_record(bytes));
