//! Plays the inputs in `fuzz/corpus/` as ordinary tests, so that what the fuzzers once found stays fixed, and what they
//! call can't rot where no fuzzer runs.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "used by tests only, where a panic is the report"
)]

use std::fs;
use std::path::Path;

/// At so many places, evenly spread, each input is cut off.
const CUTS: usize = 64;
/// So many variations of each input are tried.
const VARIATIONS: usize = 128;
/// The same variations in every run: what fails here fails again.
const SEED: u64 = 0x0CB9;
/// What means something in one of the grammars: quotes, ends, separators, a NUL, bytes of UTF-8.
const BYTES: &[u8] = b"\0\n\r\t \"'#%*,-./0129:=@[\\]_{|}\x7f\x80\xc3\xed\xf0\xff";

/// Calls `body` with every input in `fuzz/corpus/NAME`, with what is left when it is cut off, and with a few
/// variations of it.
///
/// # Panics
/// Where `body` does, after it has shown the input as the source text of a byte string; and if there is no input.
pub fn play(name: &str, body: fn(&[u8])) {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus")).join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|why| panic!("{}: {why}", directory.display()));
    let mut inputs: Vec<_> = entries.map(|entry| entry.expect("the directory can be read").path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", directory.display());

    for path in inputs {
        let input = fs::read(&path).expect("the file can be read");
        let shown = path.display().to_string();
        run(&shown, body, &input);
        for cut in 0..CUTS.min(input.len()) {
            run(&shown, body, &input[..input.len() * cut / CUTS.min(input.len())]);
        }
        let mut rng = fastrand::Rng::with_seed(SEED);
        for _ in 0..VARIATIONS {
            run(&shown, body, &vary(&input, &mut rng));
        }
    }
}

/// The input with one to four bytes changed, put in or taken out.
fn vary(input: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut varied = input.to_vec();
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(0..=varied.len());
        let byte = if rng.bool() { rng.u8(..) } else { BYTES[rng.usize(..BYTES.len())] };
        match rng.u8(0..3) {
            0 => varied.insert(at, byte),
            1 if at < varied.len() => varied[at] = byte,
            _ if at < varied.len() => drop(varied.remove(at)),
            _ => {}
        }
    }
    varied
}

fn run(name: &str, body: fn(&[u8]), input: &[u8]) {
    let _shown = ShownOnPanic { name, input };
    body(input);
}

struct ShownOnPanic<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for ShownOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}, varied to b\"{}\"", self.name, self.input.escape_ascii());
        }
    }
}
