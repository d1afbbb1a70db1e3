#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocpp_tunnel::fuzzing::pattern(bytes));
