//! Much data, and large packets.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kproxy_lab::{Family, Feature, Network, Place, Probe, Transport};

use crate::case::Web;
use crate::stage::{Row, SILENCE, Stage, With, at};

/// Bytes of a transfer, in each direction.
const MUCH: usize = 1_000_000;
/// A datagram that needs fragments on every network.
const FRAGMENTED: usize = 4_000;
/// Lengths of the port number and the token differ from one answer to the next.
const SLACK: usize = 26;

/// The largest packet that every way of the row takes.
const fn least_mtu(stage: &Stage) -> usize {
    match (stage.row.with, stage.row.network) {
        (With::Feature(Feature::SmallMtu), _) => 1300,
        // VXLAN over IPv6 on a wire of 1500.
        (_, Network::Vxlan) => 1430,
        (_, Network::Bridge | Network::Routed) => 1500,
    }
}

/// Who asks which frontend on the backend that is far from the first node.
fn ways(stage: &Stage) -> Result<Vec<(Arc<Place>, SocketAddr)>> {
    let mut ways = Vec::new();
    for from in ["n1/b", "n1/vm", "n2/vm", "n1"] {
        for vip in Web::Far.vips() {
            ways.push((stage.lab.place(from)?, vip));
        }
    }
    for node in stage.lab.nodes() {
        for ip in stage.dialled(&node)? {
            ways.push((stage.lab.client(), at(ip, Web::Far.node_port())));
        }
    }
    Ok(ways)
}

/// With segmentation offload, checksums, and path MTU discovery where the pods' devices take larger
/// packets than the way between the nodes.
pub(crate) fn transfers(stage: &Stage) -> Result<()> {
    for (from, to) in ways(stage)? {
        stage.answered(&from, Probe::tcp(to).count(2).padding(MUCH), Web::Far.pods())?;
    }
    if stage.row.with == With::Feature(Feature::SmallMtu) {
        // Told in the name of the frontend: the client knows of nobody else.
        for ip in stage.lab.node("n1").addresses().both() {
            let way = stage.lab.client().run("ip", &["route", "get", &ip.to_string()])?;
            ensure!(way.contains("mtu 1300"), "the client was not told: {way}");
        }
    }
    Ok(())
}

pub(crate) fn datagrams(stage: &Stage) -> Result<()> {
    for (from, to) in ways(stage)? {
        let outcome = stage.answered(&from, Probe::udp(to), Web::Far.pods())?;
        let answer = outcome.answers().next().context("no answer")?;
        let bare = serde_json::to_string(answer)?.len();
        let headers = if Family::of(to.ip()) == Family::V4 { 28 } else { 48 };
        let padding = least_mtu(stage) - headers - bare - SLACK;
        stage.answered(&from, Probe::udp(to).count(3).padding(padding), Web::Far.pods())?;
    }
    Ok(())
}

/// Datagrams in fragments, of both ends. The first one may only teach the sender how large packets
/// of this way can be.
pub(crate) fn fragments(stage: &Stage) -> Result<()> {
    for (from, to) in ways(stage)? {
        let probe = Probe::udp(to).padding(FRAGMENTED);
        let first = stage.answered(&from, probe.clone().timeout(SILENCE), Web::Far.pods());
        first.or_else(|_too_big| stage.answered(&from, probe, Web::Far.pods()))?;
    }
    Ok(())
}

/// Fragments that come before the first one of their datagram, of both ends. A host has no raw socket
/// that a proxy in sockets could serve.
pub(crate) fn reversed(stage: &Stage) -> Result<()> {
    for (from, to) in ways(stage)? {
        if from.name() == "n1" {
            continue;
        }
        let probe = Probe::new(Transport::UdpReversed, to).padding(FRAGMENTED);
        stage.answered(&from, probe.count(3), Web::Far.pods())?;
    }
    for to in Web::Local.vips() {
        let probe = Probe::new(Transport::UdpReversed, to).padding(FRAGMENTED);
        stage.answered(&*stage.lab.place("n1/vm")?, probe, Web::Local.pods())?;
    }
    for ip in stage.dialled("n1")? {
        let to = at(ip, Web::Local.node_port());
        let probe = Probe::new(Transport::UdpReversed, to).padding(FRAGMENTED);
        stage.answered(&stage.lab.client(), probe, Web::Local.pods())?;
    }
    Ok(())
}

/// A datagram in fragments from outside to the first node, which has a backend elsewhere only.
fn ask(stage: &Stage) -> kproxy_lab::Outcome {
    let to = stage.lab.node("n1").at(Family::V4, Web::Far.node_port());
    stage.lab.client().probe(Probe::udp(to).padding(FRAGMENTED).timeout(SILENCE)).unwrap()
}

/// Without a NAT rule on the node nobody else changes the source, and puts the fragments together.
#[test]
fn a_flow_may_begin_with_a_fragment_that_is_larger_than_the_overlay_takes() {
    let row = Row { network: Network::Vxlan, with: With::Nothing };
    let stage = Stage::new(row).unwrap();
    stage.lab.node("n1").run("nft", &["flush", "ruleset"]).unwrap();
    for _ in 0..3 {
        let outcome = ask(&stage);
        assert!(outcome.all_answered(), "{outcome}");
        let client = stage.lab.client().ip(Family::V4);
        assert!(!outcome.clients().contains(&client), "{outcome}");
    }
}

#[test]
fn a_client_hears_how_large_fragments_may_be_where_no_device_cuts_them() {
    let row = Row { network: Network::Bridge, with: With::Feature(Feature::SecondUplink) };
    let stage = Stage::new(row).unwrap();
    for node in ["n1", "n2"] {
        stage.lab.node(node).run("ip", &["link", "set", "eth1", "mtu", "1300"]).unwrap();
    }
    let backend = stage.lab.pod("n2", "a").ip(Family::V4).to_string();
    let via = stage.lab.second_addresses("n2").unwrap().v4.to_string();
    stage.lab.node("n1").run("ip", &["route", "add", &backend, "via", &via]).unwrap();
    assert!(!ask(&stage).all_answered(), "the first datagram was not too large");
    let outcome = ask(&stage);
    assert!(outcome.all_answered(), "{outcome}");
}
