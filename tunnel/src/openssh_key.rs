//! OpenSSH's own format (PROTOCOL.key) for the P-256 keys that the ssh-key crate (0.7.0-rc.11) refuses.
//!
//! `ssh-keygen` writes the private number without leading zeros, so that one key in 256 has fewer than 32 bytes, and ssh-key
//! takes that for an error. Everything else in this format is left to it.

use data_encoding::BASE64;
use ssh_key::PrivateKey;

use crate::dropbear_key::{Fields, ecdsa};

const MAGIC: &[u8] = b"openssh-key-v1\0";

/// Parses such a key, without a passphrase. `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<PrivateKey> {
    let (_, rest) = text.split_once("-----BEGIN OPENSSH PRIVATE KEY-----")?;
    let (armoured, _) = rest.split_once("-----END OPENSSH PRIVATE KEY-----")?;
    let base64: String = armoured.split_ascii_whitespace().collect();
    let bytes = BASE64.decode(base64.as_bytes()).ok()?;

    let mut fields = Fields::of(bytes.strip_prefix(MAGIC)?);
    let [cipher, kdf, _options] = [fields.string().ok()?, fields.string().ok()?, fields.string().ok()?];
    if (cipher, kdf, fields.word()?) != (b"none", b"none", 1) {
        return None;
    }
    let _public = fields.string().ok()?;
    let mut private = Fields::of(fields.string().ok()?);
    if private.word()? != private.word()? || private.string().ok()? != b"ecdsa-sha2-nistp256" {
        return None;
    }
    let key = ecdsa(&mut private, b"nistp256").ok()?;
    let comment = String::from_utf8(private.string().ok()?.to_vec()).ok()?;
    PrivateKey::new(key.into(), comment).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by `ssh-keygen`; its private number has 31 bytes.
    const SHORT: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS\n\
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQS2PkQDBnsWs6G68V8VVxxeWRryL/RR\n\
/Oa/PRtaEokINxGcOMuyLcm0rZzLszeMgVF33u/iDxhNXazhYp4qpjU2AAAAoFJLfnZSS3\n\
52AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBLY+RAMGexazobrx\n\
XxVXHF5ZGvIv9FH85r89G1oSiQg3EZw4y7ItybStnMuzN4yBUXfe7+IPGE1drOFiniqmNT\n\
YAAAAfZfjfornLYTBh6mhgHi3+wwpPhtdfjxMw349z+yP1JwAAAAVzaG9ydAECAwQ=\n\
-----END OPENSSH PRIVATE KEY-----\n";
    const PUBLIC: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBLY+RAMGexazobrxXxVXHF5ZGvIv9FH85r89G1oSiQg3EZw4y7ItybStnMuzN4yBUXfe7+IPGE1drOFiniqmNTY= short";

    #[test]
    fn a_short_private_number_is_no_error() {
        let key = parse(SHORT).unwrap();
        assert_eq!(key.public_key().to_openssh().unwrap(), PUBLIC);
        assert!(PrivateKey::from_openssh(SHORT).is_err(), "the crate has learned it: this file can go");
    }

    proptest! {
        #[test]
        fn any_content_gets_an_answer(content in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
            let start: &[u8] = if magic { MAGIC } else { b"" };
            let base64 = BASE64.encode(&[start, content.as_slice()].concat());
            let _ = parse(&format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{base64}\n-----END OPENSSH PRIVATE KEY-----\n"));
        }

        #[test]
        fn any_text_gets_an_answer(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
