//! `kproxy dump services`

use serde::Serialize;

use super::{Endpoint, Row, ServicePort, WhenEmpty, backends, duration};
use crate::cli::render::Tone;
use crate::cli::render::table::{Cell, Column, Give};

/// A frontend of the service port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Dialled {
    /// `ClusterIP`, `NodePort`, `ExternalIP` or `LoadBalancer`.
    pub kind: String,
    /// What is dialled.
    #[serde(flatten)]
    pub endpoint: Endpoint,
}

/// One backend set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Set {
    /// Entry of the service map.
    pub service_index: u32,
    /// Backends in the set.
    pub backends: u16,
    /// What happens while it is empty.
    pub when_empty: WhenEmpty,
    /// First slot of the run; `null` while the set is empty.
    pub first_slot: Option<u32>,
    /// Raised by one, wrapping at 65536, at each change of the set.
    pub generation: u16,
}

/// A service port of one family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Service {
    /// Its name.
    #[serde(flatten)]
    pub service: ServicePort,
    /// Its frontends.
    pub frontends: Vec<Dialled>,
    /// Every usable endpoint.
    pub cluster: Set,
    /// Endpoints on this node; `null` when no frontend uses them.
    pub local: Option<Set>,
    /// Session affinity timeout; `null` for none.
    pub affinity_seconds: Option<u32>,
}

fn count(set: &Set) -> Cell {
    let tone = if set.backends == 0 { Tone::Bad } else { Tone::Plain };
    Cell::toned(backends(set.backends, set.when_empty), tone)
}

/// `4096..4100 gen 7`: the run of slots, its end not included.
fn run(set: &Set) -> Cell {
    Cell::new(match set.first_slot {
        Some(first) => {
            let end = u64::from(first) + u64::from(set.backends);
            format!("{first}..{end} gen {}", set.generation)
        }
        None => format!("none gen {}", set.generation),
    })
}

fn nothing() -> Cell {
    Cell::toned("-", Tone::Dim)
}

impl Row for Service {
    const TITLE: &'static str = "Services";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("SERVICE", |row| Cell::new(&row.service)).give(Give::First(20)),
        Column::new("PROTOCOL", |row| Cell::new(row.service.kind())),
        Column::new("FRONTENDS", |row| Cell::new(row.frontends.len())).number(),
        Column::new("BACKENDS", |row| count(&row.cluster)).number(),
        Column::new("LOCAL", |row| row.local.as_ref().map_or_else(nothing, count)).number(),
        Column::new("AFFINITY", |row| {
            row.affinity_seconds.map_or_else(nothing, |time| Cell::new(duration(time.into())))
        })
        .number()
        .wide(),
        Column::new("ID", |row| Cell::new(row.service.service_port_id)).number().wide(),
        Column::new("SLOTS", |row| run(&row.cluster)).wide(),
        Column::new("LOCAL-SLOTS", |row| row.local.as_ref().map_or_else(nothing, run)).wide(),
        Column::new("DIALLED", |row| {
            let all: Vec<_> = row.frontends.iter().map(|f| f.endpoint.to_string()).collect();
            Cell::new(all.join(","))
        })
        .wide(),
    ];
}
