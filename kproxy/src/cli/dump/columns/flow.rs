//! `kproxy dump flows`

use kproxy_common::flow::{flow_state, state::is_confirmed};

use super::{Row, duration, name_cell, nothing, protocol};
use crate::cli::render::Tone;
use crate::cli::render::table::{Cell, Column, Give};
use crate::dataplane::read::{FlowHalves, FlowKind, FlowRow, scope_name};

fn state(row: &FlowRow) -> Cell {
    let Some(state) = row.state else { return Cell::toned("?", Tone::Warn) };
    let tone = if state.number() == flow_state::RESET {
        Tone::Warn
    } else if is_confirmed(state.number()) {
        Tone::Plain
    } else {
        Tone::Dim
    };
    Cell::toned(state.name(), tone)
}

fn service(row: &FlowRow) -> Cell {
    match row.kind {
        FlowKind::Service => name_cell(row.service.as_ref(), row.id.unwrap_or_default()),
        FlowKind::Direct => Cell::toned("(none, direct)", Tone::Dim),
        FlowKind::Untranslated => Cell::toned("(none, untranslated)", Tone::Dim),
    }
}

fn halves(row: &FlowRow) -> Cell {
    match row.halves {
        FlowHalves::Both => Cell::new("both"),
        FlowHalves::ForwardOnly => Cell::toned("forward", Tone::Warn),
        FlowHalves::ReverseOnly => Cell::toned("reverse", Tone::Warn),
    }
}

fn source(row: &FlowRow) -> Cell {
    match row.source {
        Some(source) if source == row.client => Cell::new("client"),
        Some(source) => Cell::new(source),
        None => Cell::new("masqueraded"),
    }
}

impl Row for FlowRow {
    const TITLE: &'static str = "Flows";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("CLIENT", |row: &Self| Cell::new(row.client)).give(Give::Last),
        Column::new("SERVICE", service).give(Give::First(16)),
        Column::new("FRONTEND", |row: &Self| Cell::new(row.frontend)).wide(),
        Column::new("BACKEND", |row: &Self| Cell::new(row.backend)).give(Give::Last),
        Column::new("STATE", state),
        Column::new("IDLE", |row: &Self| {
            row.idle_seconds.map_or_else(nothing, |time| Cell::new(duration(time)))
        })
        .number(),
        Column::new("EXPIRES", |row: &Self| Cell::new(duration(row.expires_in_seconds)))
            .number()
            .wide(),
        Column::new("PROTOCOL", |row: &Self| Cell::new(protocol(row.protocol))).wide(),
        Column::new("SOURCE", source).wide(),
        Column::new("SET", |row: &Self| {
            row.set.map_or_else(nothing, |set| Cell::new(scope_name(set)))
        })
        .wide(),
        Column::new("ASSURED", |row: &Self| Cell::new(if row.assured { "yes" } else { "no" }))
            .wide(),
        Column::new("ENTRIES", halves).wide(),
    ];
}
