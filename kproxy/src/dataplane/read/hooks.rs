//! Whose programs run at the hooks that kproxy uses, and in which order.

use std::{collections::BTreeMap, fs::File, io, os::fd::AsFd as _, path::Path};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use aya_obj::generated::bpf_attach_type;
use kproxy_common::abi::program;
use serde::Serialize;

use crate::{
    dataplane::kernel::{bpf, release},
    node::{Device, filters, xdp},
};

/// Hooks of the cgroup, by what the socket does there.
const CGROUP: [(&str, bpf_attach_type); 6] = [
    ("connect4", bpf_attach_type::BPF_CGROUP_INET4_CONNECT),
    ("connect6", bpf_attach_type::BPF_CGROUP_INET6_CONNECT),
    ("sendmsg4", bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG),
    ("sendmsg6", bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG),
    ("recvmsg4", bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG),
    ("recvmsg6", bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG),
];

/// A hook and its programs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct HookRow {
    /// `xdp`, `ingress`, `egress`, or what a socket does: `connect4`, `sendmsg6`, …
    pub hook: &'static str,
    /// In the order in which the kernel runs them.
    pub programs: Vec<HookProgram>,
}

/// A program at a hook.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct HookProgram {
    /// Its name; empty: it has none.
    pub name: String,
    /// Its kernel id.
    pub id: u32,
}

impl HookProgram {
    /// Whether it is one of kproxy's.
    pub(crate) fn is_ours(&self) -> bool {
        let mut ours = program::CGROUP.into_iter().chain(program::DEVICE).chain([program::RELEASE]);
        ours.any(|name| name == self.name)
    }
}

/// What the programs that are loaded now are called.
#[derive(Clone, Debug)]
pub(crate) struct ProgramNames(BTreeMap<u32, String>);

impl ProgramNames {
    /// Asks the kernel. What cannot be told has no name.
    pub(crate) fn read() -> Self {
        let named =
            |info: ProgramInfo| (info.id(), info.name_as_str().unwrap_or_default().to_owned());
        Self(loaded_programs().flatten().map(named).collect())
    }

    /// Every name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(String::as_str)
    }

    fn row(&self, hook: &'static str, ids: impl IntoIterator<Item = u32>) -> HookRow {
        let program = |id| HookProgram { name: self.0.get(&id).cloned().unwrap_or_default(), id };
        HookRow { hook, programs: ids.into_iter().map(program).collect() }
    }
}

/// Hooks of a device that have programs. tcx comes before the filters of clsact
/// (net/core/dev.c: sch_handle_ingress).
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn of_device(device: &Device, names: &ProgramNames) -> io::Result<Vec<HookRow>> {
    let filters = filters::of(device.index)?;
    let mut rows = vec![names.row("xdp", xdp::program_of(device.index)?)];
    for (hook, way) in [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)] {
        let mut ids = Vec::new();
        if release::is_at_least(6, 6) {
            let asked = SchedClassifier::query_tcx(&device.name, way);
            let (_, programs) = asked.map_err(io::Error::other)?;
            ids.extend(programs.iter().map(ProgramInfo::id));
        }
        let comes_in = way == TcAttachType::Ingress;
        let here = filters.iter().filter(|filter| filter.ingress == comes_in);
        ids.extend(here.map(|filter| filter.program_id));
        rows.push(names.row(hook, ids));
    }
    rows.retain(|row| !row.programs.is_empty());
    Ok(rows)
}

/// Hooks of a cgroup that have programs.
///
/// # Errors
/// The folder cannot be opened, or the kernel does not tell.
pub(crate) fn of_cgroup(folder: &Path, names: &ProgramNames) -> io::Result<Vec<HookRow>> {
    let cgroup = File::open(folder)?;
    let mut rows = Vec::new();
    for (hook, kind) in CGROUP {
        rows.push(names.row(hook, bpf::cgroup_programs(cgroup.as_fd(), kind)?));
    }
    rows.retain(|row| !row.programs.is_empty());
    Ok(rows)
}
