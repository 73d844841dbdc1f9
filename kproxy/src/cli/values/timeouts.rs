//! `--flow-timeouts`: states of flows with their times.

use std::{str::FromStr, time::Duration};

use kproxy_common::flow::FlowState;

/// Longest time: ten days, twice what the kernel has for any state.
const MOST: u32 = 864_000;

/// A state, and the seconds without a packet after which a flow in it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StateTimeout(pub FlowState, pub u32);

impl FromStr for StateTimeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, time)) = text.split_once('=') else {
            return Err(format!("`{text}` is no state with its time; write it like stream=5m"));
        };
        let name = name.trim();
        let Some(state) = FlowState::all().find(|state| state.name() == name) else {
            let names: Vec<_> = FlowState::all().map(FlowState::name).collect();
            return Err(format!("`{name}` is no state of a flow; there are {}", names.join(", ")));
        };
        match seconds(time.trim()) {
            Some(seconds @ 1..=MOST) => Ok(Self(state, seconds)),
            _ => Err(format!(
                "`{time}` is no time from 1s to 10d; write it like 90s, 5m, 1h30m or 24h"
            )),
        }
    }
}

/// A time to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Timeout(pub Duration);

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match seconds(text.trim()) {
            Some(seconds) if !text.trim().is_empty() => {
                Ok(Self(Duration::from_secs(seconds.into())))
            }
            _ => Err(format!("`{text}` is no time; write it like 90s, 5m, 1h30m or 24h")),
        }
    }
}

/// Numbers with their units, one after the other: `1h30m`.
fn seconds(text: &str) -> Option<u32> {
    let (mut rest, mut sum) = (text, 0u32);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = rest.split_at(digits);
        let (unit, after) = unit.split_at_checked(1)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        sum = sum.checked_add(number.parse::<u32>().ok()?.checked_mul(unit)?)?;
        rest = after;
    }
    Some(sum)
}

/// Seconds as they would be typed, in the largest unit that leaves nothing over.
pub(crate) fn typed(seconds: u32) -> String {
    for (unit, name) in [(86_400, "d"), (3_600, "h"), (60, "m")] {
        if seconds != 0 && seconds.is_multiple_of(unit) {
            return format!("{}{name}", seconds / unit);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_wait_has_a_unit() {
        let parse = |text: &str| text.parse::<Timeout>().map(|Timeout(time)| time.as_secs());
        assert_eq!(parse("1h30m"), Ok(5_400));
        assert_eq!(parse("0s"), Ok(0));
        for text in ["", "5", "m", "-1s", "1.5s"] {
            assert!(parse(text).is_err_and(|error| error.contains("write it like")), "{text}");
        }
    }

    #[test]
    fn times_have_a_state_and_a_unit() {
        for (text, name, seconds) in [
            ("stream=90s", "stream", 90),
            ("close-wait=5m", "close-wait", 300),
            (" established = 24h", "established", 86_400),
            ("established=24h0m0s", "established", 86_400),
            ("time-wait=1h30m", "time-wait", 5_400),
            ("opening=10d", "opening", MOST),
            ("reset=1s", "reset", 1),
        ] {
            let StateTimeout(state, found) = text.parse().unwrap();
            assert_eq!((state.name(), found), (name, seconds), "{text}");
            assert_eq!(super::seconds(&typed(seconds)), Some(seconds));
        }
        for bad in [
            "",
            "stream",
            "stream=",
            "stream=90",
            "stream=s",
            "stream=0s",
            "stream=-1s",
            "stream=1w",
            "stream=11d",
            "stream=1.5h",
            "stream=99999999999s",
            "stream=4294967295d",
            "stream=1é",
        ] {
            assert!(bad.parse::<StateTimeout>().is_err(), "{bad}");
        }
        let error = "half-open=1s".parse::<StateTimeout>().unwrap_err();
        for state in FlowState::all() {
            assert!(error.contains(state.name()), "{error}");
        }
        assert_eq!(
            [0, 1, 60, 90, 7_200, 172_800].map(typed),
            ["0s", "1s", "1m", "90s", "2h", "2d"]
        );
    }
}
