//! `kproxy dump counters`

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::{Row, bytes, kind_cell, name_cell, nothing};
use crate::cli::render::Tone;
use crate::cli::render::table::{Cell, Column, Give};
use crate::dataplane::read::{CounterRow, DropRow};
use crate::plan::ServicePortId;

/// What a service port has done since its maps were made: both sets added up.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Counter {
    /// Who it is about.
    #[serde(flatten)]
    pub owner: Owner,
    /// Connections given a backend.
    pub connections: u64,
    /// Packets translated on the packet path, both directions.
    pub packets: u64,
    /// Bytes of those packets, headers included.
    pub bytes: u64,
    /// Connections of the packet path that the backend refused or did not answer.
    pub failed: u64,
    /// Refused or dropped, by reason: packets or calls.
    pub drops: BTreeMap<String, u64>,
}

/// The service port that something was counted for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Owner {
    /// Number of the service port; `None` for what belongs to none.
    pub id: Option<u32>,
    /// Its name; `None` when it is gone, or for what belongs to none.
    #[serde(serialize_with = "crate::dataplane::read::name_opt")]
    pub service: Option<ServicePortId>,
}

impl Owner {
    fn name(&self) -> Cell {
        match self.id {
            Some(id) => name_cell(self.service.as_ref(), id),
            None => Cell::toned("(no service)", Tone::Dim),
        }
    }

    /// Named ones by name, then the others by number, last what belongs to none.
    fn order(&self) -> impl Ord + use<'_> {
        (self.service.is_none(), &self.service, self.id.unwrap_or(u32::MAX))
    }
}

/// Word of a reason; the number for one of a later version.
pub(crate) fn reason(row: &DropRow) -> String {
    match row.reason {
        Some(reason) => reason.name().to_owned(),
        None => format!("reason-{}", row.reason_number),
    }
}

impl Counter {
    /// Joins counters and drops of the sets of each service port; sorted by name.
    pub(crate) fn join(counters: Vec<CounterRow>, drops: &[DropRow]) -> Vec<Self> {
        let mut all: BTreeMap<u32, Self> = BTreeMap::new();
        for row in counters {
            let sum = all.entry(row.id).or_default();
            sum.owner = Owner { id: Some(row.id), service: row.service };
            sum.connections = sum.connections.saturating_add(row.connections);
            sum.packets = sum.packets.saturating_add(row.packets);
            sum.bytes = sum.bytes.saturating_add(row.bytes);
            sum.failed = sum.failed.saturating_add(row.failed);
        }
        for row in drops.iter().filter(|row| row.count != 0) {
            // No service port has this number: services are numbered in 32 bits, two an id.
            let sum = all.entry(row.id.unwrap_or(u32::MAX)).or_insert_with(|| Self {
                owner: Owner { id: row.id, service: row.service.clone() },
                ..Self::default()
            });
            let count = sum.drops.entry(reason(row)).or_default();
            *count = count.saturating_add(row.count);
        }
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_by(|a, b| a.owner.order().cmp(&b.owner.order()));
        all
    }

    fn drops(&self) -> Cell {
        lost(self.drops.values().sum())
    }

    fn drops_by_reason(&self) -> Cell {
        if self.drops.is_empty() {
            return nothing();
        }
        let all: Vec<_> = self.drops.iter().map(|(why, n)| format!("{why}={n}")).collect();
        Cell::toned(all.join(","), Tone::Bad)
    }
}

/// A number that is best 0.
fn lost(count: u64) -> Cell {
    if count == 0 { Cell::toned("0", Tone::Dim) } else { Cell::toned(count, Tone::Bad) }
}

impl Row for Counter {
    const TITLE: &'static str = "Counters";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("SERVICE", |c: &Self| c.owner.name()).give(Give::First(20)),
        Column::new("PROTOCOL", |c: &Self| kind_cell(c.owner.service.as_ref())),
        Column::new("CONNECTIONS", |c: &Self| Cell::new(c.connections)).number(),
        Column::new("PACKETS", |c: &Self| Cell::new(c.packets)).number(),
        Column::new("BYTES", |c: &Self| Cell::new(bytes(c.bytes))).number().narrow(),
        Column::new("BYTES", |c: &Self| Cell::new(c.bytes)).number().wide(),
        Column::new("FAILED", |c: &Self| lost(c.failed)).number(),
        Column::new("DROPS", Self::drops).number().narrow(),
        Column::new("DROPS", Self::drops_by_reason).wide(),
        Column::new("ID", |c: &Self| c.owner.id.map_or_else(nothing, Cell::new)).number().wide(),
    ];
}

/// How often a reason applied to a service port: the second table of `dump counters`. JSON holds
/// the same in [`Counter::drops`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Refusal {
    /// Who it is about.
    #[serde(flatten)]
    pub owner: Owner,
    /// Word of the reason.
    pub reason: String,
    /// Packets or calls.
    pub count: u64,
}

impl Refusal {
    /// The refusals of `counters`, the most frequent first.
    pub(crate) fn of(counters: &[Counter]) -> Vec<Self> {
        let each = |counter: &Counter| {
            let owner = counter.owner.clone();
            let all = counter.drops.clone().into_iter();
            all.map(move |(reason, count)| Self { owner: owner.clone(), reason, count })
        };
        let mut all: Vec<_> = counters.iter().flat_map(each).collect();
        all.sort_by_key(|refusal| Reverse(refusal.count));
        all
    }
}

impl Row for Refusal {
    const TITLE: &'static str = "Drops";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("SERVICE", |r: &Self| r.owner.name()).give(Give::First(20)),
        Column::new("PROTOCOL", |r: &Self| kind_cell(r.owner.service.as_ref())),
        Column::new("REASON", |r: &Self| Cell::toned(&r.reason, Tone::Bad)),
        Column::new("COUNT", |r: &Self| Cell::new(r.count)).number(),
    ];
}
