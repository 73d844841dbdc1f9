//! `kproxy dump frontends`

use serde::Serialize;

use super::{Endpoint, Row, Scope, ServicePort, WhenEmpty, backends};
use crate::cli::render::Tone;
use crate::cli::render::table::{Cell, Column, Give};

/// Where a class of senders is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Target {
    /// Set used.
    pub scope: Scope,
    /// Backends in it.
    pub backends: u16,
    /// What happens while it is empty.
    pub when_empty: WhenEmpty,
}

/// An address:port/protocol that clients dial.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Frontend {
    /// Service port it belongs to.
    #[serde(flatten)]
    pub service: ServicePort,
    /// `ClusterIP`, `NodePort`, `ExternalIP` or `LoadBalancer`; joined with `+` if it is several.
    pub kind: String,
    /// What is dialled. A NodePort has the unspecified address: it answers on every address of
    /// this node of the family.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// For pods and this node.
    pub internal: Target,
    /// For senders outside the cluster.
    pub external: Target,
}

impl Frontend {
    /// `2`, `0 refuse`, or `2 (outside: 0 drop)` where the two classes of senders differ.
    fn backends(&self) -> Cell {
        let (inside, outside) = (self.internal, self.external);
        let text = |target: Target| backends(target.backends, target.when_empty);
        let tone = match (inside.backends, outside.backends) {
            (0, 0) => Tone::Bad,
            (0, _) | (_, 0) => Tone::Warn,
            _ => Tone::Plain,
        };
        if text(inside) == text(outside) {
            return Cell::toned(text(inside), tone);
        }
        Cell::toned(format!("{} (outside: {})", text(inside), text(outside)), tone)
    }
}

/// `local: 2`
fn target(target: Target) -> Cell {
    let count = backends(target.backends, target.when_empty);
    Cell::new(format!("{}: {count}", target.scope.name()))
}

impl Row for Frontend {
    const TITLE: &'static str = "Frontends";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("SERVICE", |row| Cell::new(&row.service)).give(Give::First(20)),
        Column::new("FRONTEND", |row| {
            Cell::new(format!("{}/{}", row.endpoint, row.service.protocol))
        })
        .give(Give::Last),
        Column::new("KIND", |row| Cell::new(&row.kind)),
        Column::new("BACKENDS", Self::backends).narrow(),
        Column::new("INSIDE", |row| target(row.internal)).wide(),
        Column::new("OUTSIDE", |row| target(row.external)).wide(),
        Column::new("ID", |row| Cell::new(row.service.service_port_id)).number().wide(),
    ];
}
