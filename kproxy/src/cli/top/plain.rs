//! One table, for pipes and scripts.

use std::io::{self, Write};

use super::rates::{Numbers, Row};
use super::state::State;
use crate::cli::dump::columns::bytes;
use crate::cli::render::table::{Cell, Column, Give};
use crate::cli::render::{Look, Tone, table};

/// Prints the Services in the order of the screen, and below them all together.
///
/// # Errors
/// Those of the writer.
pub(crate) fn print(out: &mut dyn Write, look: &Look, state: &State) -> io::Result<()> {
    let mut rows: Vec<Row> = state.rows().into_iter().cloned().collect();
    let all = Row {
        id: u32::MAX,
        service: None,
        dialled: None,
        numbers: state.rates.all,
        backends: Vec::new(),
    };
    rows.push(all);
    table::write(out, look, COLUMNS, look.width.is_none(), &rows)
}

const COLUMNS: &[Column<Row>] = &[
    Column::new("SERVICE", |row: &Row| match &row.service {
        Some(id) => Cell::new(id.text()),
        None if row.id == u32::MAX => Cell::toned("(all)", Tone::Title),
        None => Cell::new(format!("#{}", row.id)),
    })
    .give(Give::First(20)),
    Column::new("PROTOCOL", |row: &Row| Cell::new(protocol(row))),
    Column::new("BACKENDS", |row: &Row| Cell::new(serving(row))).number().wide(),
    Column::new("NEW/S", |row: &Row| Cell::new(rate(row.numbers.new))).number(),
    Column::new("OPEN", |row: &Row| Cell::new(row.numbers.open)).number(),
    Column::new("DROPS/S", |row: &Row| lost(row.numbers.drops)).number(),
    Column::new("FAILED/S", |row: &Row| lost(row.numbers.failed)).number(),
    Column::new("UNANSWERED", |row: &Row| count(row.numbers.unanswered)).number(),
    Column::new("PACKETS/S", |row: &Row| Cell::new(rate(row.numbers.packets))).number().wide(),
    Column::new("BYTES/S", |row: &Row| Cell::new(size(&row.numbers))).number().wide(),
];

/// `TCP/IPv4`
pub(super) fn protocol(row: &Row) -> String {
    let Some(id) = &row.service else { return "-".to_owned() };
    format!("{}/IPv{}", id.protocol.name(), id.family.number())
}

/// Backends that serve.
pub(super) fn serving(row: &Row) -> usize {
    row.backends.iter().filter(|backend| backend.serves).count()
}

/// Bytes a second.
pub(super) fn size(numbers: &Numbers) -> String {
    bytes(numbers.bytes.round() as u64)
}

/// With one decimal while it is small.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        ..9.95 => format!("{rate:.1}"),
        _ => format!("{rate:.0}"),
    }
}

/// A rate that is best 0.
fn lost(of: f64) -> Cell {
    Cell::toned(rate(of), tone(of == 0.0))
}

/// A number that is best 0.
fn count(of: u64) -> Cell {
    Cell::toned(of, tone(of == 0))
}

const fn tone(is_none: bool) -> Tone {
    if is_none { Tone::Dim } else { Tone::Bad }
}
