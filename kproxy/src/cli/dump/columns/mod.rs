//! What the tables show: the columns of the rows of [`crate::dataplane::read`], which are joined where a
//! table needs it, and their JSON form.
//!
//! The JSON keys are promised in `docs/cli.md`: more may be added, none is renamed.

pub(in crate::cli) mod address;
pub(in crate::cli) mod affinity;
pub(in crate::cli) mod backend;
pub(in crate::cli) mod counter;
pub(in crate::cli) mod flow;
pub(in crate::cli) mod frontend;
pub(in crate::cli) mod service;

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::cli::render::Tone;
use crate::cli::render::table::{Cell, Column};
use crate::plan::{EmptyVerdict, Protocol, ServicePortId};

/// A row of a table.
pub(crate) trait Row: Serialize + Sized + 'static {
    /// Heading of the table.
    const TITLE: &'static str;
    /// The columns, from left to right.
    const COLUMNS: &'static [Column<Self>];
}

/// The name of a service port in the maps, or its number when the maps hold no name.
pub(crate) fn name(service: Option<&ServicePortId>, id: u32) -> String {
    service.map_or_else(|| format!("(no name, id {id})"), ServicePortId::text)
}

fn name_cell(service: Option<&ServicePortId>, id: u32) -> Cell {
    let tone = if service.is_some() { Tone::Plain } else { Tone::Warn };
    Cell::toned(name(service, id), tone)
}

/// `TCP/IPv4`
fn kind_cell(service: Option<&ServicePortId>) -> Cell {
    service.map_or_else(nothing, |id| {
        Cell::new(format!("{}/IPv{}", id.protocol.name(), id.family.number()))
    })
}

/// `10.96.0.10:53`, `[fd00:10:96::a]:53`
pub(in crate::cli) fn endpoint(addr: IpAddr, port: u16) -> String {
    SocketAddr::new(addr, port).to_string()
}

fn protocol(protocol: Option<Protocol>) -> &'static str {
    protocol.map_or("?", Protocol::name)
}

fn nothing() -> Cell {
    Cell::toned("-", Tone::Dim)
}

/// A number of backends, or what happens while there is none: `3`, `0 reject`.
fn backends(count: u16, empty: Option<EmptyVerdict>) -> String {
    match (count, empty) {
        (0, Some(EmptyVerdict::Reject)) => "0 reject".to_owned(),
        (0, Some(EmptyVerdict::Drop)) => "0 drop".to_owned(),
        (count, _) => count.to_string(),
    }
}

/// `45s`, `12m`, `5h`, `3d`: the largest unit that leaves a number above one.
pub(in crate::cli) fn duration(seconds: u32) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `999 B`, `1.2 GiB`: at most three digits and a unit.
pub(in crate::cli) fn bytes(count: u64) -> String {
    if count < 1_000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1_024.0;
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 999.5 {
        let Some(larger) = units.next() else { break };
        (value, unit) = (value / 1_024.0, larger);
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        let times = [0, 119, 120, 86_399, 86_400 * 3].map(duration);
        assert_eq!(times, ["0s", "119s", "2m", "23h", "3d"]);
        let sizes = [999, 1_000, 10_200, 1 << 20, 1_023 << 20, u64::MAX].map(bytes);
        assert_eq!(sizes, ["999 B", "1.0 KiB", "10 KiB", "1.0 MiB", "1.0 GiB", "16 EiB"]);
    }
}
