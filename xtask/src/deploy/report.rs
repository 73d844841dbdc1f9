//! One line for each thing that was checked, and one for all.

use std::fmt::Display;

use anyhow::{Result, bail};

use crate::say;

/// What was checked so far.
#[derive(Default)]
pub(super) struct Report {
    manifests: usize,
    checks: usize,
    failed: usize,
}

impl Report {
    /// Notes a check and says what became of it.
    pub(super) fn note(&mut self, what: &str, outcome: Result<impl Display>) {
        self.checks += 1;
        match outcome {
            Ok(detail) => say::line(format!("ok      {what}: {detail}")),
            Err(error) => {
                self.failed += 1;
                say::line(format!("FAILED  {what}: {error:#}"));
            }
        }
    }

    /// Objects that were read, rendered or applied.
    pub(super) const fn count(&mut self, manifests: usize) {
        self.manifests += manifests;
    }

    /// The last line.
    ///
    /// # Errors
    /// When a check has failed.
    pub(super) fn end(&self) -> Result<()> {
        let Self { manifests, checks, failed } = self;
        println!("deploy: {manifests} manifests, {checks} checks, {failed} failed");
        if *failed > 0 {
            bail!("{failed} of {checks} checks of deploy/ have failed");
        }
        Ok(())
    }
}
