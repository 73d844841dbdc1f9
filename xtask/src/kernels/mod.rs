//! `cargo xtask kernels`: kproxy on other kernels, in QEMU without hardware acceleration.
//!
//! ```text
//! fetch (Debian's kernels, by apt) ─▶ image (archives) ─▶ guest (QEMU, steps) ─▶ outcome ─▶ report
//! the tests' figures ─▶ budgets (a file that the tests hold every build to)
//! ```
//!
//! In each guest: the rows of packets, which load every program; the daemon in every mode, with its status read;
//! some tests of the lab. One guest at a time, with one processor.

mod budgets;
mod features;
mod fetch;
mod guest;
mod image;
mod outcome;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use self::{
    budgets::Budgets,
    fetch::{Debian, Kernel, NEWEST},
    guest::Step,
    outcome::{FACTS, LAB, MODE, Outcome, ROWS},
};
use crate::{prepare, run, say, setup::Scope, workspace};

/// Kernels that are tried where nothing else is asked for. Those of older and newer Debians may be gone
/// from a mirror one day.
const SERIES: [&str; 4] = ["5.10", "6.1", "6.12", NEWEST];
/// Whose sockets, and who changes sources.
const SOCKETS: [&str; 3] = ["all", "host", "none"];
const SOURCES: [&str; 2] = ["bpf", "netfilter"];
/// Packets at random take longest.
const LONG_ROWS: [&str; 2] = ["model::", "conntrack::"];
/// Sockets of all kinds, NodePorts from outside, UDP flows, and SCTP, which few development machines have.
const LAB_TESTS: [&str; 4] = [
    "uplink::ver_05_nodeport_from_outside_near_and_far_backends",
    "sockets::svc_01_ver_02_pods_and_hosts_reach_a_clusterip_in_every_way",
    "udp::ct_01_ct_05_flows_stay_with_endpoints_that_serve_on",
    "sctp::pkt_04_sctp_of_pods_and_from_outside_and_no_module_because_of_a_service",
];

/// Options of `cargo xtask kernels`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// A kernel, such as 6.1 or `newest`; may be given several times [default: 5.10, 6.1, 6.12, newest].
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<String>,
    /// Two modes, a test of the lab and the plainest rows of packets only.
    #[arg(long)]
    quick: bool,
    /// All rows of packets, also those at random.
    #[arg(long, conflicts_with = "quick")]
    all_rows: bool,
    /// Write what the verifier walks, here and on each kernel, into the file of budgets.
    #[arg(long)]
    write_budgets: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// Runs everything on each kernel and prints what came of it.
///
/// # Errors
/// When set-up or the build fails, a kernel cannot be had, or anything fails on one.
pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    prepare::programs(options.no_install, Scope::Kernels)?;
    let tests = Tests::build()?;
    say::heading("Kernels");
    let all = SERIES.map(str::to_owned).to_vec();
    let asked = if options.kernels.is_empty() { &all } else { &options.kernels };
    let (kernels, mut failures) = fetch(asked)?;
    let unobtainable = failures.len() as u64;
    let work = Work::new()?;
    let common = image::common(&work.0, &tests.payload())?;
    let mut outcomes = Vec::new();
    for kernel in &kernels {
        say::heading(format!("Linux {}", kernel.release));
        let outcome = one(kernel, &work, &common, options)
            .with_context(|| format!("Linux {}", kernel.release))?;
        failures.extend(outcome.failures.iter().map(|text| format!("{}: {text}", kernel.release)));
        outcomes.push(outcome);
    }
    say::heading("This machine's kernel");
    let here = tests.here(options)?;

    println!("{}", report::table(&outcomes));
    for outcome in &outcomes {
        for text in &outcome.degrades {
            println!("{}: {text}", outcome.release);
        }
    }
    if options.write_budgets {
        say::heading("Budgets");
        let told = outcomes.iter().chain([&here]).filter(|outcome| !outcome.verified.is_empty());
        let kernels = told.filter_map(|o| Some((budgets::version(&o.series)?, o.verified.clone())));
        Budgets { stack: here.stack.clone(), kernels: kernels.collect() }.write()?;
    }
    for failure in &failures {
        say::line(failure);
    }
    let failed = unobtainable + outcomes.iter().map(Outcome::failed).sum::<u64>();
    say::line(format!("{} in all", say::duration(started.elapsed())));
    println!("{}", report::summary(&outcomes, failed));
    if !failures.is_empty() {
        bail!("{failed} failed; what they said is above");
    }
    Ok(())
}

/// The kernels, and what cannot be had.
fn fetch(asked: &[String]) -> Result<(Vec<Kernel>, Vec<String>)> {
    let debian = Debian::refresh()?;
    let (mut kernels, mut failures) = (Vec::<Kernel>::new(), Vec::new());
    for series in asked {
        match debian.fetch(series)? {
            // The newest may be one that was asked for by its number.
            Some(kernel) if kernels.iter().any(|other| other.release == kernel.release) => {}
            Some(kernel) => {
                say::line(format!("{series}: {}", kernel.release));
                kernels.push(kernel);
            }
            None => failures.push(format!("{series}: Debian's mirror has no such kernel")),
        }
    }
    Ok((kernels, failures))
}

fn one(kernel: &Kernel, work: &Work, common: &Path, options: &Options) -> Result<Outcome> {
    let own = work.0.join(&kernel.series);
    fs::create_dir_all(&own).with_context(|| format!("make {}", own.display()))?;
    let steps = steps(options);
    let archives = [
        common.to_owned(),
        image::modules(&own, kernel)?,
        image::steps(&own, &guest::list(&steps))?,
    ];
    let ended = guest::boot(kernel, &own, &archives, &steps)?;
    fs::remove_dir_all(&own).with_context(|| format!("remove {}", own.display()))?;
    Ok(Outcome::of(&kernel.series, &kernel.release, &ended))
}

/// What each guest does, with limits that only a broken one meets.
fn steps(options: &Options) -> Vec<Step> {
    let writing = if options.write_budgets { "KPROXY_WRITE_BUDGETS=1 " } else { "" };
    let skipped: String = if options.all_rows || options.quick {
        String::new()
    } else {
        LONG_ROWS.map(|name| format!(" --skip {name}")).concat()
    };
    let chosen = if options.quick { " rows:: budgets:: stack::" } else { skipped.as_str() };
    // Some rows make what they remember older than a kernel is that has just been booted.
    let old_enough = "while read -r up _ < /proc/uptime && [ ${up%.*} -lt 120 ]; do sleep 1; done";
    let tests = "target/debug/deps/packets --test-threads=1 --nocapture";
    let rows = format!("{old_enough}; {writing}{tests}{chosen}");
    let mut steps = vec![Step::new(FACTS, 120, "sh facts.sh")];
    let modes = SOCKETS.iter().flat_map(|lb| SOURCES.map(|snat| (*lb, snat)));
    let is_quick = |mode: &(&str, &str)| [("all", "bpf"), ("none", "netfilter")].contains(mode);
    for (lb, snat) in modes.filter(|mode| !options.quick || is_quick(mode)) {
        // An opt-out shows whether the kernel tells pods apart.
        let more = if lb == "all" { " --socket-lb-skip-pod-cidrs 10.244.9.0/24" } else { "" };
        let command = format!("sh mode.sh {lb} {snat}{more}");
        steps.push(Step::new(format!("{MODE}{lb}/{snat}"), 900, command));
    }
    steps.push(Step::new(ROWS, if options.all_rows { 7200 } else { 3600 }, rows));
    let lab = LAB_TESTS.iter().take(if options.quick { 1 } else { LAB_TESTS.len() });
    steps.extend(lab.map(|test| {
        let command = format!("target/debug/deps/cluster --test-threads=1 --exact {test}");
        Step::new(format!("{LAB}{test}"), 1800, command)
    }));
    steps
}

/// The programs that are tried: tests, and what they start.
struct Tests {
    packets: PathBuf,
    cluster: PathBuf,
    kproxy: PathBuf,
    lab: PathBuf,
}

/// A line of cargo's, as far as it matters.
#[derive(Deserialize)]
struct Artifact {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Tests {
    fn build() -> Result<Self> {
        let mut cargo = workspace::cargo();
        cargo.args(["test", "--no-run", "-p", "kproxy", "-p", "kproxy-lab"]);
        cargo.args(["--test", "packets", "--test", "cluster", "--message-format", "json"]);
        let output = cargo.stderr(std::process::Stdio::inherit()).output().context("run cargo")?;
        if !output.status.success() {
            bail!("the tests of packets and of the lab cannot be built");
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let artifacts = text.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
        let tests: Vec<(String, PathBuf)> = artifacts
            .filter_map(|artifact| Some((artifact.target?, artifact.executable?)))
            .filter(|(target, _)| target.kind.iter().any(|kind| kind == "test"))
            .map(|(target, path)| (target.name, path))
            .collect();
        let test = |name: &str| {
            let found = tests.iter().find(|(test, _)| test == name);
            found.map(|(_, path)| path.clone()).with_context(|| format!("cargo built no `{name}`"))
        };
        let packets = test("packets")?;
        let bins = packets.parent().and_then(|deps| deps.parent()).context("cargo's folder")?;
        let (kproxy, lab) = (bins.join("kproxy"), bins.join("kproxy-lab"));
        Ok(Self { cluster: test("cluster")?, packets, kproxy, lab })
    }

    /// Each where the lab looks for it.
    fn payload(&self) -> [(&Path, &'static str); 4] {
        [
            (&self.packets, "guest/target/debug/deps/packets"),
            (&self.cluster, "guest/target/debug/deps/cluster"),
            (&self.kproxy, "guest/target/debug/kproxy"),
            (&self.lab, "guest/target/debug/kproxy-lab"),
        ]
    }

    /// The figures of this machine's kernel.
    fn here(&self, options: &Options) -> Result<Outcome> {
        let mut command = Command::new(&self.packets);
        command.args(["--test-threads=1", "--nocapture", "budgets::", "stack::"]);
        if options.write_budgets {
            command.env("KPROXY_WRITE_BUDGETS", "1");
        }
        let text = run::answer(&mut command).with_context(|| {
            format!("the budgets of this machine's kernel: run `{}`", run::command_line(&command))
        })?;
        let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
        let mut numbers = release.split('.');
        let series = format!(
            "{}.{}",
            numbers.next().unwrap_or_default(),
            numbers.next().unwrap_or_default()
        );
        let mut outcome = Outcome { series, release, ..Outcome::default() };
        outcome.take_figures(&text);
        let programs = outcome.programs;
        say::line(format!("{}: {programs} programs within their budgets", outcome.release));
        Ok(outcome)
    }
}

/// A folder that goes when the command ends.
struct Work(PathBuf);

impl Work {
    fn new() -> Result<Self> {
        let all = fetch::folder()?;
        // What was killed has left its own.
        for entry in fs::read_dir(&all).with_context(|| all.display().to_string())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_over = |pid: &str| !Path::new("/proc").join(pid).exists();
            if name.strip_prefix("run-").is_some_and(is_over) {
                fs::remove_dir_all(entry.path()).with_context(|| format!("remove {name}"))?;
            }
        }
        let folder = all.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _is_cache = fs::remove_dir_all(&self.0);
    }
}
