//! `kproxy dump counters`

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Row, ServicePort, bytes};
use crate::cli::render::Tone;
use crate::cli::render::table::{Cell, Column, Give};

/// What a service port has done since its maps were made: both sets and every CPU added up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Counter {
    /// Service port; `null` for what belongs to none.
    pub service_port: Option<ServicePort>,
    /// Connections given a backend.
    pub connections: u64,
    /// Packets translated on the packet path, both directions.
    pub packets: u64,
    /// Bytes of those packets, headers included.
    pub bytes: u64,
    /// Refused or dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

impl Counter {
    fn drops(&self) -> Cell {
        match self.drops.values().sum::<u64>() {
            0 => Cell::toned("0", Tone::Dim),
            sum => Cell::toned(sum, Tone::Bad),
        }
    }
}

impl Row for Counter {
    const TITLE: &'static str = "Counters";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("SERVICE", |row| match &row.service_port {
            Some(service) => Cell::new(service),
            None => Cell::toned("(no service)", Tone::Dim),
        })
        .give(Give::First(20)),
        Column::new("PROTOCOL", |row| match &row.service_port {
            Some(service) => Cell::new(service.kind()),
            None => Cell::toned("-", Tone::Dim),
        }),
        Column::new("CONNECTIONS", |row| Cell::new(row.connections)).number(),
        Column::new("PACKETS", |row| Cell::new(row.packets)).number(),
        Column::new("BYTES", |row| Cell::new(bytes(row.bytes))).number().narrow(),
        Column::new("BYTES", |row| Cell::new(row.bytes)).number().wide(),
        Column::new("DROPS", Self::drops).number().narrow(),
        Column::new("DROPS", |row| {
            let all: Vec<_> = row.drops.iter().map(|(why, count)| format!("{why}={count}")).collect();
            if all.is_empty() {
                return Cell::toned("-", Tone::Dim);
            }
            Cell::toned(all.join(","), Tone::Bad)
        })
        .wide(),
        Column::new("ID", |row| match &row.service_port {
            Some(service) => Cell::new(service.service_port_id),
            None => Cell::toned("-", Tone::Dim),
        })
        .number()
        .wide(),
    ];
}

/// A reason and how often it applied to a service port: the second table of `dump counters`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refusal {
    /// Service port; `null` for what belongs to none.
    pub service_port: Option<ServicePort>,
    /// Word of the reason.
    pub reason: String,
    /// Packets or calls.
    pub count: u64,
}

impl Refusal {
    /// The refusals of `counters`, most frequent first.
    pub fn of(counters: &[Counter]) -> Vec<Self> {
        let mut all: Vec<_> = counters
            .iter()
            .flat_map(|row| row.drops.iter().map(move |(reason, count)| (row, reason, *count)))
            .map(|(row, reason, count)| Self {
                service_port: row.service_port.clone(),
                reason: reason.clone(),
                count,
            })
            .collect();
        all.sort_by_key(|refusal| std::cmp::Reverse(refusal.count));
        all
    }
}

impl Row for Refusal {
    const TITLE: &'static str = "Drops";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("SERVICE", |row| match &row.service_port {
            Some(service) => Cell::new(service),
            None => Cell::toned("(no service)", Tone::Dim),
        })
        .give(Give::First(20)),
        Column::new("PROTOCOL", |row| match &row.service_port {
            Some(service) => Cell::new(service.kind()),
            None => Cell::toned("-", Tone::Dim),
        }),
        Column::new("REASON", |row| Cell::toned(&row.reason, Tone::Bad)),
        Column::new("COUNT", |row| Cell::new(row.count)).number(),
    ];
}
