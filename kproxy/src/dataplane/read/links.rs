//! Pinned links: which program is attached where.

use std::{collections::BTreeSet, fs, io, os::fd::AsFd as _};

use nix::net::if_::if_nameindex;

use super::{
    error::ReadError,
    pins::Pins,
    rows::{LinkRow, LinkTarget},
};
use crate::{
    dataplane::{
        kernel::bpf::{self, Access, LinkPlace},
        programs::{clsact, pins::parse_link},
    },
    node::{device, filters},
};

impl Pins {
    /// The pinned links, sorted by program and device, and the filters of the clsact qdisc, as which programs are
    /// attached to devices before kernel 6.6.
    ///
    /// # Errors
    /// The folder, a link or the filters could not be read.
    pub(crate) fn links(&self) -> Result<Vec<LinkRow>, ReadError> {
        let folder = &self.dirs().links;
        let failed = |source| ReadError::Links { folder: folder.clone(), source };
        let mut rows = Vec::new();
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(rows),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let file_name = entry.file_name();
            let file_name = file_name.to_string_lossy();
            let program = parse_link(&file_name).0.to_owned();
            let link = match bpf::open_pin(&entry.path(), Access::ReadWrite) {
                Ok(link) => link,
                // Its device has gone since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let info = bpf::link_info(link.as_fd()).map_err(failed)?;
            let target = match info.place {
                LinkPlace::Cgroup(0) | LinkPlace::Device(0) | LinkPlace::Other(_) => {
                    LinkTarget::Gone
                }
                LinkPlace::Cgroup(id) => LinkTarget::Cgroup { id },
                LinkPlace::Device(index) => match device::name_of(index) {
                    Some(name) => LinkTarget::Device { name, index },
                    None => LinkTarget::Gone,
                },
            };
            rows.push(LinkRow { program, target, link_id: info.id, program_id: info.program_id });
        }
        rows.extend(of_filters(&rows).map_err(failed)?);
        rows.sort_by_key(|row| (row.program.clone(), format!("{:?}", row.target)));
        Ok(rows)
    }
}

/// The filters of devices without links.
fn of_filters(links: &[LinkRow]) -> io::Result<Vec<LinkRow>> {
    let index_of = |row: &LinkRow| match &row.target {
        LinkTarget::Device { index, .. } => Some(*index),
        LinkTarget::Cgroup { .. } | LinkTarget::Gone => None,
    };
    let linked: BTreeSet<u32> = links.iter().filter_map(index_of).collect();
    let mut rows = Vec::new();
    for device in &if_nameindex()? {
        let (name, index) = (device.name().to_string_lossy(), device.index());
        if linked.contains(&index) {
            continue;
        }
        let ours = |filter: &filters::Filter| filter.priority == clsact::PRIORITY;
        for filter in filters::of(index)?.into_iter().filter(ours) {
            let filters::Filter { program, program_id, .. } = filter;
            let target = LinkTarget::Device { name: name.clone().into_owned(), index };
            rows.push(LinkRow { program, target, link_id: 0, program_id });
        }
    }
    Ok(rows)
}
