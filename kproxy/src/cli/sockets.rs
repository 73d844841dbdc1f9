//! `kproxy sockets`: which process in which pod holds which backend under which frontend.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::args::{Format, SocketsArgs};
use super::dump::columns::{Row, name_cell, nothing, protocol};
use super::dump::row_filter::RowFilter;
use super::dump::tables::Tables;
use super::exit::Exit;
use super::render::table::{self, Cell, Column, Give};
use super::render::{Look, Tone, json, note, yaml};
use crate::dataplane::read::{Pins, SocketRow, Sockets, ToldBy};
use crate::node::processes::{self, Owner};
use crate::node::{cgroup, namespaces};

/// A socket, and whose it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Socket {
    /// The processes that have it; none that can be seen from here.
    pub processes: Vec<Owner>,
    /// The pod, as far as can be told: the host name of its processes, or the name of its network namespace; `None`: the
    /// node.
    pub pod: Option<String>,
    /// The socket.
    #[serde(flatten)]
    pub row: SocketRow,
    /// Folder of its cgroup, if that is seen from here.
    pub cgroup_path: Option<PathBuf>,
}

/// Finds the sockets and prints them.
///
/// # Errors
/// Maps that cannot be read, and those of the writer.
pub(super) fn run(args: SocketsArgs, look: &Look, out: &mut dyn Write) -> Result<Exit> {
    let SocketsArgs { output, filter, pid, pins } = args;
    let pins = Pins::open(&pins.bpffs_root)?;
    let tables = Tables { addresses: pins.addresses()?, ..Tables::default() };
    let filter = RowFilter::new(&filter, &tables);
    let processes = processes::Sockets::find();
    let Sockets { mut rows, namespaces, error } = pins.sockets(&processes)?;
    if let Some(error) = error {
        note(format_args!(
            "sockets of some pods are not shown, as their network namespaces cannot be looked into: {error}; run \
             kproxy as root, or with CAP_SYS_ADMIN"
        ));
    }
    rows.retain(|row| filter.socket(row));
    let mut sockets = with_owners(rows, &processes)?;
    sockets.retain(|of| pid.is_none_or(|pid| of.processes.iter().any(|owner| owner.pid == pid)));
    if sockets.is_empty() {
        let which =
            if filter.is_empty() && pid.is_none() { "" } else { " that meet the conditions" };
        note(format_args!("no sockets{which} in {namespaces} network namespaces"));
    }
    print(out, look, output.output, &sockets)?;
    Ok(Exit::Fine)
}

/// Prints the table.
///
/// # Errors
/// Those of the writer.
pub(super) fn print(
    out: &mut dyn Write,
    look: &Look,
    format: Format,
    sockets: &[Socket],
) -> std::io::Result<()> {
    match format {
        Format::Json => json::write(out, &sockets),
        Format::Yaml => yaml::write(out, &sockets),
        Format::Table | Format::Wide if sockets.is_empty() => Ok(()),
        Format::Table | Format::Wide => {
            table::write(out, look, Socket::COLUMNS, format == Format::Wide, sockets)
        }
    }
}

fn with_owners(rows: Vec<SocketRow>, processes: &processes::Sockets) -> Result<Vec<Socket>> {
    let (names, own) = (namespaces::names(), namespaces::own()?);
    let mut folders: HashMap<u64, Option<PathBuf>> = HashMap::new();
    let socket = |row: SocketRow| {
        let processes = processes.owners(row.inode).to_vec();
        let host = processes.iter().find_map(|owner| owner.host.clone());
        let name = || names.get(&row.namespace).cloned();
        let pod = if row.namespace == own { None } else { host.or_else(name) };
        let cgroup_path = folders.entry(row.cgroup).or_insert_with(|| cgroup::folder(row.cgroup));
        Socket { processes, pod, cgroup_path: cgroup_path.clone(), row }
    };
    Ok(rows.into_iter().map(socket).collect())
}

fn process(of: &Socket) -> Cell {
    match of.processes.as_slice() {
        [] => nothing(),
        [owner] => Cell::new(format!("{}/{}", owner.name, owner.pid)),
        [owner, rest @ ..] => Cell::new(format!("{}/{} +{}", owner.name, owner.pid, rest.len())),
    }
}

impl Row for Socket {
    const TITLE: &'static str = "Sockets";
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("PROCESS", process).give(Give::First(12)),
        Column::new("POD", |of: &Self| {
            of.pod.as_ref().map_or_else(|| Cell::toned("(node)", Tone::Dim), Cell::new)
        })
        .give(Give::First(12)),
        Column::new("SERVICE", |of: &Self| name_cell(of.row.service.as_ref(), of.row.id))
            .give(Give::First(16)),
        Column::new("FRONTEND", |of: &Self| Cell::new(of.row.frontend)).give(Give::Last),
        Column::new("BACKEND", |of: &Self| Cell::new(of.row.backend)).give(Give::Last),
        Column::new("PROTOCOL", |of: &Self| Cell::new(protocol(of.row.protocol))).wide(),
        Column::new("STATE", |of: &Self| Cell::new(of.row.state)).wide(),
        Column::new("BY", |of: &Self| {
            Cell::new(match of.row.told_by {
                ToldBy::Connect => "connect",
                ToldBy::Send => "send",
            })
        })
        .wide(),
        Column::new("LOCAL", |of: &Self| Cell::new(of.row.local)).wide(),
        Column::new("USER", |of: &Self| Cell::new(of.row.user)).number().wide(),
        Column::new("CGROUP", |of: &Self| {
            of.cgroup_path.as_ref().map_or_else(nothing, |path| Cell::new(path.display()))
        })
        .wide(),
    ];
}
