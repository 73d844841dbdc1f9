//! The dashboard for Grafana: deploy/grafana/kproxy.json.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{files::read, promql, registry::Registry, report::Report};

const FILE: &str = "deploy/grafana/kproxy.json";
/// Grafana's own variables that stand for a time.
const TIMES: [&str; 2] = ["$__rate_interval", "$__interval"];
/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;

/// What is checked of a dashboard.
#[derive(Deserialize)]
struct Dashboard {
    uid: String,
    title: String,
    templating: Templating,
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
struct Templating {
    list: Vec<Variable>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    definition: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Panel {
    id: u32,
    #[serde(rename = "type")]
    kind: String,
    title: String,
    grid_pos: Place,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Clone, Copy, Deserialize)]
struct Place {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    expr: String,
    legend_format: String,
}

pub(super) fn check(root: &Path, registry: &Registry, report: &mut Report) {
    let result = read(&root.join(FILE)).and_then(|text| all(&text, registry));
    report.note("Grafana dashboard", result);
}

fn all(text: &str, registry: &Registry) -> Result<String> {
    let board: Dashboard = serde_json::from_str(text).with_context(|| format!("read {FILE}"))?;
    ensure!(board.uid == "kproxy" && !board.title.is_empty(), "uid and title");
    let variables: Vec<&str> = board.templating.list.iter().map(|v| v.name.as_str()).collect();
    for variable in &board.templating.list {
        if let Some(query) = &variable.definition {
            values(query, registry).with_context(|| format!("variable {}", variable.name))?;
        }
    }
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    let mut queries = 0;
    for panel in &board.panels {
        let fail = || format!("panel {} \"{}\"", panel.id, panel.title);
        ensure!(ids.insert(panel.id), "{}: the number stands twice", fail());
        place(panel.grid_pos, &mut cells).with_context(fail)?;
        ensure!(panel.kind == "row" || !panel.targets.is_empty(), "{} asks nothing", fail());
        for target in &panel.targets {
            query(target, &variables, registry).with_context(fail)?;
            queries += 1;
        }
    }
    Ok(format!("{} panels, {queries} queries", board.panels.len()))
}

/// Panels are inside of the grid and do not lie on each other.
fn place(place: Place, cells: &mut BTreeSet<(u32, u32)>) -> Result<()> {
    ensure!(place.w > 0 && place.h > 0 && place.x + place.w <= COLUMNS, "outside of the grid");
    for x in place.x..place.x + place.w {
        for y in place.y..place.y + place.h {
            ensure!(cells.insert((x, y)), "it lies on another one at column {x}, line {y}");
        }
    }
    Ok(())
}

fn query(target: &Target, variables: &[&str], registry: &Registry) -> Result<()> {
    let mut expression = target.expr.clone();
    for time in TIMES {
        expression = expression.replace(time, "5m");
    }
    for variable in variables {
        expression = expression.replace(&format!("${variable}"), ".*");
    }
    ensure!(!expression.contains('$'), "a variable that there is not: {expression}");
    let checked = promql::check(&expression, registry)?;
    let named = target.legend_format.split("{{").skip(1);
    for label in named.filter_map(|rest| rest.split("}}").next()).map(str::trim) {
        ensure!(checked.labels.contains(label), "legend: no label {label} is left: {expression}");
    }
    Ok(())
}

/// `label_values(metric, label)`.
fn values(query: &str, registry: &Registry) -> Result<()> {
    let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (metric, label) =
        inside.and_then(|inside| inside.split_once(", ")).with_context(|| query.to_owned())?;
    let found = registry.find(metric).with_context(|| format!("there is no metric {metric}"))?;
    ensure!(found.labels.contains(label), "{metric} has no label {label}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn a_bad_panel_is_found() {
        let root = workspace::root();
        let registry = Registry::read(&root).unwrap();
        let good = std::fs::read_to_string(root.join(FILE)).unwrap();
        assert!(all(&good, &registry).unwrap().contains("panels"));
        for (from, to) in [
            ("kproxy_problems{", "kproxy_worries{"),
            ("$__rate_interval", "$__some_interval"),
            ("{{instance}}", "{{pod}}"),
            ("label_values(kproxy_build_info, instance)", "label_values(kproxy_build_info, pod)"),
            ("\"x\": 12", "\"x\": 20"),
            ("\"id\": 2,", "\"id\": 3,"),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(all(&good.replace(from, to), &registry).is_err(), "{from} → {to}");
        }
    }
}
