//! A policy engine's rule in front of a pod keeps holding: what kproxy forwards passes the FORWARD
//! hook of the pod's node with the addresses that policies are about.

use std::thread;

use anyhow::{Result, anyhow};
use kproxy_lab::{Place, Probe, Transport};

use crate::case::Web;
use crate::stage::{Stage, at};

/// Table of the rules.
const TABLE: &str = "inet policies";

/// Lets only these places reach a pod.
fn allow(stage: &Stage, pod: &Place, from: &[&Place]) -> Result<()> {
    let list = |v6| {
        let addresses = from.iter().map(|place| place.addresses());
        let texts: Vec<String> = addresses
            .map(|both| if v6 { both.v6.to_string() } else { both.v4.to_string() })
            .collect();
        texts.join(", ")
    };
    let (v4, v6) = (pod.addresses().v4, pod.addresses().v6);
    let rules = format!(
        "table {TABLE} {{}}
         delete table {TABLE}
         table {TABLE} {{
           chain forward {{
             type filter hook forward priority filter - 1;
             ct state established,related accept
             ip daddr {v4} ip saddr != {{ {} }} drop
             ip6 daddr {v6} ip6 saddr != {{ {} }} drop
           }}
         }}",
        list(false),
        list(true)
    );
    stage.lab.node("n2").run("nft", &[&rules]).map(drop)
}

pub(crate) fn enforced(stage: &Stage) -> Result<()> {
    let result = with_policies(stage);
    stage.lab.node("n2").run("nft", &["delete", "table", "inet", "policies"])?;
    result
}

fn with_policies(stage: &Stage) -> Result<()> {
    let (lab, client) = (&stage.lab, stage.lab.client());
    let (guarded, friend) = (lab.pod("n2", "a"), lab.pod("n1", "a"));
    let ask = |from: &Place, to| -> Result<()> {
        for transport in [Transport::Tcp, Transport::UdpConnected] {
            stage.answered(from, Probe::new(transport, to), Web::Far.pods())?;
        }
        Ok(())
    };
    allow(stage, &guarded, &[&friend])?;
    Web::Far.vips().into_iter().try_for_each(|vip| ask(&friend, vip))?;
    // Everybody else is kept out, on the pod's own node and elsewhere, whatever they dial.
    let mut kept_out = Vec::new();
    for pod in ["n1/b", "n2/b", "n1/vm", "n2/vm"] {
        kept_out.extend(Web::Far.vips().map(|vip| (lab.place(pod), vip)));
    }
    for node in lab.nodes() {
        for ip in stage.dialled(&node)? {
            kept_out.push((Ok(lab.client()), at(ip, Web::Far.node_port())));
        }
    }
    thread::scope(|scope| {
        let threads: Vec<_> = kept_out
            .into_iter()
            .map(|(from, to)| {
                scope.spawn(move || {
                    let from = from?;
                    stage.silent(&from, Probe::tcp(to))?;
                    stage.silent(&from, Probe::udp(to))
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_panic| anyhow!("a thread that listens panicked"))?
        })
    })?;
    // A policy for the client's own address works where the pod is: nothing hides it.
    allow(stage, &guarded, &[&friend, &client])?;
    for ip in stage.dialled("n2")? {
        ask(&client, at(ip, Web::Far.node_port()))?;
    }
    Ok(())
}
