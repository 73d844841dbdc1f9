//! Golden tests of what is printed, without a kernel.
//!
//! The samples of `docs/cli.md` are the golden files of what people and programs rely on:
//! `KPROXY_UPDATE_DOCS=1 cargo test -p kproxy cli::` writes them anew. The rest is in `snapshots`.

mod docs;
mod explain;
mod filters;
mod fuzz;
mod kube_proxy;
mod layout;
mod pages;
mod sample;
mod top;
mod trace;
mod verify;

use super::args::{DumpTable, FilterArgs, Format};
use super::dump::row_filter::RowFilter;
use super::dump::shown::Shown;
use super::dump::tables::Tables;
use super::render::Look;

/// A terminal of 80 columns, without colour.
const TERMINAL: Look = Look { width: Some(80), color: false };

/// A file or pipe.
const PLAIN: Look = Look::PLAIN;

/// What `kproxy dump` prints of `tables`.
fn dump(
    tables: &Tables,
    table: DumpTable,
    format: Format,
    look: &Look,
    filter: &FilterArgs,
) -> String {
    let shown = Shown::of(tables.clone(), table, &RowFilter::new(filter, tables));
    let mut out = Vec::new();
    super::dump::print(&mut out, look, table, format, &shown).unwrap();
    String::from_utf8(out).unwrap()
}

/// The conditions as they are typed.
fn typed(text: &str) -> FilterArgs {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        filter: FilterArgs,
    }
    let words = std::iter::once("x").chain(text.split_whitespace());
    <Line as clap::Parser>::try_parse_from(words).unwrap().filter
}

/// Every table.
const EACH: [DumpTable; 7] = [
    DumpTable::Frontends,
    DumpTable::Services,
    DumpTable::Backends,
    DumpTable::Flows,
    DumpTable::Affinity,
    DumpTable::Counters,
    DumpTable::Addresses,
];
