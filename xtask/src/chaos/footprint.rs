//! What a daemon uses.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result};
use kproxy_lab::{Lab, Proxy};

/// Memory of a daemon, and what it could leak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Footprint {
    /// KiB of memory of its own (RssAnon).
    pub(super) memory: u64,
    /// Open files, those of the BPF objects among them.
    pub(super) files: usize,
    pub(super) bpf: usize,
    pub(super) threads: usize,
    /// Pinned maps, programs and links.
    pub(super) pins: usize,
}

impl Footprint {
    /// Of a daemon that runs.
    pub(super) fn of(lab: &Lab, proxy: &Proxy) -> Result<Self> {
        let pid =
            proxy.pid().with_context(|| format!("kproxy on {} does not run", proxy.node()))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("read the status of process {pid}"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            number.with_context(|| format!("no {name} in the status of process {pid}"))
        };
        let targets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
            .with_context(|| format!("list the files of process {pid}"))?
            // One that was closed meanwhile.
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .map(|target| target.to_string_lossy().into_owned())
            .collect();
        Ok(Self {
            memory: field("RssAnon")?,
            files: targets.len(),
            bpf: targets.iter().filter(|target| target.contains("bpf")).count(),
            threads: usize::try_from(field("Threads")?)?,
            pins: files_below(&lab.bpffs(proxy.node()))?,
        })
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, files, bpf, threads, pins } = self;
        write!(f, "{memory} KiB, {files} files ({bpf} of BPF), {threads} threads, {pins} pins")
    }
}

fn files_below(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { files_below(&entry.path())? } else { 1 };
    }
    Ok(count)
}
