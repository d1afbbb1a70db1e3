//! Amounts of data as people write and read them.

use std::fmt;

/// The units, and what they stand for. Case counts: `Mb` would be read as megabits by some.
const UNITS: [(&str, u64); 11] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Why a text is no amount of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmountError;

/// Reads `500MB`, `2 GiB` or `1000000`: a whole number and a unit.
///
/// # Errors
/// It is something else, or more than 2^64 - 1 bytes.
pub fn parse(text: &str) -> Result<u64, AmountError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| AmountError)?;
    let unit = unit.trim_start_matches(' ');
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(AmountError)?;
    number.checked_mul(*factor).ok_or(AmountError)
}

/// `523 bytes`, `500 MB`, `1.2 GB`: in powers of a thousand, cut to one decimal.
#[must_use]
pub fn words(bytes: u64) -> String {
    let units = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    let Some((unit, size)) = units.into_iter().find(|(_, size)| bytes >= *size) else {
        return format!("{bytes} bytes");
    };
    match (bytes % size) * 10 / size {
        0 => format!("{} {unit}", bytes / size),
        tenth => format!("{}.{tenth} {unit}", bytes / size),
    }
}

impl fmt::Display for AmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "it is neither a number of bytes nor a whole number with kB, MB, GB, TB, KiB, MiB, GiB or TiB",
        )
    }
}

impl std::error::Error for AmountError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1234", 1234),
            ("500MB", 500_000_000),
            ("500 MB", 500_000_000),
            ("2GiB", 2 << 30),
            ("7B", 7),
            ("3kB", 3000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MB",
            "-1",
            "1.5GB",
            "5mb",
            "5 M",
            "500MB ",
            " 1",
            "+1",
            "18446744073709551616",
            "20000000TB",
        ] {
            assert_eq!(parse(text), Err(AmountError), "{text}");
        }
    }

    #[test]
    fn amounts_are_told() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1 kB"),
            (1999, "1.9 kB"),
            (500_000_000, "500 MB"),
            (2 << 30, "2.1 GB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(words(bytes), text);
        }
    }
}
