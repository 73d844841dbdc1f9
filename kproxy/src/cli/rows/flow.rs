//! `kproxy dump flows`

use serde::Serialize;

use super::{Endpoint, Row, Scope, ServicePort, duration};
use crate::cli::render::Tone;
use crate::cli::render::table::{Cell, Column, Give};

/// A connection that the packet path translates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Flow {
    /// Service port it belongs to.
    #[serde(flatten)]
    pub service: ServicePort,
    /// Who dialled.
    pub client: Endpoint,
    /// What was dialled.
    pub frontend: Endpoint,
    /// Where the connection was sent.
    pub backend: Endpoint,
    /// `opening`, `established`, `half-closed`, `closed` or `reset`.
    pub state: &'static str,
    /// Seconds since the last packet of either direction.
    pub idle_seconds: u32,
    /// Seconds of further silence until the flow is forgotten.
    pub expires_in_seconds: u32,
    /// The backend is elsewhere and sees an address of this node instead of the client's.
    pub masqueraded: bool,
    /// Set the backend was chosen from.
    pub set: Scope,
    /// `both`, or the one direction whose entry is left: `forward` or `reverse`.
    pub entries: &'static str,
}

impl Row for Flow {
    const TITLE: &'static str = "Flows";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("CLIENT", |row| Cell::new(row.client)).give(Give::Last),
        Column::new("SERVICE", |row| Cell::new(&row.service)).give(Give::First(16)),
        Column::new("FRONTEND", |row| Cell::new(row.frontend)).wide(),
        Column::new("BACKEND", |row| Cell::new(row.backend)).give(Give::Last),
        Column::new("STATE", |row| {
            let tone = match row.state {
                "reset" => Tone::Warn,
                "established" => Tone::Plain,
                _ => Tone::Dim,
            };
            Cell::toned(row.state, tone)
        }),
        Column::new("IDLE", |row| Cell::new(duration(row.idle_seconds.into()))).number(),
        Column::new("EXPIRES", |row| Cell::new(duration(row.expires_in_seconds.into())))
            .number()
            .wide(),
        Column::new("PROTOCOL", |row| Cell::new(row.service.kind())).wide(),
        Column::new("MASQUERADE", |row| Cell::new(if row.masqueraded { "yes" } else { "no" }))
            .wide(),
        Column::new("SET", |row| Cell::new(row.set.name())).wide(),
        Column::new("ENTRIES", |row| Cell::new(row.entries)).wide(),
    ];
}
