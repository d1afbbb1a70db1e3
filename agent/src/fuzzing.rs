//! What the fuzz targets in `fuzz/` call, one function a target: any bytes in, and what must hold for all of them.
//! Built for tests, which play the inputs in `fuzz/corpus/`, and with `--cfg fuzzing`; never for the product.

use std::path::Path;

use reverse_tunnel::Destination;

use crate::config::Config;
use crate::policy::Pattern;

/// A configuration that is taken means the same when it is written out; a mistake in one is told by its place.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("/etc/ocpp-tunnel/config.toml");
    let config = match Config::parse(path, text) {
        Ok(config) => config,
        Err(error) => {
            let words = error.to_string();
            let place = words.strip_prefix("/etc/ocpp-tunnel/config.toml:");
            assert!(place.is_some_and(|place| place.starts_with(|c: char| c.is_ascii_digit())), "{words}");
            return;
        }
    };
    let shown = config.to_toml();
    let read = Config::parse(path, &shown).map(|read| read.to_toml());
    assert!(read.as_ref().is_ok_and(|read| *read == shown), "{shown}\n{read:?}");
    let _ = config.remarks();
}

/// What the CSMS may ask for: the first line is a pattern, the second what it asks for. A pattern without wildcards
/// allows what it says and nothing else.
pub fn pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pattern, asked) = text.split_once('\n').unwrap_or((text, ""));
    let (Ok(allowed), Ok(asked)) = (pattern.parse::<Pattern>(), asked.parse::<Destination>()) else { return };
    if !pattern.contains('*') {
        let only = pattern.parse::<Destination>();
        assert_eq!(allowed.matches(&asked), only.as_ref() == Ok(&asked), "{pattern} for {asked}");
    }
}

#[cfg(test)]
mod tests {
    use ocpp_tunnel_corpus::play;

    #[test]
    fn configurations_hold_for_every_input_in_the_corpus() {
        play("configuration", super::configuration);
    }

    #[test]
    fn patterns_hold_for_every_input_in_the_corpus() {
        play("pattern", super::pattern);
    }
}
