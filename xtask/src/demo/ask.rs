//! Requests to each kind of Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use anyhow::{Context as _, Result};
use kproxy_lab::{Family, Lab, Outcome, Probe, Transport, Verdict};

use super::{objects::find, title::title};

/// Requests of each row.
const COUNT: u32 = 12;

/// Who asks whom.
enum To {
    ClusterIp,
    NodePort(&'static str),
    Outside,
    Loopback,
}

const ROWS: [(&str, &str, To, Transport); 10] = [
    ("n1/a", "web", To::ClusterIp, Transport::Tcp),
    ("n1", "web", To::ClusterIp, Transport::Tcp),
    ("n2/b", "dns", To::ClusterIp, Transport::UdpConnected),
    ("client", "shop", To::NodePort("n1"), Transport::Tcp),
    ("n2/b", "shop", To::NodePort("n1"), Transport::Tcp),
    ("n1", "shop", To::Loopback, Transport::Tcp),
    ("client", "local", To::NodePort("n1"), Transport::Tcp),
    ("client", "lb", To::Outside, Transport::Tcp),
    ("n1/a", "old", To::Outside, Transport::Tcp),
    ("client", "none", To::NodePort("n1"), Transport::Tcp),
];

/// Asks and prints the answers.
///
/// # Errors
/// When a request cannot be sent.
pub(super) fn table(lab: &Lab) -> Result<()> {
    title("Requests: who answers, and which client it sees");
    println!("{:<7} {:<6} {:<30} ANSWERS", "FROM", "TO", "DIALLED");
    for (from, service, to, transport) in &ROWS {
        for family in Family::ALL {
            let address = address(lab, service, to, family)?;
            let place = lab.place(from)?;
            let outcome = place.probe(Probe::new(*transport, address).count(COUNT))?;
            println!("{from:<7} {service:<6} {:<30} {}", address.to_string(), words(&outcome));
            if family == Family::V4 && outcome.answered() > 0 {
                println!("{:<45} {}", "", seen(&outcome));
            }
        }
    }
    Ok(())
}

/// Which client address each backend saw.
fn seen(outcome: &Outcome) -> String {
    let mut seen = BTreeMap::<&str, BTreeSet<String>>::new();
    for attempt in &outcome.attempts {
        let Verdict::Answered(answer) = &attempt.verdict else { continue };
        let client = answer.client.ip();
        let own = attempt.local.is_some_and(|local| local.ip().to_canonical() == client);
        let client = if own { "the client".to_owned() } else { client.to_string() };
        seen.entry(&answer.server).or_default().insert(client);
    }
    let clients: BTreeSet<&String> = seen.values().flatten().collect();
    if let ([client], true) = (clients.iter().collect::<Vec<_>>().as_slice(), seen.len() > 1) {
        return format!("all see {client}");
    }
    let words = seen.iter().map(|(server, clients)| {
        let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
        format!("{server} sees {}", clients.join(", "))
    });
    words.collect::<Vec<_>>().join(", ")
}

fn address(lab: &Lab, service: &str, to: &To, family: Family) -> Result<SocketAddr> {
    let example = find(service);
    let node_port = || example.node_port.context("a Service without a NodePort");
    let at = |ip: String, port: u16| {
        let ip = ip.parse().with_context(|| format!("no address: {ip}"))?;
        Ok(SocketAddr::new(ip, port))
    };
    match to {
        To::ClusterIp => at(example.cluster_ip(family), example.port),
        To::Outside => {
            at(example.outside(family).context("no address from outside")?, example.port)
        }
        To::NodePort(node) => Ok(lab.node(node).at(family, node_port()?)),
        To::Loopback => {
            at(if family == Family::V4 { "127.0.0.1" } else { "::1" }.into(), node_port()?)
        }
    }
}

/// `n1/a 4  n2/a 8`, `refused`.
fn words(outcome: &Outcome) -> String {
    let mut words: Vec<String> =
        outcome.servers().iter().map(|(server, count)| format!("{server} {count}")).collect();
    if outcome.refused() > 0 {
        words.push(format!("refused {}", outcome.refused()));
    }
    if outcome.timeouts() > 0 {
        words.push(format!("no answer {}", outcome.timeouts()));
    }
    for attempt in &outcome.attempts {
        if let Verdict::Failed(error) = &attempt.verdict {
            words.push(error.clone());
            break;
        }
    }
    words.join("  ")
}
