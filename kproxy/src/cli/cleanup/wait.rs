//! Waiting for connections to end.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::timing;

/// `1 connection`, `2 connections`.
pub(super) fn connections(count: usize) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

/// Waits until no connection is open, at most so long, and says how many are and what is the case `meanwhile`. How
/// many are open after how many seconds where the time is up.
pub(super) fn wait_for_end(
    at_most: Option<Duration>,
    meanwhile: &str,
    mut open_connections: impl FnMut() -> Result<usize>,
    out: &mut dyn Write,
) -> Result<Option<(usize, u64)>> {
    /// Between two looks, and between two words about what is open.
    const LOOK: Duration = Duration::from_secs(1);
    const SAY: Duration = Duration::from_secs(10);
    let start = Instant::now();
    let mut said = None;
    loop {
        let look = Instant::now();
        let open = open_connections()?;
        if open == 0 {
            return Ok(None);
        }
        if at_most.is_some_and(|at_most| start.elapsed() >= at_most) {
            return Ok(Some((open, start.elapsed().as_secs())));
        }
        if said.is_none_or(|at: Instant| at.elapsed() >= SAY) {
            writeln!(out, "{} open; {meanwhile}", connections(open))?;
            out.flush()?;
            said = Some(Instant::now());
        }
        thread::sleep(timing::rest_after(look.elapsed()).max(LOOK));
    }
}
