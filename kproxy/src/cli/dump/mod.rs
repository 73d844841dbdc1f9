//! `kproxy dump`: the tables in the kernel, by name.

pub(super) mod columns;
pub(super) mod row_filter;
pub(super) mod shown;
pub(super) mod tables;

use std::io::{self, Write};

use anyhow::Result;

use self::columns::Row;
use self::columns::counter::Refusal;
use self::row_filter::RowFilter;
use self::shown::Shown;
use self::tables::Tables;
use super::args::{DumpArgs, DumpTable, FilterArgs, Format};
use super::exit::Exit;
use super::render::{Look, Tone, json, note, table, yaml};
use crate::dataplane::read::{Pins, ReadError};

/// Reads the pinned maps and prints what was asked for.
///
/// # Errors
/// Maps that cannot be read, and those of the writer.
pub(super) fn run(args: DumpArgs, look: &Look, out: &mut dyn Write) -> Result<Exit> {
    let DumpArgs { table, output, filter, pins } = args;
    let tables = read(&Pins::open(&pins.bpffs_root)?, table, &filter)?;
    let filter = RowFilter::new(&filter, &tables);
    let shown = Shown::of(tables, table, &filter);
    if table != DumpTable::All && shown.is_empty() {
        let which = if filter.is_empty() { "" } else { " that meet the conditions" };
        note(format_args!("no {}{which}", table.name()));
    }
    print(out, look, table, output.output, &shown)?;
    Ok(Exit::Fine)
}

/// Every table as JSON.
///
/// # Errors
/// A map cannot be read.
pub(super) fn everything(pins: &Pins) -> Result<String> {
    let (table, filter) = (DumpTable::All, FilterArgs::default());
    let tables = read(pins, table, &filter)?;
    let filter = RowFilter::new(&filter, &tables);
    let mut text = Vec::new();
    print(&mut text, &Look::PLAIN, table, Format::Json, &Shown::of(tables, table, &filter))?;
    Ok(String::from_utf8(text)?)
}

/// Reads the tables that `table` is made of, and those that the conditions look at.
fn read(pins: &Pins, table: DumpTable, filter: &FilterArgs) -> Result<Tables, ReadError> {
    use DumpTable::{Addresses, Affinity, All, Backends, Counters, Flows, Frontends, Services};
    let by_endpoint = filter.address.is_some() || filter.port.is_some();
    let wants = |tables: &[DumpTable]| table == All || tables.contains(&table);
    let mut read = Tables::default();
    if wants(&[Frontends, Services]) || by_endpoint {
        read.frontends = pins.frontends()?;
    }
    if wants(&[Frontends, Services]) {
        read.services = pins.services()?;
    }
    if wants(&[Backends]) || by_endpoint {
        read.backends = pins.backends()?;
    }
    if wants(&[Flows]) {
        read.flows = pins.flows()?;
    }
    if wants(&[Affinity]) {
        read.affinity = pins.affinity()?;
    }
    if wants(&[Counters]) {
        read.counters = pins.counters()?;
        read.drops = pins.drops()?;
    }
    if wants(&[Addresses]) || by_endpoint {
        read.addresses = pins.addresses()?;
    }
    Ok(read)
}

/// Prints the tables: JSON and YAML as one list, or as one object with a key a table.
///
/// # Errors
/// Those of the writer.
pub(super) fn print(
    out: &mut dyn Write,
    look: &Look,
    table: DumpTable,
    format: Format,
    shown: &Shown,
) -> io::Result<()> {
    let all = table == DumpTable::All;
    match format {
        Format::Json if all => json::write(out, shown),
        Format::Yaml if all => yaml::write(out, shown),
        Format::Json => json::write(out, &shown.only()),
        Format::Yaml => yaml::write(out, &shown.only()),
        Format::Table => Printer { out, look, wide: false, headings: all, first: true }.all(shown),
        Format::Wide => Printer { out, look, wide: true, headings: all, first: true }.all(shown),
    }
}

/// Prints tables one below the other.
struct Printer<'a> {
    out: &'a mut dyn Write,
    look: &'a Look,
    wide: bool,
    headings: bool,
    first: bool,
}

impl Printer<'_> {
    fn all(mut self, shown: &Shown) -> io::Result<()> {
        let Shown { frontends, services, backends, flows, affinity, counters, addresses } = shown;
        self.table(frontends.as_deref())?;
        self.table(services.as_deref())?;
        self.table(backends.as_deref())?;
        self.table(flows.as_deref())?;
        self.table(affinity.as_deref())?;
        self.table(counters.as_deref())?;
        let refusals = counters.as_deref().map(Refusal::of).filter(|rows| !rows.is_empty());
        self.headings |= refusals.is_some();
        self.table(refusals.as_deref())?;
        self.table(addresses.as_deref())
    }

    fn table<R: Row>(&mut self, rows: Option<&[R]>) -> io::Result<()> {
        let Some(rows) = rows else { return Ok(()) };
        if !std::mem::replace(&mut self.first, false) {
            writeln!(self.out)?;
        }
        if self.headings {
            let heading = format!("{} ({})", R::TITLE, rows.len());
            writeln!(self.out, "{}", self.look.paint(Tone::Title, heading))?;
        }
        if rows.is_empty() {
            return Ok(());
        }
        table::write(self.out, self.look, R::COLUMNS, self.wide, rows)
    }
}
