//! `kproxy dump frontends`

use std::collections::HashMap;

use serde::Serialize;

use super::{Row, backends, endpoint, name_cell, protocol};
use crate::cli::render::Tone;
use crate::cli::render::table::{Cell, Column, Give};
use crate::dataplane::read::{
    FrontendRow, ServiceRow, SetRow, kind_name, scope_name, sources_name,
};
use crate::plan::Scope;

/// A frontend and the sets that it leads to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Frontend {
    /// The frontend.
    #[serde(flatten)]
    pub row: FrontendRow,
    /// Set for pods and this node; `None` when the maps hold none, which is an error in them.
    pub internal_set: Option<SetRow>,
    /// Set for senders outside the cluster; `None` as above.
    pub external_set: Option<SetRow>,
}

impl Frontend {
    /// Joins frontends with the sets of their service ports.
    pub(crate) fn join(rows: Vec<FrontendRow>, services: &[ServiceRow]) -> Vec<Self> {
        let services: HashMap<u32, &ServiceRow> = services.iter().map(|s| (s.id, s)).collect();
        let set = |id: u32, scope: Scope| {
            let service = services.get(&id)?;
            match scope {
                Scope::Cluster => Some(service.cluster),
                Scope::Local => service.local,
            }
        };
        rows.into_iter()
            .map(|row| Self {
                internal_set: set(row.id, row.internal),
                external_set: set(row.id, row.external),
                row,
            })
            .collect()
    }

    fn kinds(&self) -> Cell {
        let words: Vec<_> = self.row.kinds.iter().map(|kind| kind_name(*kind)).collect();
        Cell::new(if words.is_empty() { "?".to_owned() } else { words.join("+") })
    }

    /// `2`, `0 reject`, or `2, out 0 drop` where senders outside get something else.
    fn backends(&self) -> Cell {
        let (inside, outside) = (text(self.internal_set), text(self.external_set));
        let empty = |set: Option<SetRow>| set.is_none_or(|set| set.backends == 0);
        let tone = match (empty(self.internal_set), empty(self.external_set)) {
            (true, true) => Tone::Bad,
            (false, false) => Tone::Plain,
            _ => Tone::Warn,
        };
        if inside == outside {
            return Cell::toned(inside, tone);
        }
        Cell::toned(format!("{inside}, out {outside}"), tone)
    }
}

fn text(set: Option<SetRow>) -> String {
    set.map_or_else(|| "?".to_owned(), |set| backends(set.backends, set.empty))
}

/// `Local: 2`
fn target(scope: Scope, set: Option<SetRow>) -> Cell {
    Cell::new(format!("{}: {}", scope_name(scope), text(set)))
}

impl Row for Frontend {
    const TITLE: &'static str = "Frontends";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("SERVICE", |f: &Self| name_cell(f.row.service.as_ref(), f.row.id))
            .give(Give::First(20)),
        Column::new("FRONTEND", |f: &Self| {
            let (addr, port) = (f.row.addr, f.row.port);
            Cell::new(format!("{}/{}", endpoint(addr, port), protocol(f.row.protocol)))
        })
        .give(Give::Last),
        Column::new("KIND", Self::kinds).give(Give::Last),
        Column::new("BACKENDS", Self::backends).narrow(),
        Column::new("INSIDE", |f: &Self| target(f.row.internal, f.internal_set)).wide(),
        Column::new("OUTSIDE", |f: &Self| target(f.row.external, f.external_set)).wide(),
        Column::new("SOURCES", |f: &Self| Cell::new(sources_name(f.row.sources))).wide(),
        Column::new("ID", |f: &Self| Cell::new(f.row.id)).number().wide(),
    ];
}
