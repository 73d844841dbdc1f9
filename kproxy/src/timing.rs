//! How time is told and let pass: the wall clock, pauses between tries, pauses after work.
//!
//! The programs' clock (CLOCK_MONOTONIC) is the data path's affair.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// What visits everything (every flow, every network namespace) rests so many times as long as it took.
const REST: u32 = 20;

/// Time since 1970.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// How long to rest after such work, so that it never takes more than a few percent of a CPU.
pub(crate) fn rest_after(worked: Duration) -> Duration {
    worked * REST
}

/// Pauses between tries, without end: each twice as long as the one before.
pub(crate) fn backoff([shortest, longest]: [Duration; 2]) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(shortest)
        .with_max_delay(longest)
        .with_factor(2.0)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_go_on() {
        let pauses = backoff([1, 6].map(Duration::from_secs)).map(|pause| pause.as_secs());
        assert_eq!(pauses.take(6).collect::<Vec<_>>(), [1, 2, 4, 6, 6, 6]);
    }
}
