//! `kproxy dump affinity`

use super::{Row, duration, endpoint, kind_cell, name_cell};
use crate::cli::render::table::{Cell, Column, Give};
use crate::dataplane::read::{AffinityClient, AffinityRow};

fn client(row: &AffinityRow) -> Cell {
    match row.client {
        AffinityClient::Node => Cell::new("this node"),
        AffinityClient::Address(addr) => Cell::new(addr),
        AffinityClient::Netns(cookie) => Cell::new(format!("netns {cookie}")),
    }
}

impl Row for AffinityRow {
    const TITLE: &'static str = "Affinity";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("CLIENT", client).give(Give::Last),
        Column::new("SERVICE", |row: &Self| name_cell(row.service.as_ref(), row.id))
            .give(Give::First(16)),
        Column::new("BACKEND", |row: &Self| Cell::new(endpoint(row.addr, row.port)))
            .give(Give::Last),
        Column::new("IDLE", |row: &Self| Cell::new(duration(row.idle_seconds))).number(),
        Column::new("EXPIRES", |row: &Self| Cell::new(duration(row.expires_in_seconds))).number(),
        Column::new("PROTOCOL", |row: &Self| kind_cell(row.service.as_ref())).wide(),
        Column::new("ID", |row: &Self| Cell::new(row.id)).number().wide(),
    ];
}
