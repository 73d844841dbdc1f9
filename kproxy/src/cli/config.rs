//! `kproxy config`: what the daemon would run with, and where each value comes from.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command};
use serde::Serialize;
use serde_json::Value;

use super::args::{Format, RunArgs};
use super::exit::Exit;
use super::render::table::{self, Cell, Column, Give};
use super::render::{Look, Tone, json, yaml};
use crate::config::flags::FLAGS;
use crate::config::{self, InForce, why_without};

/// Flags that say what to do, and not with what.
const DEEDS: [&str; 4] = ["config", "write-config-to", "cleanup", "init-only"];

/// One value.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Path of a field of kube-proxy's configuration, or a flag of kproxy's own.
    pub setting: String,
    /// What it is.
    pub value: Value,
    /// `flag`, `file`, `environment` or `default`.
    pub source: &'static str,
    /// The flag, if it was typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// The file, if it is from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Why it changes nothing, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_meaning: Option<&'static str>,
}

impl Row {
    fn from(&self) -> String {
        match (&self.flag, &self.file) {
            (Some(flag), _) => flag.clone(),
            (_, Some(file)) => file.display().to_string(),
            _ => self.source.to_owned(),
        }
    }
}

/// Prints what is in force.
///
/// # Errors
/// Those of the writer.
pub(super) fn run(
    format: Format,
    matches: &ArgMatches,
    in_force: &InForce,
    look: &Look,
    out: &mut dyn Write,
) -> Result<Exit> {
    print(out, look, format, &rows(matches, in_force))?;
    Ok(Exit::Fine)
}

/// Every value. `matches`: of the verb that has the options of `run`.
pub(super) fn rows(matches: &ArgMatches, in_force: &InForce) -> Vec<Row> {
    let mut rows = fields(in_force);
    rows.extend(own_flags(matches));
    rows
}

/// Prints rows.
///
/// # Errors
/// Those of the writer.
pub(super) fn print(
    out: &mut dyn Write,
    look: &Look,
    format: Format,
    rows: &[Row],
) -> std::io::Result<()> {
    match format {
        Format::Table | Format::Wide => {
            table::write(out, look, &columns(), format == Format::Wide, rows)
        }
        Format::Json => json::write(out, &rows),
        Format::Yaml => yaml::write(out, &rows),
    }
}

fn columns() -> [Column<Row>; 3] {
    [
        Column::new("SETTING", |row: &Row| {
            let tone = if row.without_meaning.is_some() { Tone::Dim } else { Tone::Plain };
            Cell::toned(&row.setting, tone)
        }),
        Column::new("VALUE", |row: &Row| match config::shown(&row.value) {
            text if text.is_empty() => Cell::new("-"),
            text => Cell::new(text),
        })
        .give(Give::Last),
        Column::new("FROM", |row: &Row| match row.source {
            "default" => Cell::toned("default", Tone::Dim),
            _ => Cell::new(row.from()),
        })
        .give(Give::First(12)),
    ]
}

/// kube-proxy's fields.
pub(super) fn fields(in_force: &InForce) -> Vec<Row> {
    let row = |(setting, value, source): (String, Value, config::Source)| {
        let without_meaning = why_without(&setting);
        let (source, flag, file) = match source {
            config::Source::Default => ("default", None, None),
            config::Source::File(file) => ("file", None, Some(file)),
            config::Source::Flag(name) => ("flag", Some(typed(name)), None),
        };
        Row { setting, value, source, flag, file, without_meaning }
    };
    in_force.fields().into_iter().map(row).collect()
}

/// kproxy's own flags, by what clap knows of them.
fn own_flags(matches: &ArgMatches) -> Vec<Row> {
    let command = RunArgs::augment_args(Command::new("run"));
    let is_own = |name: &str| !DEEDS.contains(&name) && FLAGS.iter().all(|flag| flag.name != name);
    let row = |arg: &clap::Arg| {
        let long = arg.get_long().filter(|name| is_own(name) && !arg.is_hide_set())?;
        let id = arg.get_id().as_str();
        let given = matches.get_raw(id).into_iter().flatten();
        let given: Vec<_> = given.map(|value| value.to_string_lossy()).collect();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "environment",
            _ => "default",
        };
        Some(Row {
            setting: typed(long),
            value: given.join(",").into(),
            source,
            flag: (source == "flag").then(|| typed(long)),
            file: None,
            without_meaning: None,
        })
    };
    command.get_arguments().filter_map(row).collect()
}

fn typed(name: &str) -> String {
    if name.len() == 1 { format!("-{name}") } else { format!("--{name}") }
}
