//! Clients outside and in a pod that dial TCP and UDP as long as something is done to kproxy, and what they lose.

use std::fmt;

use anyhow::{Result, bail};
use kproxy_lab::Family;

use super::{
    clients::{self, Seen},
    report,
    stage::{FAR, NEAR, Stage, Standing, UDP},
};

/// Requests and connections, and those that failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    seen: Seen,
    standing: usize,
    /// What those have seen that lost something.
    lost: Vec<String>,
}

impl Tally {
    /// Ends connections that stood.
    pub(super) fn end(&mut self, all: impl IntoIterator<Item = Standing>) -> Result<()> {
        for standing in all {
            let (count, lost) = standing.end_telling()?;
            self.standing += count;
            self.lost.extend(lost);
        }
        Ok(())
    }

    /// Prints how the command ends.
    ///
    /// # Errors
    /// Something failed or was lost.
    pub(super) fn conclude(&self, faults: usize) -> Result<()> {
        println!("{}", report::last_line(faults, self.connections(), self.failed()));
        if self.failed() > 0 {
            bail!("{} connections failed or were lost", self.failed());
        }
        Ok(())
    }

    /// Both together.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.lost.extend(other.lost);
        Self {
            seen: self.seen.and(other.seen),
            standing: self.standing + other.standing,
            lost: self.lost,
        }
    }

    /// Connections that stood and were lost.
    pub(super) const fn lost(&self) -> usize {
        self.lost.len()
    }

    /// All of them.
    const fn connections(&self) -> usize {
        self.seen.attempted + self.standing
    }

    /// Those that failed or lost something.
    const fn failed(&self) -> usize {
        self.seen.failed + self.lost.len()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { attempted, failed, failures, .. } = &self.seen;
        let Self { standing, lost, .. } = self;
        let count = lost.len();
        write!(f, "{attempted} requests, {failed} failed; ")?;
        write!(f, "{standing} connections stood, {count} lost")?;
        failures.iter().try_for_each(|failure| write!(f, "\n  failed: {failure}"))?;
        lost.iter().try_for_each(|lost| write!(f, "\n  lost: {lost}"))
    }
}

/// Connections over TCP and dialogues over UDP that stand.
pub(super) fn stand(stage: &Stage) -> Result<[Standing; 3]> {
    Ok([
        stage.stand(&NEAR, Family::V4)?,
        stage.stand(&FAR, Family::V6)?,
        stage.converse(&UDP, Family::V4)?,
    ])
}

/// Does the work under load; what came of it, and what was lost meanwhile. The work adds what it finds itself.
pub(super) fn under<T>(
    stage: &Stage,
    work: impl FnOnce(&mut Tally) -> Result<T>,
) -> Result<(T, Tally)> {
    let (client, pod) = (stage.client(), stage.pod()?);
    let outside = FAR.probe(stage.frontend(&FAR, Family::V4));
    let inside = FAR.probe(stage.inside(&FAR, Family::V4)?);
    let datagrams = UDP.probe(stage.frontend(&UDP, Family::V6));
    let mut tally = Tally::default();
    let (first, (second, (third, result))) = clients::during(&client, &outside, || {
        clients::during(&pod, &inside, || clients::during(&client, &datagrams, || work(&mut tally)))
    })?;
    tally.seen = first.and(second).and(third);
    Ok((result, tally))
}

/// A number below `most` that differs from one time to the next.
pub(super) fn spread(number: u32, most: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1) % most
}
