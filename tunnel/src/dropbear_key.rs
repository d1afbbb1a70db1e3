//! Private keys as dropbear keeps them: SSH's wire encoding (RFC 4251, 5) in a file, without any armour.
//!
//! What `dropbearkey` writes, and nothing else (dropbear's `rsa.c`, `ecdsa.c`, `ed25519.c`):
//!
//! | first string | then |
//! | --- | --- |
//! | `ssh-rsa` | mpint e, n, d, p, q |
//! | `ecdsa-sha2-nistp256`, `384`, `521` | string curve, string point (SEC 1, uncompressed), mpint d |
//! | `ssh-ed25519` | string of 64 bytes: seed and public key |
//!
//! The parser borrows from the file; a length in it decides over nothing but how far the next field reaches.

use std::fmt;

use ssh_key::private::{EcdsaKeypair, Ed25519Keypair, KeypairData, RsaKeypair, RsaPrivateKey};
use ssh_key::public::{EcdsaPublicKey, RsaPublicKey};
use ssh_key::{Mpint, PrivateKey};

use crate::identity::DSA;

/// Why a file is no key of dropbear's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DropbearKeyError {
    /// A field reaches over the file's end.
    Truncated,
    /// Something follows the key.
    Trailing,
    /// A key type that dropbear doesn't know, or that is no longer used.
    Type(String),
    /// A number is negative, zero or not in its shortest form.
    Number,
    /// The public half doesn't belong to the private one, or the numbers make no key.
    Inconsistent,
}

/// Does the file begin as one of dropbear's does, with the length of a short string?
pub(crate) fn looks_like_one(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0, 0, 0])
}

/// Parses a file's content.
pub(crate) fn parse(bytes: &[u8]) -> Result<PrivateKey, DropbearKeyError> {
    let mut fields = Fields(bytes);
    let key = match fields.string()? {
        b"ssh-rsa" => rsa(&mut fields)?.into(),
        b"ecdsa-sha2-nistp256" => ecdsa(&mut fields, b"nistp256")?.into(),
        b"ecdsa-sha2-nistp384" => ecdsa(&mut fields, b"nistp384")?.into(),
        b"ecdsa-sha2-nistp521" => ecdsa(&mut fields, b"nistp521")?.into(),
        b"ssh-ed25519" => ed25519(&mut fields)?,
        other => {
            let shown = other.get(..other.len().min(32)).unwrap_or_default();
            return Err(DropbearKeyError::Type(String::from_utf8_lossy(shown).into_owned()));
        }
    };
    if !fields.0.is_empty() {
        return Err(DropbearKeyError::Trailing);
    }
    PrivateKey::new(key, "").map_err(|_| DropbearKeyError::Inconsistent)
}

fn rsa(fields: &mut Fields<'_>) -> Result<RsaKeypair, DropbearKeyError> {
    let [e, n, d, p, q] =
        [fields.number()?, fields.number()?, fields.number()?, fields.number()?, fields.number()?]
            .map(Mpint::from_positive_bytes);
    let inconsistent = |_| DropbearKeyError::Inconsistent;
    // dropbear doesn't keep q⁻¹ mod p. The rsa crate computes it, and checks that the numbers belong together; the 1
    // only stands in its place until then, and is never looked at.
    let one = Mpint::from_positive_bytes(&[1]);
    let public = RsaPublicKey::new(e, n).map_err(inconsistent)?;
    let private = RsaPrivateKey::new(d, one, p, q).map_err(inconsistent)?;
    let unfinished = RsaKeypair::new(public, private).map_err(inconsistent)?;
    let checked = rsa::RsaPrivateKey::try_from(&unfinished).map_err(inconsistent)?;
    RsaKeypair::try_from(&checked).map_err(inconsistent)
}

pub(crate) fn ecdsa(fields: &mut Fields<'_>, curve: &[u8]) -> Result<EcdsaKeypair, DropbearKeyError> {
    if fields.string()? != curve {
        return Err(DropbearKeyError::Inconsistent);
    }
    let point = fields.string()?;
    let d = fields.number()?;
    let public = EcdsaPublicKey::from_sec1_bytes(point).map_err(|_| DropbearKeyError::Inconsistent)?;
    Ok(match (curve, public) {
        (b"nistp256", EcdsaPublicKey::NistP256(public)) => {
            EcdsaKeypair::NistP256 { public, private: scalar::<32>(d)?.into() }
        }
        (b"nistp384", EcdsaPublicKey::NistP384(public)) => {
            EcdsaKeypair::NistP384 { public, private: scalar::<48>(d)?.into() }
        }
        (b"nistp521", EcdsaPublicKey::NistP521(public)) => {
            EcdsaKeypair::NistP521 { public, private: scalar::<66>(d)?.into() }
        }
        _ => return Err(DropbearKeyError::Inconsistent),
    })
}

fn ed25519(fields: &mut Fields<'_>) -> Result<KeypairData, DropbearKeyError> {
    let both = fields.string()?.try_into().map_err(|_| DropbearKeyError::Inconsistent)?;
    Ed25519Keypair::from_bytes(both).map(KeypairData::from).map_err(|_| DropbearKeyError::Inconsistent)
}

/// A number at the width that its curve has; an mpint has no leading zeros.
fn scalar<const SIZE: usize>(number: &[u8]) -> Result<[u8; SIZE], DropbearKeyError> {
    let start = SIZE.checked_sub(number.len()).ok_or(DropbearKeyError::Inconsistent)?;
    let mut bytes = [0; SIZE];
    bytes.iter_mut().skip(start).zip(number).for_each(|(place, byte)| *place = *byte);
    Ok(bytes)
}

/// What is left of a sequence of fields in SSH's encoding.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// A `uint32`.
    pub(crate) fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*word))
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8], DropbearKeyError> {
        let length = self.word().and_then(|length| usize::try_from(length).ok());
        let split = length.and_then(|length| self.0.split_at_checked(length));
        let (field, rest) = split.ok_or(DropbearKeyError::Truncated)?;
        self.0 = rest;
        Ok(field)
    }

    /// A positive mpint, without the zero byte that keeps it from being negative.
    fn number(&mut self) -> Result<&'a [u8], DropbearKeyError> {
        match self.string()? {
            [0, number @ ..] if number.first().is_some_and(|first| *first >= 0x80) => Ok(number),
            number @ [0x01..=0x7f, ..] => Ok(number),
            _ => Err(DropbearKeyError::Number),
        }
    }
}

impl fmt::Display for DropbearKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the file of dropbear's format ends too early"),
            Self::Trailing => f.write_str("something follows the key of dropbear's format"),
            Self::Type(name) if name == "ssh-dss" => f.write_str(DSA),
            Self::Type(name) => write!(f, "{name:?} is no key type of dropbear's"),
            Self::Number => {
                f.write_str("a number in the key of dropbear's format is not written as an SSH mpint")
            }
            Self::Inconsistent => {
                f.write_str("the numbers in the key of dropbear's format don't belong together")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `dropbearkey -t ed25519` wrote, and what `dropbearkey -y` said of it.
    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAQFPZliAD8fc3lEPLIOb0OA/kTcMlHQnSElKB2DD6wEhYVEyH1eGoVaJxeHjZ0rkmN/M3FSecjksLTApHbuwEeM8=";
    const ED25519_PUBLIC: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFRMh9XhqFWicXh42dK5JjfzNxUnnI5LC0wKR27sBHjP";
    /// `dropbearkey -t ecdsa -s 256`, one whose private number begins with a zero byte.
    const ECDSA: &str = "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBLY+RAMGexazobrxXxVXHF5ZGvIv9FH85r89G1oSiQg3EZw4y7ItybStnMuzN4yBUXfe7+IPGE1drOFiniqmNTYAAAAfZfjfornLYTBh6mhgHi3+wwpPhtdfjxMw349z+yP1Jw==";
    const ECDSA_PUBLIC: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBLY+RAMGexazobrxXxVXHF5ZGvIv9FH85r89G1oSiQg3EZw4y7ItybStnMuzN4yBUXfe7+IPGE1drOFiniqmNTY=";
    /// `dropbearkey -t rsa -s 1024`: small, for the size isn't judged here.
    const RSA: &str = "AAAAB3NzaC1yc2EAAAADAQABAAAAgQCB5yJifbWZ+hivtymuor9uoXe/Ao3f7gfdiZszRcTnhy3EXMxKZgH2OfjNNBG9BIDh3IhRETx4xXfKFLeaPDFSCRlalnYkS47FiYagQZn9IX2kqOkM2IkNtkl84O1c5GymPFWNPgolx1mlAjGA7fMUDd/BHzhFhCQg2SaWlxfrKQAAAIAL7a+In8aHRyHxML6RHLy7afRXA+MHRxJN047+3E9Ce3VGbMcNpeRUOeqQ3VErrDgxhVC3MP/+jxN66QAbF5/nqOJLy3IgmldEJeF+mkmddhiS5rZlcZb9xBS9YpI85Kttt22Ult28hQGcpzVNoieF9/ipnc0GgVz4TUy7NCCZAQAAAEEAyy95j+Psxjqh4Xx7v/wgKxIwv6pJa9UjwI0ZamAj8wsF85aCBNkTrJrkPj7r9gCNVA+cwUBx1FePWY6ghQDS8QAAAEEAo6s7j0uD0OIy6/J4ZxAiOnsQkfwj/SWbDAE9StZpkaehA3ABa6EPQ+rWgrHNOm3iYF5+yQ3ZXtO6qix8dSEruQ==";
    const RSA_PUBLIC: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCB5yJifbWZ+hivtymuor9uoXe/Ao3f7gfdiZszRcTnhy3EXMxKZgH2OfjNNBG9BIDh3IhRETx4xXfKFLeaPDFSCRlalnYkS47FiYagQZn9IX2kqOkM2IkNtkl84O1c5GymPFWNPgolx1mlAjGA7fMUDd/BHzhFhCQg2SaWlxfrKQ==";

    fn bytes(base64: &str) -> Vec<u8> {
        data_encoding::BASE64.decode(base64.as_bytes()).unwrap()
    }

    fn public(file: &[u8]) -> Result<String, DropbearKeyError> {
        parse(file).map(|key| key.public_key().to_openssh().unwrap())
    }

    #[test]
    fn each_type_has_the_public_key_that_dropbearkey_prints() {
        for (file, printed) in [(ED25519, ED25519_PUBLIC), (ECDSA, ECDSA_PUBLIC), (RSA, RSA_PUBLIC)] {
            assert_eq!(public(&bytes(file)).as_deref(), Ok(printed));
        }
    }

    #[test]
    fn a_cut_or_longer_file_is_none() {
        for file in [ED25519, ECDSA, RSA].map(bytes) {
            for length in 0..file.len() {
                assert!(parse(&file[..length]).is_err(), "{length} of {} bytes", file.len());
            }
            assert_eq!(public(&[file, vec![0]].concat()), Err(DropbearKeyError::Trailing));
        }
    }

    #[test]
    fn a_length_far_beyond_the_file_asks_for_nothing() {
        assert_eq!(public(&[0xff; 64]), Err(DropbearKeyError::Truncated));
        assert_eq!(public(b"\0\0\0\x07ssh-rsa\xff\xff\xff\xff"), Err(DropbearKeyError::Truncated));
    }

    #[test]
    fn dsa_is_told_apart() {
        let error = parse(b"\0\0\0\x07ssh-dss\0\0\0\x01\x05").unwrap_err();
        assert!(error.to_string().contains("DSA"), "{error}");
    }

    #[test]
    fn halves_that_do_not_belong_together_are_refused() {
        for file in [ED25519, RSA].map(bytes) {
            let mut changed = file.clone();
            *changed.last_mut().unwrap() ^= 1;
            assert_eq!(public(&changed), Err(DropbearKeyError::Inconsistent));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_fields_of_any_type_get_an_answer(
            name in prop::sample::select(vec!["ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521", "ssh-ed25519"]),
            curve in prop::sample::select(vec!["nistp256", "nistp521", ""]),
            fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..140), 0..6),
        ) {
            let mut file = Vec::new();
            for field in [name.as_bytes(), curve.as_bytes()].into_iter().chain(fields.iter().map(Vec::as_slice)) {
                file.extend_from_slice(&(field.len() as u32).to_be_bytes());
                file.extend_from_slice(field);
            }
            let _ = parse(&file);
        }

        #[test]
        fn a_damaged_file_never_gives_another_key(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let file = bytes(ED25519);
            let mut damaged = file.clone();
            damaged[at.index(file.len())] ^= 1 << bit;
            prop_assert!(parse(&damaged).is_err());
        }
    }
}
