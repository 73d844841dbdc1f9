//! Plays the cases of the same settings on one proxy, some side by side.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::Result;
use kproxy_lab::{Lab, Network};
use parking_lot::Mutex;

use super::{
    case::Case, expected::Who, settings::Settings, sight::Sight, stage::Stage, world::World,
};
use crate::say;

/// Cases played side by side: they mostly wait.
const SIDE_BY_SIDE: usize = 6;

/// What the cases saw, by the case's name.
pub(super) type Sights = BTreeMap<String, Vec<Sight>>;

/// Plays cases of the same settings on one proxy.
///
/// # Errors
/// When the proxies' traces cannot be removed. Proxies that do not start are what the cases saw.
pub(super) fn play(lab: &Lab, who: Who, settings: &Settings, cases: &[&Case]) -> Result<Sights> {
    let mut world = World::new(lab, who);
    let sights = match world.start(settings) {
        Ok(()) => play_all(&world, cases),
        Err(error) => {
            say::line(format!("{who} did not start: {error:#}"));
            let sight = Sight::failure("start", &error.root_cause().to_string());
            cases.iter().map(|case| (case.name.clone(), vec![sight.clone()])).collect()
        }
    };
    world.proxies.iter().try_for_each(|proxy| proxy.remove())?;
    Ok(sights)
}

fn play_all(world: &World<'_>, cases: &[&Case]) -> Sights {
    let (alone, together): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|c| c.alone);
    let all = Mutex::new(Sights::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(case) = together.get(next.fetch_add(1, Ordering::Relaxed)) {
                    play_one(world, case, &all);
                }
            });
        }
    });
    for case in alone {
        play_one(world, case, &all);
    }
    all.into_inner()
}

fn play_one(world: &World<'_>, case: &Case, all: &Mutex<Sights>) {
    let started = Instant::now();
    let mut sights = Stage::new(world).play(case);
    if world.lab.network() != Network::Bridge {
        sights = sights.into_iter().map(Sight::on_another_network).collect();
    }
    let good = sights.iter().filter(|sight| sight.is_expected()).count();
    let took = started.elapsed().as_secs_f32();
    say::line(format!("{:<7} {good} of {} as expected ({took:.1} s)", case.name, sights.len()));
    for sight in sights.iter().filter(|sight| !sight.is_expected()) {
        say::line(format!("        {}: {}", sight.probe, sight.seen));
        say::line(format!("        expected: {}", sight.expected));
    }
    all.lock().insert(case.name.clone(), sights);
}
