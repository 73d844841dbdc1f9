//! `kproxy diff`: what manifests would change of what the maps hold.
//!
//! Objects that are in none of the files stay as they are in the source. Where no source can be read, the files are
//! all there is: of a Service without EndpointSlices in them everything but its backends is compared.

mod before;
mod changes;
pub(super) mod print;

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, Result};
use clap::ArgMatches;

pub(super) use self::changes::changes;
use self::print::{Diffed, print};
use super::args::DiffArgs;
use super::exit::Exit;
use super::render::{Look, note};
use super::started::{self, Place};
use crate::daemon::Settings;
use crate::daemon::fresh::Fresh;
use crate::dataplane::read::Pins;
use crate::dataplane::verify;
use crate::errors::with_causes;
use crate::model::{Problem, ServiceName};
use crate::node::Served;
use crate::plan::{Change, ServicePortId};
use crate::source::manifests::{self, Allocated, Given};

/// Compares and prints.
///
/// # Errors
/// A file, an object or the maps cannot be read, and those of the writer.
pub(super) fn run(
    args: DiffArgs,
    matches: &ArgMatches,
    look: &Look,
    out: &mut dyn Write,
) -> Result<Exit> {
    let DiffArgs { files, output, run } = args;
    let (texts, unreadable) = read(&files);
    let Place { bpffs_root, settings, .. } = started::place(run, matches)?;
    let pins = Pins::open(&bpffs_root)?;
    let (mut fresh, source) = base(settings, pins.served())?;
    let frontends = pins.frontends()?;
    let before = |name: &ServiceName| match source {
        Some(_) => fresh.service(name).map(Allocated::of),
        None => before::of_maps(&frontends, name),
    };
    let mut given = Given::default();
    for (name, text) in &texts {
        given.add(name, text, &before);
    }
    let overlaid = fresh.overlay(std::mem::take(&mut given.events));
    let held = pins.held()?;
    let planned = fresh.planned(&held.config);

    let orphans = orphans(&given, source.as_deref());
    let touched = |id: &ServicePortId| {
        let name = ServiceName::new(id.namespace.as_str(), id.name.as_str());
        given.services.contains(&name) || (given.with_slices.contains(&name) && source.is_some())
    };
    let changed: Vec<&ServicePortId> = overlaid.iter().map(Change::id).collect();
    let concerns = |id: &ServicePortId| touched(id) || (source.is_some() && changed.contains(&id));
    let findings = verify::services(&held, &planned.plans, concerns);
    let knows_backends = |id: &ServicePortId| {
        let name = ServiceName::new(id.namespace.as_str(), id.name.as_str());
        source.is_some() || given.with_slices.contains(&name)
    };
    let compared = planned.plans.iter().filter(|plan| concerns(&plan.id)).count();
    let diffed = Diffed {
        source: source.clone(),
        services: changes(findings, &planned.plans, &pins.flows()?, knows_backends),
        compared,
        reported: concerning(planned.problems, &given),
    };
    for problem in given.unreadable.iter().chain(&orphans) {
        note(format_args!("kproxy: {problem}"));
    }
    for error in &unreadable {
        note(format_args!("kproxy: {}", with_causes(error.as_ref())));
    }
    print(out, look, output.output, &diffed)?;
    if !given.unreadable.is_empty() || !unreadable.is_empty() || !orphans.is_empty() {
        out.flush()?;
        anyhow::bail!("not all of the files could be compared, see above");
    }
    Ok(if diffed.services.is_empty() { Exit::Fine } else { Exit::No })
}

/// The files with their texts, and what could not be read.
fn read(files: &[PathBuf]) -> (Vec<(String, String)>, Vec<anyhow::Error>) {
    let (mut texts, mut errors) = (Vec::new(), Vec::new());
    for path in files {
        if let Err(error) = add(&mut texts, path) {
            errors.push(error);
        }
    }
    (texts, errors)
}

fn add(texts: &mut Vec<(String, String)>, path: &Path) -> Result<()> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("read standard input")?;
        texts.push(("standard input".to_owned(), text));
        return Ok(());
    }
    let told = |path: &Path| format!("read {}, which -f names", path.display());
    for file in manifests::files(path).with_context(|| told(path))? {
        let text = fs::read_to_string(&file).with_context(|| told(&file))?;
        texts.push((file.display().to_string(), text));
    }
    Ok(())
}

/// What is planned without the files, and where it is from.
fn base(settings: Option<Settings>, served: Served) -> Result<(Fresh, Option<String>)> {
    let Some(settings) = settings else {
        note("kproxy: nobody has said where Services come from: the files alone are compared");
        return Ok((Fresh::empty(started::defaults()?, served)?, None));
    };
    let name = started::source(&settings.source);
    match Fresh::read(settings.clone(), served.clone()) {
        Ok(fresh) => Ok((fresh, Some(name))),
        Err(error) => {
            let error = with_causes(&error);
            note(format_args!(
                "kproxy: {name} cannot be read, the files alone are compared: {error}"
            ));
            Ok((Fresh::empty(settings, served)?, None))
        }
    }
}

/// EndpointSlices whose Service nobody knows.
fn orphans(given: &Given, source: Option<&str>) -> Vec<Problem> {
    if source.is_some() {
        return Vec::new();
    }
    let missing = given.with_slices.difference(&given.services);
    let problem = |name: &ServiceName| {
        Problem::new(
            format!("Service {name}"),
            "has EndpointSlices in the files, is not in them itself, and no source can be read: it is not compared",
            "give the Service, too, or name the source with the options of `kproxy run`",
        )
    };
    missing.map(problem).collect()
}

/// What would be reported about the objects of the files, those apart that cannot be read.
fn concerning(problems: Vec<Problem>, given: &Given) -> Vec<Problem> {
    let is_meant = |problem: &Problem| {
        given.names.contains(&problem.object) && !given.unreadable.contains(problem)
    };
    problems.into_iter().filter(is_meant).collect()
}
