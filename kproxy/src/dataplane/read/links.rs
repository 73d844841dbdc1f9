//! Pinned links: which program is attached where.

use std::{fs, io, os::fd::AsFd as _};

use super::{
    error::ReadError,
    pins::Pins,
    rows::{LinkRow, LinkTarget},
};
use crate::{
    dataplane::{
        kernel::bpf::{self, Access, LinkPlace},
        programs::pins::parse_link,
    },
    node::device,
};

impl Pins {
    /// The pinned links, sorted by program and device. Before kernel 6.6 uplink programs are
    /// attached as filters of the clsact qdisc, which no pin shows (`tc filter show` does).
    ///
    /// # Errors
    /// The folder or a link could not be read.
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
        rows.sort_by_key(|row| (row.program.clone(), format!("{:?}", row.target)));
        Ok(rows)
    }
}
