//! `kproxy check` for people.

use std::io::{self, Write};

use super::finding::{Finding, Outcome, Report};
use crate::cli::render::{Look, Tone, prose};

/// Columns of an outcome.
const OUTCOMES: usize = 9;
/// Columns of a check's name.
const NAMES: usize = 16;

/// Prints each check, then how many there are of each outcome.
///
/// # Errors
/// Only those of the writer.
pub(crate) fn print(out: &mut dyn Write, look: &Look, report: &Report) -> io::Result<()> {
    for Finding { check, outcome, found, remedy } in &report.checks {
        let (word, tone) = match outcome {
            Outcome::Ok => ("ok", Tone::Good),
            Outcome::Warning => ("warning", Tone::Warn),
            Outcome::Failure => ("failure", Tone::Bad),
        };
        let word = look.paint(tone, format_args!("{word:OUTCOMES$}"));
        let lead = format!("{word}{check:NAMES$}");
        prose::hanging(out, look, &lead, OUTCOMES + NAMES, found)?;
        if let Some(remedy) = remedy {
            let lead = format!("{:1$}> ", "", OUTCOMES + NAMES);
            prose::hanging(out, look, &lead, OUTCOMES + NAMES + 2, remedy)?;
        }
    }
    let Report { can_run, ok, warnings, failures, .. } = report;
    let verdict = if *can_run {
        look.paint(Tone::Good, "kproxy can run here")
    } else {
        look.paint(Tone::Bad, "kproxy cannot run here as it should")
    };
    let [warnings, failures] = [(*warnings, "warning"), (*failures, "failure")]
        .map(|(number, word)| prose::count(number as u64, word));
    writeln!(out, "\n{verdict}: {ok} ok, {warnings}, {failures}")
}
