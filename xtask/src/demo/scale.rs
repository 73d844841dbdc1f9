//! A Service is scaled while clients ask it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use kproxy_lab::{Attempt, Family, Lab, Probe, Verdict};

use super::{
    objects::{find, write_scaled},
    title::title,
};

/// The Service that is scaled.
const SERVICE: &str = "shop";
/// Its endpoints, one step after the other.
const STEPS: [&[&str]; 4] = [&["n1/a", "n2/a"], &["n1/a", "n1/b", "n2/a", "n2/b"], &[], &["n2/b"]];
/// How long each step lasts.
const STEP: Duration = Duration::from_millis(1000);
/// Pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(10);
/// Widest bar, in columns.
const BAR: usize = 40;

/// Scales and prints what the clients saw.
///
/// # Errors
/// When a request cannot be sent or a manifest not written.
pub(super) fn show(lab: &Lab) -> Result<()> {
    title("Scaling `shop` while clients ask it 100 times a second");
    let example = find(SERVICE);
    let inside = format!("{}:{}", example.cluster_ip(Family::V4), example.port);
    let inside: SocketAddr = inside.parse()?;
    let outside = lab.node("n1").at(Family::V4, example.node_port.unwrap_or_default());
    let (steps, seen) = thread::scope(|scope| {
        let clients = [("n1/b", inside), ("client", outside)]
            .map(|(from, to)| scope.spawn(move || ask(lab, from, to)));
        let steps = scale(lab);
        let seen = clients.map(|client| {
            client.join().map_err(|_panic| anyhow!("a client of the demo panicked"))?
        });
        (steps, seen)
    });
    let steps = steps?;
    let [from_pod, from_outside] = seen;
    for (who, requests) in [
        ("A pod, over the ClusterIP", from_pod?),
        ("The client outside, over the NodePort", from_outside?),
    ] {
        println!("\n{who}:");
        for (number, endpoints) in STEPS.iter().enumerate() {
            let (from, to) = (steps[number], steps[number + 1]);
            print_step(endpoints, from, requests.iter().filter(|(at, _)| (from..to).contains(at)));
        }
    }
    println!("\nOne round robin serves both.");
    Ok(())
}

/// Asks during all steps; each request with the time of its end.
fn ask(lab: &Lab, from: &str, to: SocketAddr) -> Result<Vec<(Instant, Attempt)>> {
    let steps = u32::try_from(STEPS.len())?;
    let all = STEP * steps;
    let count = u32::try_from(all.as_millis() / PAUSE.as_millis())?;
    let probe = Probe::tcp(to).count(count).pause(PAUSE).timeout(Duration::from_millis(500));
    let mut at = Instant::now();
    let outcome = lab.place(from)?.probe(probe)?;
    let timed = outcome.attempts.into_iter().map(|attempt| {
        at += attempt.elapsed + PAUSE;
        (at - PAUSE, attempt)
    });
    Ok(timed.collect())
}

/// Writes one step's manifests after the other; when each began, and the end.
fn scale(lab: &Lab) -> Result<Vec<Instant>> {
    let mut steps = Vec::new();
    for endpoints in STEPS {
        steps.push(Instant::now());
        write_scaled(lab, SERVICE, endpoints)?;
        thread::sleep(STEP);
    }
    steps.push(Instant::now());
    Ok(steps)
}

fn print_step<'a>(
    endpoints: &[&str],
    from: Instant,
    requests: impl Iterator<Item = &'a (Instant, Attempt)>,
) {
    let mut counts = BTreeMap::<String, usize>::new();
    let mut first = None;
    for (at, attempt) in requests {
        let who = match &attempt.verdict {
            Verdict::Answered(answer) => answer.server.clone(),
            Verdict::Refused => "refused".to_owned(),
            Verdict::Timeout => "no answer".to_owned(),
            Verdict::Failed(error) => error.clone(),
        };
        let expected =
            endpoints.contains(&who.as_str()) || (endpoints.is_empty() && who == "refused");
        // Until the change is there, answers are those of the step before.
        if first.is_none() && !expected {
            continue;
        }
        first.get_or_insert(*at);
        *counts.entry(who).or_default() += 1;
    }
    let seen = first.map(|at| format!("first seen after {} ms", (at - from).as_millis()));
    let plural = if endpoints.len() == 1 { "" } else { "s" };
    let seen = seen.unwrap_or_else(|| "never seen".into());
    println!("  {} endpoint{plural} ({seen})", endpoints.len());
    let total: usize = counts.values().sum();
    for (who, count) in &counts {
        println!("    {who:<10} {count:>4} {}", "█".repeat(count * BAR / total.max(1)));
    }
}
