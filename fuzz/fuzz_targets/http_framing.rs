#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidegate_fuzz::http_framing(bytes));
