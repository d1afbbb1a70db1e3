#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| http_connect::fuzzing::proxy_answer(bytes));
