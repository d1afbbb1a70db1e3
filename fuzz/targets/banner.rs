#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reverse_tunnel::fuzzing::banner(bytes));
