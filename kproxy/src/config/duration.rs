//! Times as Go writes and reads them (`time.Duration`, `metav1.Duration`).

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

const SECOND: i64 = 1_000_000_000;

/// A time in nanoseconds, written `24h0m0s`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct GoDuration(i64);

impl GoDuration {
    /// Whole seconds.
    pub(crate) const fn seconds(seconds: i64) -> Self {
        Self(seconds * SECOND)
    }

    /// The whole seconds of it.
    pub(crate) const fn as_seconds(self) -> i64 {
        self.0 / SECOND
    }

    /// Whether it is no time at all.
    pub(crate) const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether it is less than that.
    pub(crate) const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Of a field that holds a text, or nanoseconds as a number (`logging.flushFrequency`).
    pub(super) fn text_or_nanoseconds<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(GoDuration),
        }
        Ok(match Either::deserialize(d)? {
            Either::Number(nanoseconds) => Self(nanoseconds),
            Either::Text(duration) => duration,
        })
    }
}

/// Numbers with their units, one after the other: `1h30m`, `1.5s`, `-3ms`; or `0`.
impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let why = || format!("`{text}` is no time; write it like 90s, 5m, 1h30m or 24h");
        let (sign, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(why());
        }
        let mut sum: i128 = 0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(why)?;
            let (number, after) = rest.split_at(end);
            let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            sum += nanoseconds(number, unit).ok_or_else(why)?;
            rest = after;
        }
        i64::try_from(sum * sign).map(Self).map_err(|_ignored| why())
    }
}

fn nanoseconds(number: &str, unit: &str) -> Option<i128> {
    let unit: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND.into(),
        "m" => i128::from(SECOND) * 60,
        "h" => i128::from(SECOND) * 3_600,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // More than these digits is more than there is of nanoseconds.
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.into() };
    let fraction = &fraction[..fraction.len().min(15)];
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse::<i64>().ok()?.into() };
    Some(whole * unit + part * unit / 10_i128.pow(fraction.len() as u32))
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let all = self.0.unsigned_abs();
        let second = SECOND.unsigned_abs();
        let decimal = |unit: u64| {
            let (whole, part) = (all / unit, all % unit);
            let digits = unit.ilog10() as usize;
            let text = format!("{whole}.{part:0digits$}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        match all {
            0 => write!(f, "0s"),
            1..1_000 => write!(f, "{sign}{all}ns"),
            1_000..1_000_000 => write!(f, "{sign}{}µs", decimal(1_000)),
            _ if all < second => write!(f, "{sign}{}ms", decimal(1_000_000)),
            _ => {
                let (hours, minutes) = (all / second / 3_600, all / second / 60 % 60);
                let (whole, part) = (all / second % 60, all % second);
                let rest = format!("{whole}.{part:09}");
                let rest = rest.trim_end_matches('0').trim_end_matches('.').to_owned() + "s";
                match (hours, minutes) {
                    (0, 0) => write!(f, "{sign}{rest}"),
                    (0, _) => write!(f, "{sign}{minutes}m{rest}"),
                    _ => write!(f, "{sign}{hours}h{minutes}m{rest}"),
                }
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_go_writes_them() {
        for (text, written) in [
            ("0", "0s"),
            ("0s", "0s"),
            ("59s", "59s"),
            ("60s", "1m0s"),
            ("2m30s", "2m30s"),
            ("24h", "24h0m0s"),
            ("25h1m1s", "25h1m1s"),
            ("-1h", "-1h0m0s"),
            ("1.5s", "1.5s"),
            (".5h", "30m0s"),
            ("60.000000001s", "1m0.000000001s"),
            ("1500ms", "1.5s"),
            ("1500us", "1.5ms"),
            ("7ns", "7ns"),
            ("2562047h47m16s", "2562047h47m16s"),
        ] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(duration), "{text}");
        }
        for bad in
            ["", "-", "5", "m", "1x", "1d", "1..5s", ".s", "1h-5m", "2562048h", "1é", "9e9s", " 1s"]
        {
            assert!(bad.parse::<GoDuration>().is_err(), "{bad}");
        }
        let endless = format!("{}h", "9".repeat(40));
        assert!(endless.parse::<GoDuration>().is_err());
    }
}
