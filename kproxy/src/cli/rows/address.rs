//! `kproxy dump addresses`

use std::net::IpAddr;

use serde::Serialize;

use super::Row;
use crate::cli::render::table::{Cell, Column};

/// What is known of an address as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// It belongs to this node: NodePorts answer on it.
    pub of_this_node: bool,
    /// It is a ClusterIP: ports without a frontend are refused.
    pub cluster_ip: bool,
}

impl Row for Address {
    const TITLE: &'static str = "Addresses";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("ADDRESS", |row| Cell::new(row.address)),
        Column::new("MEANING", |row| {
            Cell::new(match (row.of_this_node, row.cluster_ip) {
                (true, true) => "this node and ClusterIP",
                (true, false) => "this node: NodePorts answer",
                (false, true) => "ClusterIP: unknown ports are refused",
                (false, false) => "-",
            })
        }),
    ];
}
