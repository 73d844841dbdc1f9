//! What must hold on every network.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use kproxy_lab::{Family, Hold, HoldReport, Probe, Transport, poll_until};

use crate::case::Web;
use crate::stage::{Stage, TRANSPORTS, at};
use crate::{large, policy};

/// A behaviour.
type Case = fn(&Stage) -> Result<()>;

/// All of them by name, in the order in which they run.
pub(crate) const CASES: [(&str, Case); 15] = [
    ("pods_dial_services", pods_dial_services),
    ("virtual_machines_dial_services", virtual_machines_dial_services),
    ("a_virtual_machine_dials_itself", a_virtual_machine_dials_itself),
    ("hosts_dial_services", hosts_dial_services),
    ("outside_dials_node_ports", outside_dials_node_ports),
    ("outside_dials_cluster_ips", outside_dials_cluster_ips),
    ("large_transfers", large::transfers),
    ("datagrams_as_large_as_the_way_allows", large::datagrams),
    ("datagrams_in_fragments", large::fragments),
    ("fragments_in_the_wrong_order", large::reversed),
    ("refusals", refusals),
    ("external_policy_local", external_policy_local),
    ("policies_of_pods_are_enforced", policy::enforced),
    ("connections_last", connections_last),
    ("kproxy_is_in_order", kproxy_is_in_order),
];

/// Enough requests for both backends to be among the answers.
const ENOUGH: u32 = 8;

fn pods_dial_services(stage: &Stage) -> Result<()> {
    dial_services(stage, &["n1/a", "n1/b", "n2/b"])
}

/// Their packets are translated at the node's end of their link.
fn virtual_machines_dial_services(stage: &Stage) -> Result<()> {
    dial_services(stage, &["n1/vm", "n2/vm"])
}

fn dial_services(stage: &Stage, from: &[&str]) -> Result<()> {
    for pod in from {
        let pod = stage.lab.place(pod)?;
        for to in Web::Both.vips() {
            for transport in TRANSPORTS {
                let probe = Probe::new(transport, to).count(ENOUGH);
                let outcome = stage.answered(&pod, probe, Web::Both.pods())?;
                // Pods see each other as they are, on whatever node.
                let seen = outcome.clients();
                ensure!(seen == [pod.ip(Family::of(to.ip()))].into(), "{to}: {outcome}");
            }
        }
        for ip in stage.dialled("n2")? {
            let to = at(ip, Web::Both.node_port());
            stage.answered(&pod, Probe::tcp(to).count(ENOUGH), Web::Both.pods())?;
        }
    }
    Ok(())
}

/// It would not take a packet from itself.
fn a_virtual_machine_dials_itself(stage: &Stage) -> Result<()> {
    let vm = stage.lab.pod("n1", "vm");
    for to in Web::Machine.vips() {
        for transport in TRANSPORTS {
            let probe = Probe::new(transport, to).count(2).padding(1000);
            let outcome = stage.answered(&vm, probe, Web::Machine.pods())?;
            let seen = outcome.clients();
            ensure!(!seen.contains(&vm.ip(Family::of(to.ip()))), "{to}: {outcome}");
        }
    }
    Ok(())
}

fn hosts_dial_services(stage: &Stage) -> Result<()> {
    // Another node's NodePort is asked there, and that node asks on.
    let mut addresses = BTreeSet::new();
    for name in stage.lab.nodes() {
        addresses.extend(stage.addresses(&name)?);
    }
    for name in stage.lab.nodes() {
        let node = stage.lab.node(&name);
        let mut frontends = Web::Both.vips().to_vec();
        for of in stage.lab.nodes() {
            frontends
                .extend(stage.dialled(&of)?.into_iter().map(|ip| at(ip, Web::Both.node_port())));
        }
        for ip in ["127.0.0.1", "::1"] {
            let ip: std::net::IpAddr = ip.parse().unwrap();
            frontends.push(at(ip, Web::Both.node_port()));
        }
        for to in frontends {
            for transport in TRANSPORTS {
                let probe = Probe::new(transport, to).count(ENOUGH);
                let outcome = stage.answered(&node, probe, Web::Both.pods())?;
                ensure!(outcome.clients().is_subset(&addresses), "{name} asks {to}: {outcome}");
            }
        }
    }
    Ok(())
}

/// VER-05, and where kproxy is better: a backend on the node that was dialled sees the client.
fn outside_dials_node_ports(stage: &Stage) -> Result<()> {
    let client = stage.lab.client();
    for node in stage.lab.nodes() {
        let addresses = stage.addresses(&node)?;
        for ip in stage.dialled(&node)? {
            let to = at(ip, Web::Both.node_port());
            for transport in TRANSPORTS {
                let probe = Probe::new(transport, to).count(ENOUGH);
                let outcome = stage.answered(&client, probe, Web::Both.pods())?;
                for answer in outcome.answers() {
                    let seen = answer.client.ip();
                    let is_right = if answer.server.starts_with(&node) {
                        seen == client.ip(Family::of(ip))
                    } else {
                        addresses.contains(&seen)
                    };
                    ensure!(is_right, "{to}: {} saw {seen}: {outcome}", answer.server);
                }
            }
        }
    }
    Ok(())
}

fn outside_dials_cluster_ips(stage: &Stage) -> Result<()> {
    for to in Web::Both.vips() {
        for transport in TRANSPORTS {
            let probe = Probe::new(transport, to).count(ENOUGH);
            stage.answered(&stage.lab.client(), probe, Web::Both.pods())?;
        }
    }
    Ok(())
}

/// VER-01 for a Service without backends, VER-16 for a port that a ClusterIP does not have.
fn refusals(stage: &Stage) -> Result<()> {
    let mut frontends = Web::Nobody.vips().to_vec();
    frontends.extend(Web::Both.vips().map(|vip| at(vip.ip(), 81)));
    for ip in stage.lab.node("n1").addresses().both() {
        frontends.push(at(ip, Web::Nobody.node_port()));
    }
    for from in ["n1/b", "n1/vm", "n2", "client"] {
        let from = stage.lab.place(from)?;
        for to in &frontends {
            for transport in [Transport::Tcp, Transport::UdpConnected] {
                let outcome = from.probe(Probe::new(transport, *to))?;
                let what = format!("{} asks {to} by {transport:?}: {outcome}", from.name());
                ensure!(outcome.all_refused(), "{what}");
            }
        }
    }
    Ok(())
}

/// VER-06, VER-07.
fn external_policy_local(stage: &Stage) -> Result<()> {
    let client = stage.lab.client();
    for ip in stage.dialled("n1")? {
        for transport in TRANSPORTS {
            let probe = Probe::new(transport, at(ip, Web::Local.node_port())).count(2);
            let outcome = stage.answered(&client, probe, Web::Local.pods())?;
            let seen = outcome.clients();
            ensure!(seen == [client.ip(Family::of(ip))].into(), "{ip}: {outcome}");
        }
    }
    for ip in stage.dialled("n2")? {
        stage.silent(&client, Probe::tcp(at(ip, Web::Local.node_port())))?;
    }
    Ok(())
}

/// Every way there is at once, for as long as a few hundred requests take.
fn connections_last(stage: &Stage) -> Result<()> {
    let mut held = Vec::new();
    for node in stage.lab.nodes() {
        for ip in stage.dialled(&node)? {
            for web in [Web::Far, Web::Both] {
                for transport in [Transport::Tcp, Transport::UdpConnected] {
                    let hold = Hold::new(transport, at(ip, web.node_port()));
                    held.push((stage.lab.client(), hold));
                }
            }
        }
    }
    for from in ["n1/b", "n1/vm", "n1"] {
        for to in Web::Far.vips() {
            held.push((stage.lab.place(from)?, Hold::tcp(to)));
        }
    }
    let mut running = Vec::new();
    for (from, hold) in held {
        running.push((format!("{} {hold:?}", from.name()), stage.held(&from, hold)?));
    }
    for (what, held) in &running {
        let (patience, pause) = (Duration::from_secs(20), Duration::from_millis(20));
        let is_busy = |report: &HoldReport| report.answered >= 20;
        let report = poll_until(patience, pause, || held.report(), is_busy)?;
        ensure!(is_busy(&report), "{what}: {report:?}");
    }
    for (what, held) in running {
        let report = held.stop()?;
        ensure!(report.is_flawless(), "{what}: {report:?}");
    }
    Ok(())
}

/// Also that whatever other programs there are have seen what they should.
fn kproxy_is_in_order(stage: &Stage) -> Result<()> {
    for node in stage.lab.nodes() {
        let status = stage.status(&node)?;
        ensure!(status["in_order"] == true, "{node}: {status:#}");
    }
    let seen = stage.seen_by_others()?;
    ensure!(seen != Some(0), "a program of somebody else has seen no packet");
    Ok(())
}
