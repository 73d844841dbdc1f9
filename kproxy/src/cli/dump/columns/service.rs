//! `kproxy dump services`

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Serialize;

use super::{Row, backends, duration, endpoint, kind_cell, name_cell, nothing};
use crate::cli::render::Tone;
use crate::cli::render::table::{Cell, Column, Give};
use crate::dataplane::read::{FrontendRow, ServiceRow, SetRow};

/// A service port, its sets, and what is dialled to reach it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Service {
    /// The service port and its sets.
    #[serde(flatten)]
    pub row: ServiceRow,
    /// Its frontends.
    pub frontends: Vec<Dialled>,
}

/// What is dialled.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub(crate) struct Dialled {
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
}

impl Service {
    /// Joins service ports with their frontends.
    pub(crate) fn join(rows: Vec<ServiceRow>, frontends: &[FrontendRow]) -> Vec<Self> {
        let mut dialled: HashMap<u32, Vec<Dialled>> = HashMap::new();
        for row in frontends {
            dialled.entry(row.id).or_default().push(Dialled { addr: row.addr, port: row.port });
        }
        rows.into_iter()
            .map(|row| {
                let mut frontends = dialled.remove(&row.id).unwrap_or_default();
                frontends.sort();
                Self { row, frontends }
            })
            .collect()
    }
}

fn count(set: &SetRow) -> Cell {
    let tone = if set.backends == 0 { Tone::Bad } else { Tone::Plain };
    Cell::toned(backends(set.backends, set.empty), tone)
}

/// `4096..4100`: the run of slots, its end not included, and how often the set changed.
fn run(set: &SetRow) -> Cell {
    let generation = set.generation;
    Cell::new(match set.first_slot {
        Some(first) => {
            format!("{first}..{} gen {generation}", u64::from(first) + u64::from(set.backends))
        }
        None => format!("none gen {generation}"),
    })
}

impl Row for Service {
    const TITLE: &'static str = "Services";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("SERVICE", |s: &Self| name_cell(s.row.service.as_ref(), s.row.id))
            .give(Give::First(20)),
        Column::new("PROTOCOL", |s: &Self| kind_cell(s.row.service.as_ref())),
        Column::new("FRONTENDS", |s: &Self| Cell::new(s.frontends.len())).number(),
        Column::new("BACKENDS", |s: &Self| count(&s.row.cluster)).number(),
        Column::new("LOCAL", |s: &Self| s.row.local.as_ref().map_or_else(nothing, count)).number(),
        Column::new("AFFINITY", |s: &Self| {
            s.row.affinity_seconds.map_or_else(nothing, |time| Cell::new(duration(time)))
        })
        .number()
        .wide(),
        Column::new("ALGORITHM", |s: &Self| Cell::new(s.row.algorithm.name())).wide(),
        Column::new("SOURCES", |s: &Self| {
            let ranges = &s.row.source_ranges;
            if ranges.is_empty() { nothing() } else { Cell::new(ranges.join(",")) }
        })
        .wide(),
        Column::new("ID", |s: &Self| Cell::new(s.row.id)).number().wide(),
        Column::new("SLOTS", |s: &Self| run(&s.row.cluster)).wide(),
        Column::new("LOCAL-SLOTS", |s: &Self| s.row.local.as_ref().map_or_else(nothing, run))
            .wide(),
        Column::new("DIALLED", |s: &Self| {
            let all: Vec<_> = s.frontends.iter().map(|f| endpoint(f.addr, f.port)).collect();
            if all.is_empty() { nothing() } else { Cell::new(all.join(",")) }
        })
        .wide(),
    ];
}
