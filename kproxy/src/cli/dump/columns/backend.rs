//! `kproxy dump backends`

use super::{Row, endpoint, kind_cell, name_cell, nothing};
use crate::cli::render::table::{Cell, Column, Give};
use crate::dataplane::read::{BackendRow, scope_name};

impl Row for BackendRow {
    const TITLE: &'static str = "Backends";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("SERVICE", |row: &Self| name_cell(row.service.as_ref(), row.id))
            .give(Give::First(20)),
        Column::new("BACKEND", |row: &Self| Cell::new(endpoint(row.addr, row.port)))
            .give(Give::Last),
        Column::new("SET", |row: &Self| Cell::new(scope_name(row.set))),
        Column::new("NODE", |row: &Self| Cell::new(if row.local { "this" } else { "other" })),
        Column::new("PROTOCOL", |row: &Self| kind_cell(row.service.as_ref())).wide(),
        Column::new("CONNECTIONS", |row: &Self| row.connections.map_or_else(nothing, Cell::new))
            .number()
            .wide(),
        Column::new("SLOT", |row: &Self| Cell::new(row.slot)).number().wide(),
        Column::new("ID", |row: &Self| Cell::new(row.id)).number().wide(),
    ];
}
