//! Of the node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::utsname::uname;

use crate::daemon::Settings;
use crate::dataplane::read::Pins;
use crate::node::{nft, watch};

/// Folders of /proc/sys, and the settings below each.
const SYSCTLS: [(&str, &[&str]); 8] = [
    ("kernel", &["unprivileged_bpf_disabled", "bpf_stats_enabled", "perf_event_paranoid"]),
    ("net/core", &["bpf_jit_enable", "bpf_jit_harden", "bpf_jit_limit", "somaxconn"]),
    (
        "net/ipv4",
        &["ip_forward", "ip_local_port_range", "ip_local_reserved_ports", "ip_nonlocal_bind"],
    ),
    ("net/ipv6/conf/all", &["forwarding", "disable_ipv6"]),
    ("net/bridge", &["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]),
    (
        "net/netfilter",
        &[
            "nf_conntrack_max",
            "nf_conntrack_count",
            "nf_conntrack_tcp_be_liberal",
            "nf_conntrack_tcp_timeout_established",
            "nf_conntrack_tcp_timeout_close_wait",
            "nf_conntrack_udp_timeout",
            "nf_conntrack_udp_timeout_stream",
        ],
    ),
    ("net/ipv4/conf", &[]),
    ("vm", &["overcommit_memory"]),
];
/// Settings of each device.
const OF_DEVICES: [&str; 5] =
    ["rp_filter", "forwarding", "accept_local", "route_localnet", "src_valid_mark"];
/// Lines of the log.
const LOG_LINES: &str = "5000";

pub(super) fn kernel() -> Result<String> {
    let name = uname().context("uname")?;
    let part = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let mut text = format!(
        "{} {} {} {}\n",
        part(name.sysname()),
        part(name.release()),
        part(name.version()),
        part(name.machine())
    );
    for path in ["/sys/kernel/btf/vmlinux", "/sys/fs/bpf", "/sys/fs/cgroup/cgroup.controllers"] {
        let told = match fs::metadata(path) {
            Ok(found) if found.is_file() => format!("there, {} bytes", found.len()),
            Ok(_) => "there".to_owned(),
            Err(error) => error.to_string(),
        };
        text += &format!("{path}: {told}\n");
    }
    for path in ["/etc/os-release", "/proc/meminfo", "/proc/self/limits"] {
        text += &format!("\n==> {path} <==\n{}", file(Path::new(path)));
    }
    Ok(text)
}

/// What a file holds, or why it cannot be read.
fn file(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("{error}\n"))
}

pub(super) fn sysctls() -> Result<String> {
    let root = Path::new("/proc/sys");
    let mut text = String::new();
    let mut add = |path: PathBuf| {
        // What a kernel does not have is no news.
        if let Ok(value) = fs::read_to_string(&path) {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            text += &format!("{name} = {}\n", value.trim_end().replace('\t', " "));
        }
    };
    for (folder, names) in SYSCTLS {
        names.iter().for_each(|name| add(root.join(folder).join(name)));
    }
    let devices = root.join("net/ipv4/conf");
    let entries = fs::read_dir(&devices).with_context(|| format!("read {}", devices.display()))?;
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    for folder in folders {
        OF_DEVICES.iter().for_each(|name| add(folder.join(name)));
    }
    Ok(text)
}

/// Only what is mounted of file systems that kproxy needs: options of others may name secrets.
pub(super) fn mounts() -> Result<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let is_needed = |line: &&str| {
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
        matches!(kind, Some("bpf" | "cgroup" | "cgroup2" | "proc" | "sysfs"))
    };
    let lines: Vec<_> = table.lines().filter(is_needed).collect();
    Ok(lines.join("\n") + "\n")
}

/// The node as the daemon sees it: which devices get programs, and which do not and why.
pub(super) fn devices(settings: Option<&Settings>, pins: Option<&Pins>) -> Result<String> {
    let names = settings.map(|settings| settings.devices.clone()).unwrap_or_default();
    let served = pins.map(Pins::served).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let state = runtime.block_on(watch::follow(names, served))?;
    let state = state.borrow();
    Ok(format!("{:#?}\n", *state))
}

pub(super) fn network() -> Result<String> {
    let mut text = String::new();
    for words in [
        &["-details", "-statistics", "link"][..],
        &["address"],
        &["route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
        &["rule"],
        &["-6", "rule"],
    ] {
        let told = output("ip", words)?;
        text += &format!("==> ip {} <==\n{told}\n", words.join(" "));
    }
    Ok(text)
}

pub(super) fn tables() -> Result<String> {
    Ok(nft::list_tables()?)
}

/// Only lines of kproxy's own processes.
pub(super) fn logs() -> Result<String> {
    let words =
        ["--no-pager", "--output", "short-iso-precise", "--lines", LOG_LINES, "_COMM=kproxy"];
    let text = output("journalctl", &words)?;
    if text.lines().all(|line| line.starts_with("-- ")) {
        bail!("journald has no line of it; of a pod: kubectl logs");
    }
    Ok(text)
}

/// What a program prints.
fn output(program: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(words)
        .output()
        .with_context(|| format!("run {program}, which may not be installed here"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", words.join(" "), why.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
