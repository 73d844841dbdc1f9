//! `cargo xtask chaos control`: all that may be wrong with the API server, one after the other, while clients connect,
//! connections stand and a Service changes.

use std::{
    fmt,
    net::SocketAddr,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use kproxy_lab::{ControlPlane, Fault, Proxy, Relay, manifest, poll_until};
use serde_json::json;

use super::{
    footprint::Footprint,
    load::{self, Tally},
    stage::{Stage, filler},
};
use crate::{prepare, say, setup::Scope};

/// Options of `cargo xtask chaos control`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How often everything happens.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Once, and in short: whether the command works, not whether kproxy holds.
    #[arg(long, conflicts_with = "times")]
    quick: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// Services that nobody dials: what is written anew for no reason shows by them.
const FILLERS: u16 = 100;
/// Map changes that one change of endpoints needs at most. To write everything takes more than a thousand.
const WRITES: u64 = 60;
/// How long a change may need once the API server is well again: the watches ask again every 30 s at most.
const ARRIVES: Duration = Duration::from_secs(60);
/// Within which silence is told.
const TOLD: Duration = Duration::from_secs(45);
/// Changes of the burst.
const BURST: u32 = 10_000;

/// What happens to the API server, or to what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// The relay breaks what passes.
    Relay(Fault),
    /// The API server hangs: its connections stand.
    Hangs,
    /// It is killed and comes back.
    Killed,
    /// It comes back with an older store.
    Older,
    /// Watches list again, and nothing is new.
    ListedAgain,
    /// So many changes of one Service's endpoints as fast as the API server takes them.
    Burst(u32),
    /// The Nodes go, and come later.
    NoNode,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(Fault::Refuse(code)) => write!(f, "refuses with {code}"),
            Self::Relay(Fault::Expire) => f.write_str("watches expire (410)"),
            Self::Relay(Fault::Slow(time)) => write!(f, "{} later", say::duration(*time)),
            Self::Relay(Fault::Silent) => f.write_str("silent"),
            Self::Relay(Fault::Cut) => f.write_str("connections cut"),
            Self::Relay(Fault::Truncate) => f.write_str("JSON ends early"),
            Self::Relay(Fault::Garble) => f.write_str("a page of HTML"),
            Self::Relay(Fault::Spoil(_)) => f.write_str("undecodable object"),
            Self::Relay(Fault::None) => f.write_str("nothing"),
            Self::Hangs => f.write_str("hangs"),
            Self::Killed => f.write_str("killed and started"),
            Self::Older => f.write_str("back with an older store"),
            Self::ListedAgain => f.write_str("lists without news"),
            Self::Burst(count) => write!(f, "{count} changes at once"),
            Self::NoNode => f.write_str("Nodes gone and late"),
        }
    }
}

impl Trouble {
    fn all() -> Vec<Self> {
        let relay = [
            Fault::Refuse(429),
            Fault::Refuse(503),
            Fault::Refuse(410),
            Fault::Expire,
            Fault::Slow(Duration::from_secs(3)),
            Fault::Cut,
            Fault::Truncate,
            Fault::Garble,
            Fault::Spoil("extra-v4".to_owned()),
            Fault::Silent,
        ];
        let others = [Self::Hangs, Self::Killed, Self::Older, Self::ListedAgain, Self::NoNode];
        relay.into_iter().map(Self::Relay).chain(others).collect()
    }

    /// Whether nothing comes for so long that it has to be told.
    fn is_silence(&self) -> bool {
        matches!(self, Self::Relay(Fault::Silent) | Self::Hangs)
    }
}

/// A cluster in trouble.
pub(super) struct Troubled {
    pub(super) stage: Stage,
    relay: Relay,
}

/// Where the Service that moves can be.
const PLACES: [&str; 2] = ["n2/a", "n1/a"];

impl Troubled {
    pub(super) fn new() -> Result<Self> {
        let (stage, relay) = Stage::behind_relay(FILLERS)?;
        let troubled = Self { stage, relay };
        troubled.stage.extra_is_at("n2/a", ARRIVES)?;
        Ok(troubled)
    }

    pub(super) fn control(&self) -> Result<&ControlPlane> {
        self.stage.lab().control()
    }

    /// Lets it happen for so long, moves a Service meanwhile to the place of this number, and waits until that has
    /// arrived; how long this took once all was well.
    pub(super) fn once(
        &self,
        trouble: &Trouble,
        time: Duration,
        number: usize,
    ) -> Result<Duration> {
        let place = PLACES[number % 2];
        let control = self.control()?;
        match trouble {
            Trouble::Relay(fault) => {
                self.relay.set(fault.clone());
                self.stage.move_extra(place)?;
                self.wait(trouble, time)?;
                self.relay.set(Fault::None);
                if matches!(fault, Fault::Spoil(_)) {
                    // Until then it is as it was.
                    let before = PLACES[(number + 1) % 2];
                    self.stage.extra_v4_is_at(before, Duration::from_secs(1))?;
                    let mended =
                        json!({"metadata": {"annotations": {"mended": number.to_string()}}});
                    control.api().patch("EndpointSlice", "default", "extra-v4", mended)?;
                }
            }
            Trouble::Hangs => {
                control.hang_api_server()?;
                self.wait(trouble, time)?;
                control.continue_api_server()?;
                self.stage.move_extra(place)?;
            }
            Trouble::Killed => {
                control.stop_api_server()?;
                sleep(time);
                control.start_api_server()?;
                self.stage.move_extra(place)?;
            }
            Trouble::Older => {
                // There, then away, and back by the older store.
                self.stage.move_extra(place)?;
                self.stage.extra_is_at(place, ARRIVES)?;
                control.save_store()?;
                self.burst(100)?;
                self.stage.move_extra(PLACES[(number + 1) % 2])?;
                self.stage.extra_is_at(PLACES[(number + 1) % 2], ARRIVES)?;
                control.restore_store()?;
            }
            Trouble::ListedAgain => {
                let before = self.writes()?;
                let lists = self.relay.lists();
                self.relay.set(Fault::Expire);
                // Those of both nodes: Services, EndpointSlices, ServiceCIDRs, the Node.
                let is_listed = || Ok(self.relay.lists() >= lists + 8);
                poll_until(ARRIVES, Duration::from_millis(50), is_listed, |is_listed| *is_listed)?;
                self.relay.set(Fault::None);
                sleep(Duration::from_secs(2));
                let (after, lists) = (self.writes()?, self.relay.lists() - lists);
                ensure!(after == before, "{} map changes by {lists} lists", after - before);
                self.stage.move_extra(place)?;
            }
            Trouble::Burst(count) => {
                self.burst(*count)?;
                self.stage.move_extra(place)?;
            }
            Trouble::NoNode => {
                for node in self.stage.lab().nodes() {
                    control.api().delete("Node", "", &node)?;
                }
                self.stage.move_extra(place)?;
                self.stage.extra_is_at(place, ARRIVES)?;
                for node in self.stage.lab().nodes() {
                    control.api().apply_object(manifest::node(&self.stage.lab().node(&node)))?;
                }
            }
        }
        let late = self.stage.extra_is_at(place, ARRIVES)?;
        self.silence_is_told(false)?;
        Ok(late)
    }

    /// Waits for so long; where silence is to be told until it is.
    fn wait(&self, trouble: &Trouble, time: Duration) -> Result<()> {
        if trouble.is_silence() {
            return self.silence_is_told(true);
        }
        sleep(time);
        Ok(())
    }

    /// Waits until both daemons tell of silence, or of none.
    fn silence_is_told(&self, is_silent: bool) -> Result<()> {
        let all_say_so = || {
            let says = |proxy: &Proxy| -> Result<bool> {
                Ok((self.metric(proxy, "kproxy_view_stale_since_seconds")? > 0) == is_silent)
            };
            let said = self.stage.proxies().iter().map(|proxy| says(proxy));
            Ok(!said.collect::<Result<Vec<bool>>>()?.contains(&false))
        };
        let in_time = poll_until(TOLD, Duration::from_millis(500), all_say_so, |so| *so)?;
        ensure!(in_time, "within {TOLD:?} it is not told that silence is {is_silent}");
        Ok(())
    }

    /// Moves a Service to the place of this number; how long that took.
    pub(super) fn move_on(&self, number: usize) -> Result<Duration> {
        let place = PLACES[number % 2];
        self.stage.move_extra(place)?;
        self.stage.extra_is_at(place, ARRIVES)
    }

    /// Changes endpoints of Services that nobody dials, from several sides at once.
    fn burst(&self, changes: u32) -> Result<()> {
        self.burst_elsewhere(changes, FILLERS)
    }

    /// As [`Self::burst`], but not those of one of the Services.
    pub(super) fn burst_elsewhere(&self, changes: u32, but: u16) -> Result<()> {
        const SIDES: u32 = 4;
        let api = self.control()?.api();
        let side = |side: u32| -> Result<()> {
            for number in (side..changes).step_by(SIDES as usize) {
                let filler = number % u32::from(FILLERS);
                if filler == u32::from(but) {
                    continue;
                }
                let name = format!("filler-{filler}-v4");
                let ip = format!("192.0.2.{}", 1 + number / u32::from(FILLERS) % 250);
                let endpoint = json!({"addresses": [ip], "conditions": {"ready": true}});
                api.patch("EndpointSlice", "default", &name, json!({"endpoints": [endpoint]}))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let sides: Vec<_> =
                (0..SIDES).map(|number| scope.spawn(move || side(number))).collect();
            sides.into_iter().try_for_each(|side| {
                side.join().map_err(|_panic| anyhow!("a side of the burst panicked"))?
            })
        })
    }

    /// Takes a Service that nobody dials away, or puts it back.
    pub(super) fn toggle_filler(&self, number: u16, is_there: bool) -> Result<()> {
        let api = self.control()?.api();
        for object in filler(self.stage.lab(), number % FILLERS, 1)? {
            if is_there {
                let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
                let text =
                    |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                api.delete(&text(kind), "default", &text(name))?;
            } else {
                api.apply_object(object)?;
            }
        }
        Ok(())
    }

    /// Map changes of both daemons since they started.
    fn writes(&self) -> Result<u64> {
        let proxies = self.stage.proxies().iter();
        proxies.map(|proxy| self.metric(proxy, "kproxy_map_writes_total")).sum()
    }

    fn metric(&self, proxy: &Proxy, name: &str) -> Result<u64> {
        let address = SocketAddr::from(([127, 0, 0, 1], 10_249));
        let metrics = self.stage.lab().node(proxy.node()).http_get(address, "/metrics")?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse().ok())
            .with_context(|| format!("no {name} of {}", proxy.node()))
    }

    /// Starts the daemons again: what they find in the maps is what a new plan says.
    pub(super) fn equals_a_new_plan(&self) -> Result<()> {
        for proxy in self.stage.proxies() {
            proxy.kill()?;
            proxy.start()?;
            let log = proxy.log();
            ensure!(log.contains("writes=0"), "{} has written: {log}", proxy.node());
        }
        Ok(())
    }

    pub(super) fn footprints(&self) -> Result<Vec<Footprint>> {
        let proxies = self.stage.proxies().iter();
        proxies.map(|proxy| Footprint::of(self.stage.lab(), proxy)).collect()
    }
}

/// Lets everything happen, prints the figures.
///
/// # Errors
/// When the lab cannot be made, a request failed, a connection was lost, a change did not arrive, or the maps are not
/// what they should be.
pub(super) fn run(options: &Options) -> Result<()> {
    prepare::programs(options.no_install, Scope::All)?;
    kproxy_lab::clean_on_signals()?;
    let times = if options.quick { 1 } else { options.times };
    let time = Duration::from_secs(if options.quick { 2 } else { 10 });
    let burst = if options.quick { BURST / 10 } else { BURST };
    let troubled = Troubled::new()?;
    let stage = &troubled.stage;
    say::heading(format!("{times} times all that may be wrong with the API server"));
    let standing = load::stand(stage)?;
    let started = Instant::now();
    let (faults, mut tally): (usize, Tally) = load::under(stage, |_| {
        let mut faults = 0;
        for number in 0..times {
            let before = troubled.footprints()?;
            for trouble in Trouble::all().into_iter().chain([Trouble::Burst(burst)]) {
                faults += 1;
                let what = || format!("time {number}, {trouble}");
                let (began, writes) = (Instant::now(), troubled.writes().with_context(what)?);
                let arrived = troubled.once(&trouble, time, faults).with_context(what)?;
                let writes = troubled.writes().with_context(what)? - writes;
                let took = say::duration(began.elapsed());
                say::line(format!("{trouble}: {writes} map changes, {arrived:.1?} late ({took})"));
                let is_small = !matches!(trouble, Trouble::Burst(_) | Trouble::Older);
                ensure!(!is_small || writes <= WRITES, "{}: {writes} map changes", what());
            }
            for (before, after) in before.iter().zip(troubled.footprints()?) {
                say::line(format!("daemon: {before}; afterwards: {after}"));
            }
            troubled.equals_a_new_plan()?;
        }
        Ok(faults)
    })?;
    tally.end(standing)?;
    println!("\n{faults} faults in {}: {tally}", say::duration(started.elapsed()));
    tally.conclude(faults)
}
