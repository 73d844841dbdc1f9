//! `kproxy verify` for people and programs.

use std::io::{self, Write};

use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use super::look::Seen;
use super::source::Plan;
use crate::cli::args::Format;
use crate::cli::render::{Look, Tone, json, prose, yaml};
use crate::cli::started;
use crate::dataplane::verify::Finding;

/// What was found. The JSON keys are promised in `docs/cli.md`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Verified {
    /// Where the plan comes from; `None`: there is none, and only the maps were looked at.
    pub source: Option<String>,
    /// Why there is no plan.
    pub no_plan: Option<String>,
    /// Pid of the daemon; `None`: it does not run.
    pub daemon: Option<i32>,
    /// Service ports in the maps.
    pub services: usize,
    /// Frontends in the maps.
    pub frontends: usize,
    /// Programs that are attached.
    pub programs: usize,
    /// What differs.
    #[serde(serialize_with = "with_text")]
    pub differences: Vec<Finding>,
    /// What differs still, after the repair; `None`: nothing was repaired.
    #[serde(serialize_with = "with_text_opt")]
    pub remaining: Option<Vec<Finding>>,
}

/// A finding and its sentence.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    text: String,
}

fn with_text<S: Serializer>(findings: &[Finding], to: S) -> Result<S::Ok, S::Error> {
    let mut seq = to.serialize_seq(Some(findings.len()))?;
    for finding in findings {
        seq.serialize_element(&Told { finding, text: finding.text() })?;
    }
    seq.end()
}

fn with_text_opt<S: Serializer>(findings: &Option<Vec<Finding>>, to: S) -> Result<S::Ok, S::Error> {
    match findings {
        Some(findings) => with_text(findings, to),
        None => to.serialize_none(),
    }
}

impl Verified {
    pub(super) fn new(source: &Plan, daemon: Option<i32>) -> Self {
        let (source, no_plan) = match source {
            Plan::Read { settings, .. } => (Some(started::source(&settings.source)), None),
            other => (None, Some(other.why_not().to_owned())),
        };
        Self { source, no_plan, daemon, ..Self::default() }
    }

    pub(super) fn take(&mut self, seen: Seen) {
        let Seen { findings, services, frontends, programs } = seen;
        *self = Self { services, frontends, programs, differences: findings, ..self.clone() };
    }

    /// Whether nothing differs, or nothing any more.
    pub(crate) fn in_order(&self) -> bool {
        self.remaining.as_ref().unwrap_or(&self.differences).is_empty()
    }
}

/// `3 differences`
pub(super) fn count(count: usize) -> String {
    match count {
        0 => "no difference".to_owned(),
        1 => "1 difference".to_owned(),
        count => format!("{count} differences"),
    }
}

/// Prints all of it.
///
/// # Errors
/// Those of the writer.
pub(crate) fn print(
    out: &mut dyn Write,
    look: &Look,
    format: Format,
    verified: &Verified,
) -> io::Result<()> {
    match format {
        Format::Json => json::write(out, verified),
        Format::Yaml => yaml::write(out, verified),
        Format::Table => sentences(out, look, verified),
        Format::Wide => sentences(out, &Look { width: None, ..*look }, verified),
    }
}

fn sentences(out: &mut dyn Write, look: &Look, verified: &Verified) -> io::Result<()> {
    list(out, look, &verified.differences)?;
    let Verified { services, frontends, programs, differences, remaining, .. } = verified;
    if let Some(remaining) = remaining.as_ref().filter(|remaining| !remaining.is_empty()) {
        writeln!(out, "\n{}", look.paint(Tone::Title, "Still, after the repair"))?;
        list(out, look, remaining)?;
    }
    let found = count(differences.len());
    let seen = format!("{services} service ports, {frontends} frontends, {programs} programs");
    let last = match (remaining, &verified.source) {
        (Some(remaining), _) if remaining.is_empty() => format!("{found}, all repaired"),
        (Some(remaining), _) => format!("{found}, {} after the repair", count(remaining.len())),
        (None, Some(source)) if differences.is_empty() => format!("{found} from {source}: {seen}"),
        (None, None) if differences.is_empty() => {
            format!("no contradiction in the maps: {seen}; not compared with a plan")
        }
        (None, Some(source)) => format!("{found} from {source}"),
        (None, None) => format!("{found}; not compared with a plan"),
    };
    let tone = if verified.in_order() { Tone::Good } else { Tone::Bad };
    let mut lines = Vec::new();
    prose::write(&mut lines, look, 0, &last)?;
    let last = String::from_utf8_lossy(&lines);
    writeln!(out, "{}", look.paint(tone, last.trim_end()))
}

fn list(out: &mut dyn Write, look: &Look, findings: &[Finding]) -> io::Result<()> {
    findings.iter().try_for_each(|finding| prose::hanging(out, look, "- ", 2, &finding.text()))
}
