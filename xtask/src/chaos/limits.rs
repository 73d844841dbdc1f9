//! `cargo xtask chaos limits`: tables at their limits under load. What fits is served and loses nothing, what does not
//! is named by `kproxy status`, and a removal always succeeds.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kproxy_lab::{
    Family, Outcome, POD_PORT, Place, Probe,
    manifest::{Service, slices},
    poll_until,
};
use serde_json::{Value, json};

use super::{
    load::{self, Tally},
    stage::Stage,
};
use crate::{prepare, say, setup::Scope};

/// Options of `cargo xtask chaos limits`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How often endpoints come and go at each limit.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Eight times: whether the command works.
    #[arg(long, conflicts_with = "times")]
    quick: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// Services beside those under load: more than fit.
const SERVICES: usize = 40;
/// Clients with an address of their own, more than the affinity map has room for.
const CLIENTS: u8 = 64;
/// How long a change may need to be there.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);
/// How long an address is dialled that may be served by nobody.
const SILENCE: Duration = Duration::from_secs(1);
/// File of the manifests.
const FILE: &str = "many.yaml";
/// The pods that endpoints are taken from.
const PODS: [&str; 4] = ["n1/a", "n1/b", "n2/a", "n2/b"];

/// What is too small.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Services,
    Frontends,
    Slots,
    Affinity,
}

impl Limit {
    const ALL: [Self; 4] = [Self::Services, Self::Frontends, Self::Slots, Self::Affinity];

    /// With room for what is under load, and some more.
    const fn arguments(self) -> [&'static str; 2] {
        match self {
            Self::Services => ["--max-services", "32"],
            Self::Frontends => ["--max-frontends", "48"],
            Self::Slots => ["--max-slots", "48"],
            Self::Affinity => ["--max-affinity", "16"],
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arguments().join(" "))
    }
}

/// Does all of it, prints the figures.
///
/// # Errors
/// When the lab cannot be made, a request failed, a connection was lost, or a limit does not do what it should.
pub(super) fn run(options: &Options) -> Result<()> {
    prepare::programs(options.no_install, Scope::Manifests)?;
    kproxy_lab::clean_on_signals()?;
    let times = if options.quick { 8 } else { options.times };
    let (mut faults, mut all) = (0, Tally::default());
    for limit in Limit::ALL {
        say::heading(format!("{limit}, {times} changes"));
        let started = Instant::now();
        let stage = Stage::new(&limit.arguments())?;
        let standing = load::stand(&stage)?;
        let (done, mut tally) = load::under(&stage, |_| match limit {
            Limit::Affinity => affinity(&stage),
            _ => services(&stage, times),
        })?;
        tally.end(standing)?;
        say::line(format!("{tally} ({})", say::duration(started.elapsed())));
        faults += done;
        all = all.and(tally);
    }
    println!("\n{all}");
    all.conclude(faults)
}

/// More Services than fit: come, change and go. How many changes there were.
fn services(stage: &Stage, times: u32) -> Result<usize> {
    write(stage, |_| &PODS[..1])?;
    let waiting = || waiting(stage);
    // Those that wait are known once nothing is added to them any more.
    let mut before = BTreeSet::new();
    let settled = || {
        let now = waiting()?;
        let is_same = !now.is_empty() && now == before;
        before.clone_from(&now);
        Ok(is_same)
    };
    ensure!(
        poll_until(PATIENCE, PAUSE * 10, settled, |is_same| *is_same)?,
        "no Service is named as waiting"
    );
    let waiting_now = waiting()?;
    let pod = stage.pod()?;
    let served: Vec<_> = all().filter(|service| !waiting_now.contains(service)).collect();
    for &(number, family) in &served {
        let outcome = dial(&pod, cluster_ip(number, family)?)?;
        ensure!(outcome.all_answered(), "{} is not named: {outcome}", name(number));
    }
    let (count, of) = (served.len(), all().count());
    ensure!(count > 0 && count < of, "{count} of {of} are served");
    say::line(format!(
        "of {SERVICES} Services of two families {count} of {of} fit, {} are named",
        waiting_now.len()
    ));

    // Endpoints come, if there is room for them, and go in any case.
    let (number, family) = served[0];
    for time in 0..times {
        let pods: Vec<_> =
            PODS.into_iter().cycle().skip(time as usize % 4).take(time as usize % 3 + 1).collect();
        write(stage, |other| if other == number { &pods[..] } else { &PODS[..1] })?;
        let wanted: BTreeSet<&str> = pods.iter().copied().collect();
        let to = cluster_ip(number, family)?;
        let is_right =
            |outcome: &Outcome| outcome.all_answered() && outcome.server_set().is_subset(&wanted);
        let outcome = poll_until(PATIENCE, PAUSE, || dial(&pod, to), is_right)?;
        ensure!(is_right(&outcome), "change {time}: {outcome} instead of {wanted:?}");
    }
    stage.remove(FILE)?;
    let is_over = || stage.status().map(|status| status["in_order"] == true);
    ensure!(
        poll_until(PATIENCE, PAUSE, is_over, |is_over| *is_over)?,
        "Services are gone: {}",
        stage.status()?
    );
    // There is room again.
    stage.write(FILE, objects(stage, SERVICES - 1, &PODS)?)?;
    for family in Family::ALL {
        let to = cluster_ip(SERVICES - 1, family)?;
        let outcome = poll_until(PATIENCE, PAUSE, || dial(&pod, to), Outcome::all_answered)?;
        ensure!(outcome.all_answered(), "there is room again: {outcome}");
    }
    Ok(SERVICES + times as usize)
}

/// More clients than the map has room for, over and over. How many there were.
fn affinity(stage: &Stage) -> Result<usize> {
    let client = stage.client();
    let spec = json!({"sessionAffinity": "ClientIP", "type": "NodePort"});
    let service = service(0).node_port(NODE_PORT).spec(spec);
    stage.write(FILE, with_slices(stage, service, 0, &PODS)?)?;
    let to = stage.node_port(Family::V4, NODE_PORT);
    client.probe_until(&Probe::tcp(to).timeout(SILENCE), Outcome::all_answered)?;
    let sources: Vec<IpAddr> =
        (0..CLIENTS).map(|number| [192, 0, 2, 100 + number].into()).collect();
    for ip in &sources {
        client.run("ip", &["address", "add", &format!("{ip}/24"), "dev", "eth0"])?;
    }
    for _ in 0..2 {
        for ip in &sources {
            let outcome = client.probe(Probe::tcp(to).from(SocketAddr::new(*ip, 0)).count(2))?;
            ensure!(outcome.all_answered(), "from {ip}: {outcome}");
        }
    }
    stage.remove(FILE)?;
    Ok(2 * sources.len())
}

/// NodePort of the Service with session affinity.
const NODE_PORT: u16 = 30_099;

/// Writes all of the Services; `pods`: where the endpoints of each are.
fn write<'a>(stage: &Stage, pods: impl Fn(usize) -> &'a [&'a str]) -> Result<()> {
    let all = (0..SERVICES).map(|number| objects(stage, number, pods(number)));
    stage.write(FILE, all.collect::<Result<Vec<_>>>()?.concat())
}

/// All Services, in both families.
fn all() -> impl Iterator<Item = (usize, Family)> {
    (0..SERVICES).flat_map(|number| Family::ALL.map(|family| (number, family)))
}

/// Services and families that `kproxy status` has a problem with.
fn waiting(stage: &Stage) -> Result<BTreeSet<(usize, Family)>> {
    let status = stage.status()?;
    let problems = status["problems"].as_array().context("read the problems")?;
    let is_named = |number: usize, family: Family| {
        let object = format!("Service default/{}", name(number));
        let family = match family {
            Family::V4 => "over IPv4: ",
            Family::V6 => "over IPv6: ",
        };
        problems.iter().any(|problem| {
            problem["object"] == *object
                && problem["what"].as_str().is_some_and(|what| what.contains(family))
        })
    };
    Ok(all().filter(|&(number, family)| is_named(number, family)).collect())
}

fn dial(from: &Place, to: SocketAddr) -> Result<Outcome> {
    from.probe(Probe::tcp(to).count(4).timeout(SILENCE))
}

fn name(number: usize) -> String {
    format!("many-{number:02}")
}

fn ip(number: usize, family: Family) -> String {
    match family {
        Family::V4 => format!("10.96.1.{number}"),
        Family::V6 => format!("fd00:10:96::1:{number}"),
    }
}

fn cluster_ip(number: usize, family: Family) -> Result<SocketAddr> {
    Ok(SocketAddr::new(ip(number, family).parse().context("read a ClusterIP")?, 80))
}

fn service(number: usize) -> Service {
    let [v4, v6] = Family::ALL.map(|family| ip(number, family));
    Service::new(&name(number)).cluster_ips(&v4, &v6).port("main", "TCP", 80, POD_PORT)
}

fn objects(stage: &Stage, number: usize, pods: &[&str]) -> Result<Vec<Value>> {
    with_slices(stage, service(number), number, pods)
}

fn with_slices(
    stage: &Stage,
    service: Service,
    number: usize,
    pods: &[&str],
) -> Result<Vec<Value>> {
    let places = pods.iter().map(|pod| stage.place(pod)).collect::<Result<Vec<_>>>()?;
    let places: Vec<&Place> = places.iter().map(AsRef::as_ref).collect();
    let slices = slices(&name(number), "main", "TCP", POD_PORT, &places);
    Ok([service.into()].into_iter().chain(slices.map(Value::from)).collect())
}
