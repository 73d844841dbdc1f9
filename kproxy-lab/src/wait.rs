//! Waiting for what shows some time after it was caused.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Looks again and again until what is seen is right, for as long as patience lasts; what was seen
/// last. Patience is counted in time, not in looks, which may take long themselves.
///
/// # Errors
/// The first error of a look.
pub fn poll_until<T>(
    patience: Duration,
    pause: Duration,
    mut look: impl FnMut() -> Result<T>,
    is_right: impl Fn(&T) -> bool,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = look()?;
        if is_right(&seen) || start.elapsed() > patience {
            return Ok(seen);
        }
        sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn it_ends_with_what_is_right_with_patience_and_with_an_error() {
        let counting = |patience, last| {
            let mut looks = 0;
            let look = || {
                looks += 1;
                if looks == 5 { bail!("five looks") } else { Ok(looks) }
            };
            poll_until(patience, Duration::from_millis(2), look, |looks| *looks == last)
        };
        assert_eq!(counting(Duration::from_secs(60), 3).unwrap(), 3);
        assert_eq!(counting(Duration::ZERO, 3).unwrap(), 1);
        assert_eq!(counting(Duration::from_secs(60), 9).unwrap_err().to_string(), "five looks");
    }
}
