//! `kproxy dump addresses`

use super::Row;
use crate::cli::render::table::{Cell, Column};
use crate::dataplane::read::AddressRow;

/// Sorts by meaning, this node's first, then by address.
pub(crate) fn sort(rows: &mut [AddressRow]) {
    rows.sort_by_key(|row| (!row.node, row.addr));
}

impl Row for AddressRow {
    const TITLE: &'static str = "Addresses";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("ADDRESS", |row: &Self| Cell::new(row.addr)),
        Column::new("MEANING", |row: &Self| {
            Cell::new(match (row.node, row.service) {
                (true, true) => "this node and ClusterIP",
                (true, false) => "this node: NodePorts answer",
                (false, true) => "ClusterIP: unknown ports are refused",
                (false, false) => "-",
            })
        }),
    ];
}
