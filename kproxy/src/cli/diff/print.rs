//! `kproxy diff` for people and programs.

use std::io::{self, Write};

use serde::Serialize;

use super::changes::{Changed, How, Part};
use crate::cli::args::Format;
use crate::cli::render::{Look, Tone, json, prose, yaml};
use crate::model::Problem;

/// What would change. The JSON keys are promised in `docs/cli.md`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Diffed {
    /// Where the objects are from that are in none of the files; `None`: there are only the files.
    pub source: Option<String>,
    /// Service ports that change.
    pub services: Vec<Changed>,
    /// Service ports of the files that were compared.
    pub compared: usize,
    /// What kproxy would report of them.
    pub reported: Vec<Problem>,
}

/// Prints all of it.
///
/// # Errors
/// Those of the writer.
pub(crate) fn print(
    out: &mut dyn Write,
    look: &Look,
    format: Format,
    diffed: &Diffed,
) -> io::Result<()> {
    match format {
        Format::Json => json::write(out, diffed),
        Format::Yaml => yaml::write(out, diffed),
        Format::Table => blocks(out, look, diffed),
        Format::Wide => blocks(out, &Look { width: None, ..*look }, diffed),
    }
}

const fn mark(how: How) -> (&'static str, Tone) {
    match how {
        How::Added => ("+", Tone::Good),
        How::Changed => ("~", Tone::Warn),
        How::Removed => ("-", Tone::Bad),
    }
}

fn blocks(out: &mut dyn Write, look: &Look, diffed: &Diffed) -> io::Result<()> {
    for Changed { service, change, differences } in &diffed.services {
        let (sign, tone) = mark(*change);
        let name = service.as_ref().map_or_else(String::new, ToString::to_string);
        prose::hanging(out, look, &look.paint(tone, format_args!("{sign} ")), 2, &name)?;
        for part in differences {
            let (sign, tone) = mark(part.change);
            let lead = look.paint(tone, format_args!("  {sign} "));
            prose::hanging(out, look, &lead, 4, &text(part))?;
        }
    }
    for problem in &diffed.reported {
        prose::hanging(out, look, "! ", 2, &problem.to_string())?;
    }
    let count = |how| diffed.services.iter().filter(|changed| changed.change == how).count();
    let [added, changed, removed] = [How::Added, How::Changed, How::Removed].map(count);
    let same = diffed.compared.saturating_sub(added + changed);
    let last = if diffed.services.is_empty() {
        format!("nothing would change: {same} service ports are as the maps hold them")
    } else {
        format!(
            "service ports: {added} added, {changed} changed, {removed} removed, {same} as they are"
        )
    };
    prose::write(out, look, 0, &last)
}

/// `frontend 10.96.0.10:80/TCP: ClusterIP`, `algorithm: round-robin -> maglev`
fn text(part: &Part) -> String {
    let Part { kind, object, planned, kernel, flows, flows_end, .. } = part;
    let kind = kind.word();
    let which = if object.is_empty() { kind.to_owned() } else { format!("{kind} {object}") };
    let what = match (kernel, planned) {
        (Some(kernel), Some(planned)) => format!("{kernel} -> {planned}"),
        (kernel, planned) => kernel.clone().or_else(|| planned.clone()).unwrap_or_default(),
    };
    // A NodePort says so itself.
    let what = if object.starts_with(&what) { String::new() } else { format!(": {what}") };
    let flows = match (flows, flows_end) {
        (0, _) => String::new(),
        (count, true) => format!("; open flows: {count}, have to leave it"),
        (count, false) => format!("; open flows: {count}, go on"),
    };
    format!("{which}{what}{flows}")
}
