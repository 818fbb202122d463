//! Durations as Go writes them: `1h2m3.5s`, `300ms`, `-1.5h`, `0`.
//!
//! Consul's API and configuration carry durations in this form, so it is read and written exactly: the same texts are
//! accepted, and what is written reads back to the same number of nanoseconds. What it never does: lose precision to a
//! float, or accept a number without a unit (other than `0`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Signed nanoseconds, like Go's `time.Duration`: up to 292 years either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(pub i64);

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not of the form number, unit, number, unit…
    #[error("\"{0}\" is not a duration such as 10s, 1h30m or 300ms")]
    Malformed(String),
    /// `10`: Go asks for a unit too.
    #[error("\"{0}\" has no unit: write {0}s for seconds or {0}ms for milliseconds")]
    NoUnit(String),
    /// `10d`.
    #[error("\"{text}\" has the unknown unit \"{unit}\": use h, m, s, ms, us or ns")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// The unit in it.
        unit: String,
    },
    /// More than 292 years.
    #[error("\"{0}\" is longer than 292 years")]
    TooLong(String),
}

/// The units with their nanoseconds; Go knows both letters that look like a micro sign.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl GoDuration {
    /// The duration, unless it is negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl From<Duration> for GoDuration {
    /// Longer than 292 years becomes 292 years.
    fn from(duration: Duration) -> Self {
        GoDuration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(GoDuration(0));
        }
        if rest.is_empty() {
            return Err(DurationError::Malformed(text.into()));
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (nanos, after) = component(text, rest)?;
            total = total.checked_add(nanos).ok_or_else(|| DurationError::TooLong(text.into()))?;
            rest = after;
        }
        let signed = if negative { 0i64.checked_sub_unsigned(total) } else { 0i64.checked_add_unsigned(total) };
        signed.map(GoDuration).ok_or_else(|| DurationError::TooLong(text.into()))
    }
}

/// One number with its unit from the start of `rest`, in nanoseconds, and what follows it.
fn component<'a>(text: &str, rest: &'a str) -> Result<(u64, &'a str), DurationError> {
    let (whole, rest) = digits(rest);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Malformed(text.into()));
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    if unit.is_empty() {
        return Err(DurationError::NoUnit(text.into()));
    }
    let Some(&(_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(DurationError::UnknownUnit { text: text.into(), unit: unit.into() });
    };
    let too_long = || DurationError::TooLong(text.into());
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| too_long())? };
    let nanos = whole.checked_mul(size).ok_or_else(too_long)?;
    Ok((nanos.checked_add(fraction_of(fraction, size)).ok_or_else(too_long)?, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `0.fraction` of a unit in nanoseconds, rounded down. An hour has 13 digits of nanoseconds, so digits beyond the 18th
/// change nothing that could be seen.
fn fraction_of(fraction: &str, size: u64) -> u64 {
    let mut value: u128 = 0;
    let mut scale: u128 = 1;
    for digit in fraction.bytes().take(18) {
        value = value * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    u64::try_from(u128::from(size) * value / scale).expect("a part of a unit is below the unit, which is a u64")
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        // Below a second Go picks the largest unit that leaves a whole part; above, hours, minutes and seconds.
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => decimal(f, nanos, 1_000, "µs"),
            1_000_000..1_000_000_000 => decimal(f, nanos, 1_000_000, "ms"),
            _ => {
                let (hours, minutes) = (nanos / UNITS[7].1, nanos / UNITS[6].1 % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                decimal(f, nanos % UNITS[6].1, UNITS[5].1, "s")
            }
        }
    }
}

/// `nanos / size` without trailing zeros, then the unit.
fn decimal(f: &mut fmt::Formatter<'_>, nanos: u64, size: u64, unit: &str) -> fmt::Result {
    let (whole, part) = (nanos / size, nanos % size);
    if part == 0 {
        return write!(f, "{whole}{unit}");
    }
    let width = size.ilog10() as usize;
    let part = format!("{part:0width$}");
    write!(f, "{whole}.{}{unit}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str) -> i64 {
        text.parse::<GoDuration>().unwrap_or_else(|e| panic!("{text}: {e}")).0
    }

    #[test]
    fn reads_what_go_reads() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("-5s", -5_000_000_000),
            ("300ms", 300_000_000),
            ("1µs", 1_000),
            ("1μs", 1_000),
            ("1us", 1_000),
            ("1h2m3.5s", 3_723_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(nanos(text), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses_and_says_why() {
        for (text, why) in [
            ("", "is not a duration"),
            ("-", "is not a duration"),
            ("s", "is not a duration"),
            (".s", "is not a duration"),
            ("1h x", "has the unknown unit \"h x\""),
            ("10", "has no unit: write 10s"),
            ("1m30", "has no unit"),
            ("1d", "has the unknown unit \"d\""),
            ("9223372036854775808ns", "longer than 292 years"),
            ("3000000h", "longer than 292 years"),
            ("99999999999999999999999s", "longer than 292 years"),
        ] {
            let error = text.parse::<GoDuration>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn writes_what_go_writes() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (300_000_000, "300ms"),
            (3_300_000_000, "3.3s"),
            (60_000_000_000, "1m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (-1_000_000_001, "-1.000000001s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration(nanos).to_string(), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(nanos: i64) {
            let text = GoDuration(nanos).to_string();
            proptest::prop_assert_eq!(text.parse::<GoDuration>(), Ok(GoDuration(nanos)));
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
