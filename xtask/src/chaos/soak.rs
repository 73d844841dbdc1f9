//! `cargo xtask chaos soak`: for a long time Services come and go, endpoints change, the API server has its troubles and a
//! daemon is killed now and then, while clients connect and connections stand. What one daemon uses is sampled.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::SignedDuration;
use kproxy_lab::Fault;

use super::{
    control::{Trouble, Troubled},
    footprint::Footprint,
    load::{self, Tally},
};
use crate::{prepare, say, setup::Scope, stats};

/// Options of `cargo xtask chaos soak`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How long: `1h`, `10m`.
    #[arg(long, default_value = "1h", value_parser = time)]
    time: Duration,
    /// Two minutes: whether the command works, not whether kproxy holds.
    #[arg(long, conflicts_with = "time")]
    quick: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// Time between two samples, and between two rounds of changes.
const SAMPLE: Duration = Duration::from_secs(2);
/// Rounds between two troubles of the API server, and between two kills of the daemon that is not sampled.
const TROUBLE: u32 = 10;
const KILL: u32 = 25;
/// How long a trouble lasts.
const LASTS: Duration = Duration::from_secs(3);
/// Endpoints that change in a round.
const CHANGES: u32 = 20;
/// Memory of the last quarter may be so much more than that of the second: a part of it, or KiB.
const GROWTH: f64 = 0.03;
const LITTLE: f64 = 512.0;

fn time(text: &str) -> Result<Duration, String> {
    let time: SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    let time = Duration::try_from(time).map_err(|error| format!("{error}"))?;
    if time < Duration::from_secs(60) { Err("at least 1m".to_owned()) } else { Ok(time) }
}

/// Goes on for the time, prints the figures.
///
/// # Errors
/// When the lab cannot be made, a request failed, a connection was lost, a change did not arrive, or the daemon's
/// memory, files, threads or pins have grown.
pub(super) fn run(options: &Options) -> Result<()> {
    prepare::programs(options.no_install, Scope::All)?;
    kproxy_lab::clean_on_signals()?;
    let time = if options.quick { Duration::from_secs(120) } else { options.time };
    let troubled = Troubled::new()?;
    let stage = &troubled.stage;
    say::heading(format!("{} of churn", say::duration(time)));
    let standing = load::stand(stage)?;
    let ((faults, samples), mut tally): (_, Tally) =
        load::under(stage, |_| churn(&troubled, time))?;
    tally.end(standing)?;
    let verdict = judge(&samples)?;
    println!("\n{faults} faults in {}: {tally}", say::duration(time));
    println!("{verdict}");
    tally.conclude(faults)
}

/// Lets things change; how many faults there were, and what was sampled.
fn churn(troubled: &Troubled, time: Duration) -> Result<(usize, Vec<(Duration, Footprint)>)> {
    let troubles = [
        Fault::Refuse(429),
        Fault::Expire,
        Fault::Cut,
        Fault::Truncate,
        Fault::Slow(Duration::from_secs(1)),
        Fault::Refuse(503),
    ];
    let mut troubles = troubles.into_iter().map(Trouble::Relay).chain([Trouble::Killed]).cycle();
    let (started, mut samples, mut faults) = (Instant::now(), Vec::new(), 0);
    for number in 0.. {
        if started.elapsed() >= time {
            break;
        }
        let turn = usize::try_from(number)?;
        let what = || format!("round {number}");
        // Each is away for one round.
        let filler = u16::try_from(number / 2 % 100)?;
        troubled.toggle_filler(filler, number % 2 == 0).with_context(what)?;
        troubled.burst_elsewhere(CHANGES, filler).with_context(what)?;
        let trouble = troubles.next().filter(|_| number % TROUBLE == TROUBLE - 1);
        match trouble {
            Some(trouble) => {
                troubled
                    .once(&trouble, LASTS, turn)
                    .with_context(|| format!("{}, {trouble}", what()))?;
                faults += 1;
            }
            None => drop(troubled.move_on(turn).with_context(what)?),
        }
        if number % KILL == KILL - 1 {
            let proxy = &troubled.stage.proxies()[1];
            proxy.kill()?;
            proxy.start()?;
            faults += 1;
        }
        let sampled = &troubled.stage.proxies()[0];
        let footprint = Footprint::of(troubled.stage.lab(), sampled)?;
        if number % 50 == 0 {
            say::line(format!("{}: {footprint}", say::duration(started.elapsed())));
        }
        samples.push((started.elapsed(), footprint));
        sleep(SAMPLE);
    }
    Ok((faults, samples))
}

/// Whether nothing has grown from the second quarter to the last.
fn judge(samples: &[(Duration, Footprint)]) -> Result<String> {
    let quarter = samples.len() / 4;
    ensure!(quarter > 0, "only {} samples", samples.len());
    let (second, last) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
    let median = |part: &[(Duration, Footprint)], of: fn(&Footprint) -> f64| {
        let values: Vec<f64> = part.iter().map(|(_, footprint)| of(footprint)).collect();
        stats::median(&values).unwrap_or_default()
    };
    let both = |of| [median(second, of), median(last, of)];
    let [before, after] = both(|footprint| footprint.memory as f64);
    let slope = slope(&samples[quarter..]);
    let verdict = format!(
        "memory of a daemon: {before:.0} KiB in the second quarter, {after:.0} KiB in the last \
         ({:+.1} %), {slope:+.0} KiB an hour by the line through all but the first; {} samples; at last {}",
        (after / before - 1.0) * 100.0,
        samples.len(),
        samples[samples.len() - 1].1,
    );
    let most = before + (before * GROWTH).max(LITTLE);
    ensure!(after <= most, "grown: {verdict}");
    for (what, of) in [
        ("files", (|footprint| footprint.files as f64) as fn(&Footprint) -> f64),
        ("files of BPF", |footprint| footprint.bpf as f64),
        ("threads", |footprint| footprint.threads as f64),
        ("pins", |footprint| footprint.pins as f64),
    ] {
        let [before, after] = both(of);
        // A connection to the API server or a pod's namespace may be open at the moment.
        ensure!(after <= before + 2.0, "{what}: {before}, then {after}; {verdict}");
    }
    Ok(verdict)
}

/// KiB an hour of the straight line with the least squares.
fn slope(samples: &[(Duration, Footprint)]) -> f64 {
    let points =
        samples.iter().map(|(at, footprint)| (at.as_secs_f64() / 3600.0, footprint.memory as f64));
    let count = samples.len() as f64;
    let (x, y) = points.clone().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let (above, below) = points.fold((0.0, 0.0), |(above, below), point| {
        (above + (point.0 - x) * (point.1 - y), below + (point.0 - x).powi(2))
    });
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory: fn(u64) -> u64, files: fn(u64) -> usize) -> Vec<(Duration, Footprint)> {
        let of = |number| Footprint {
            memory: memory(number),
            files: files(number),
            bpf: 20,
            threads: 3,
            pins: 30,
        };
        (0..400).map(|number| (Duration::from_secs(9 * number), of(number))).collect()
    }

    #[test]
    fn growth_is_seen_and_a_ripple_is_none() {
        let flat = samples(|number| 20_000 + number % 7 * 50, |number| 40 + (number % 2) as usize);
        let verdict = judge(&flat).unwrap();
        assert!(verdict.contains("20150 KiB in the second quarter, 20150"), "{verdict}");
        // Until everything is there once.
        judge(&samples(|number| 20_000.min(10_000 + number * 200), |_| 40)).unwrap();
        let grows = judge(&samples(|number| 20_000 + number * 10, |_| 40)).unwrap_err();
        assert!(grows.to_string().contains("+4000 KiB an hour"), "{grows}");
        let leaks = judge(&samples(|_| 20_000, |number| 40 + number as usize / 10)).unwrap_err();
        assert!(leaks.to_string().contains("files"), "{leaks}");
        assert!(judge(&flat[..3]).is_err());
    }

    #[test]
    fn times_are_read() {
        assert_eq!(time("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(time("10m"), Ok(Duration::from_secs(600)));
        assert!(time("5s").is_err() && time("-1h").is_err() && time("soon").is_err());
    }
}
