#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocpp_bridge::fuzzing::filter(bytes));
