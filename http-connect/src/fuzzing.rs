//! What the fuzz target in `fuzz/` calls: any bytes in, and what must hold for all of them. Built for tests, which play
//! the inputs in `fuzz/corpus/`, and with `--cfg fuzzing`; never for the product.

use crate::{ANSWER_BYTES, Proxy};

/// A proxy's answer is judged alike however it is cut into pieces, and its end lies in it.
pub fn proxy_answer(bytes: &[u8]) {
    let bytes = bytes.get(..ANSWER_BYTES).unwrap_or(bytes);
    let server = "192.0.2.1:22";
    let Ok(proxy) = "http://proxy.example.com:3128".parse::<Proxy>() else { return };
    let Ok(Some(end)) = proxy.judge(bytes, server) else { return };
    assert!(end <= bytes.len());
    for length in 0..=end {
        let part = bytes.get(..length).unwrap_or_default();
        let expected = (length == end).then_some(end);
        assert_eq!(proxy.judge(part, server).ok(), Some(expected), "the first {length} bytes");
    }
}

#[cfg(test)]
mod tests {
    use ocpp_tunnel_corpus::play;

    #[test]
    fn proxy_answers_hold_for_every_input_in_the_corpus() {
        play("proxy_answer", super::proxy_answer);
    }
}
