//! `kproxy dump backends`

use serde::Serialize;

use super::{Endpoint, Row, Scope, ServicePort};
use crate::cli::render::table::{Cell, Column, Give};

/// An endpoint of a service port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Backend {
    /// Service port it belongs to.
    #[serde(flatten)]
    pub service: ServicePort,
    /// Where connections are sent.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// It runs on this node.
    pub on_this_node: bool,
    /// Sets that hold it.
    pub sets: Vec<Scope>,
    /// Slots that hold it, in the order of `sets`.
    pub slots: Vec<u32>,
}

fn joined<T: ToString>(items: impl Iterator<Item = T>) -> Cell {
    Cell::new(items.map(|item| item.to_string()).collect::<Vec<_>>().join(","))
}

impl Row for Backend {
    const TITLE: &'static str = "Backends";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("SERVICE", |row| Cell::new(&row.service)).give(Give::First(20)),
        Column::new("BACKEND", |row| Cell::new(row.endpoint)).give(Give::Last),
        Column::new("NODE", |row| Cell::new(if row.on_this_node { "this" } else { "other" })),
        Column::new("SETS", |row| joined(row.sets.iter().map(|scope| scope.name()))),
        Column::new("PROTOCOL", |row| Cell::new(row.service.kind())).wide(),
        Column::new("SLOTS", |row| joined(row.slots.iter())).wide(),
        Column::new("ID", |row| Cell::new(row.service.service_port_id)).number().wide(),
    ];
}
