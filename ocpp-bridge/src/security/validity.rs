//! When an X.509 certificate begins and ends to be valid (RFC 5280 §4.1.2.5): the two moments that neither rustls
//! nor webpki tell. It is asked of our own certificate only, to warn before a CSMS refuses it.

use std::time::Duration;

use chrono::NaiveDate;

// The tags of DER (X.690) on the way to the validity.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// From when to when a certificate is valid, each as the time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Duration,
    /// The last moment.
    pub not_after: Duration,
}

impl Validity {
    /// Reads it from a certificate in DER. `None` if this is no certificate, or its time lies before 1970.
    pub(super) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (certificate, _) = element(der, SEQUENCE)?;
        let (mut rest, _) = element(certificate, SEQUENCE)?;
        if rest.first() == Some(&VERSION) {
            rest = any(rest)?.2;
        }
        // serialNumber, signature, issuer
        for _ in 0..3 {
            rest = any(rest)?.2;
        }
        let (validity, _) = element(rest, SEQUENCE)?;
        let (not_before, rest) = time(validity)?;
        let (not_after, _) = time(rest)?;
        Some(Self { not_before, not_after })
    }
}

/// The next element: its tag, its content, and what follows it.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // So many bytes of length follow; a certificate has fewer than 2^24 bytes.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The content of the next element, which must be of this kind, and what follows it.
fn element(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    any(der).filter(|(tag, ..)| *tag == wanted).map(|(_, content, rest)| (content, rest))
}

/// `YYMMDDHHMMSSZ`, where 50 means 1950, or `YYYYMMDDHHMMSSZ`; and what follows it.
fn time(der: &[u8]) -> Option<(Duration, &[u8])> {
    let (tag, content, rest) = any(der)?;
    let digits = content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (century, digits) = match tag {
        UTC_TIME => (if digits.first()? < &b'5' { 20 } else { 19 }, digits),
        GENERALIZED_TIME => (two(digits)?, digits.get(2..)?),
        _ => return None,
    };
    if digits.len() != 12 {
        return None;
    }
    let field = |index: usize| two(digits.get(2 * index..)?);
    let year = i32::try_from(100 * century + field(0)?).ok()?;
    let moment =
        NaiveDate::from_ymd_opt(year, field(1)?, field(2)?)?.and_hms_opt(field(3)?, field(4)?, field(5)?)?;
    Some((Duration::from_secs(u64::try_from(moment.and_utc().timestamp()).ok()?), rest))
}

/// The number that two digits make.
fn two(digits: &[u8]) -> Option<u32> {
    let [tens, ones, ..] = digits else { return None };
    Some(10 * u32::from(tens - b'0') + u32::from(ones - b'0'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::Validity;

    fn certificate(from: i32, to: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 2);
        params.not_after = date_time_ymd(to, 12, 31);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        // `date -u -d 2026-01-02 +%s`, and so on.
        let seconds =
            |from, to| Validity { not_before: Duration::from_secs(from), not_after: Duration::from_secs(to) };
        let read = |from, to| Validity::of_certificate(&certificate(from, to)).unwrap();
        assert_eq!(read(2026, 2049), seconds(1_767_312_000, 2_524_521_600));
        assert_eq!(read(2051, 2060), seconds(2_556_230_400, 2_871_676_800));
        assert_eq!(read(1975, 2026), seconds(157_852_800, 1_798_675_200));
    }

    #[test]
    fn a_certificate_that_was_cut_anywhere_has_none() {
        let whole = certificate(2026, 2027);
        for length in 0..whole.len() {
            assert_eq!(Validity::of_certificate(&whole[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(at in 0usize..400, byte: u8, noise: Vec<u8>) {
            let _ = Validity::of_certificate(&noise);
            let mut bent = certificate(2026, 2027);
            if let Some(place) = bent.get_mut(at) {
                *place = byte;
            }
            let _ = Validity::of_certificate(&bent);
        }
    }
}
