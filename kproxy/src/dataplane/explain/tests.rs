//! What no test run of the programs shows: the sockets' path, and senders whose address is not known.

use std::net::IpAddr;

use ipnet::IpNet;
use kproxy_common::{
    config::{Range, config_flags},
    drop_reason::DropReason,
    net::{Addr, Port},
    netns::netns_verdict,
    service::{
        FrontendKey, FrontendValue, Service, Slot, Word, empty_verdict, frontend_flags,
        service_flags, slot_flags,
    },
};

use super::*;
use crate::plan::Protocol;

const NODE: Sender = Sender::Node { source: None };
const POD: Sender = Sender::Pod { address: None, netns: None };
const OUTSIDE: Sender = Sender::Outside { address: None };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(address: &str) -> Sender {
    Sender::Pod { address: Some(ip(address)), netns: Some(7) }
}

/// A node with one service port: a ClusterIP, and a load-balancer address open to `ranges`.
fn view(backends: &[&str], verdict: u32, ranges: &[&str]) -> View {
    let mut view =
        View { has_sockets: true, has_pod_links: true, refuses_calls: true, ..View::default() };
    view.config.host_netns = 1;
    view.config.cluster[0] = Range::new(ip("10.244.0.0"), 16);
    let slot = |text: &&str| Slot {
        addr: ip(text).into(),
        port: Port::new(8080),
        flags: if text.starts_with("10.244.1.") { slot_flags::LOCAL } else { 0 },
        extra: 0,
    };
    let count = backends.len() as u16;
    let first = if count == 0 { verdict } else { 0 };
    let word = Word { first, count, generation: 1 }.pack();
    let service = Service { word, flags: service_flags::IN_USE, affinity_seconds: 0 };
    view.runs.insert(2, Run { service, slots: backends.iter().map(slot).collect() });
    let nets: Vec<IpNet> = ranges.iter().map(|net| net.parse().unwrap()).collect();
    let node = nets.iter().any(|net| net.contains(&ip("192.0.2.11")));
    let node = if node { frontend_flags::NODE_ALLOWED } else { 0 };
    let balancer = frontend_flags::LOAD_BALANCER | frontend_flags::SOURCE_RANGES | node;
    for (at, flags) in [("10.96.0.7", frontend_flags::CLUSTER_IP), ("203.0.113.20", balancer)] {
        for proto in [6, 17, 132] {
            let key = FrontendKey::new(ip(at).into(), Port::new(80), proto);
            view.frontends.insert(key, FrontendValue { internal: 2, external: 2, flags });
        }
    }
    let address = |flags| FrontendValue { flags, ..FrontendValue::default() };
    for (at, flags) in [
        ("10.96.0.7", frontend_flags::SERVICE_ADDRESS),
        ("192.0.2.11", frontend_flags::NODE_ADDRESS),
        ("127.0.0.1", frontend_flags::NODE_ADDRESS),
    ] {
        view.frontends.insert(FrontendKey::address(Addr::from(ip(at))), address(flags));
    }
    view.ranges = nets.into_iter().map(|net| (1, net)).collect();
    view
}

fn ask(view: &View, to: &str, from: Sender) -> Explanation {
    decide(view, &Question { to: to.parse().unwrap(), protocol: Protocol::Tcp, from })
}

#[test]
fn sockets_are_left_to_packets_where_the_programs_leave_them() {
    let view = view(&["10.244.1.5"], 0, &[]);
    let hook = |view: &View, from, protocol| {
        let to = "10.96.0.7:80".parse().unwrap();
        let told = decide(view, &Question { to, protocol, from });
        assert_eq!(told.verdict, Verdict::Answered);
        (told.hook, told.why_here)
    };
    for (flags, from, wanted) in [
        (0, NODE, (Hook::Connect, WhyHere::Usual)),
        (0, POD, (Hook::Connect, WhyHere::Usual)),
        (0, OUTSIDE, (Hook::Uplink, WhyHere::Usual)),
        (config_flags::HOST_SOCKETS, NODE, (Hook::Connect, WhyHere::Usual)),
        (config_flags::HOST_SOCKETS, POD, (Hook::PodLink, WhyHere::HostSocketsOnly)),
        (config_flags::NODE_PACKETS, NODE, (Hook::Leaving, WhyHere::SocketsUnused)),
        (config_flags::NODE_PACKETS, POD, (Hook::PodLink, WhyHere::SocketsUnused)),
        (config_flags::OPT_OUT, NODE, (Hook::Connect, WhyHere::Usual)),
        (config_flags::OPT_OUT, pod("10.244.1.9"), (Hook::PodLink, WhyHere::OptedOut)),
    ] {
        let mut view = view.clone();
        view.config.flags = flags;
        assert_eq!(hook(&view, from, Protocol::Tcp), wanted, "{flags:#x} {from:?}");
    }
    let mut served = view.clone();
    served.config.flags = config_flags::OPT_OUT;
    served.netns.insert(7, netns_verdict::SERVED);
    let pod = pod("10.244.1.9");
    assert_eq!(hook(&served, pod, Protocol::Tcp), (Hook::Connect, WhyHere::Usual));
    assert_eq!(hook(&view, POD, Protocol::Sctp), (Hook::PodLink, WhyHere::Sctp));
    let detached = View { has_sockets: false, ..view };
    assert_eq!(hook(&detached, NODE, Protocol::Tcp), (Hook::Leaving, WhyHere::NotAttached));
}

#[test]
fn an_empty_set_refuses_the_call_or_leaves_it_to_the_packets() {
    for (verdict, refuses_calls, wanted) in [
        (empty_verdict::REJECT, true, (Verdict::Refused, Hook::Connect)),
        (empty_verdict::REJECT, false, (Verdict::Refused, Hook::PodLink)),
        (empty_verdict::DROP, true, (Verdict::Dropped, Hook::PodLink)),
    ] {
        let view = View { refuses_calls, ..view(&[], verdict, &[]) };
        let told = ask(&view, "10.96.0.7:80", POD);
        assert_eq!((told.verdict, told.hook), wanted);
    }
    // No program at the pod's link: dropped where it leaves the node, and what is no ClusterIP goes on.
    let mut unseen = View { has_pod_links: false, ..view(&[], empty_verdict::REJECT, &[]) };
    unseen.config.flags = config_flags::NODE_PACKETS;
    let told = ask(&unseen, "10.96.0.7:80", POD);
    assert_eq!((told.verdict, told.reason), (Verdict::Dropped, Some(DropReason::NoBackend)));
    assert_eq!(ask(&unseen, "10.96.0.7:81", POD).verdict, Verdict::Dropped);
    unseen.runs = view(&["10.244.1.5"], 0, &[]).runs;
    assert_eq!(ask(&unseen, "10.96.0.7:80", POD).verdict, Verdict::LeftAlone);
}

/// LBR-02, LBR-03, LBR-06.
#[test]
fn source_ranges_judge_the_socket_first_and_then_its_packets() {
    let bound = |address| Sender::Node { source: Some(ip(address)) };
    let outside = |address| Sender::Outside { address: Some(ip(address)) };
    use Verdict::{Answered, Depends, Dropped};
    for (ranges, from, verdict, hook) in [
        (&["10.244.0.0/16"][..], POD, Answered, Hook::Connect),
        (&["10.0.0.0/8"], POD, Answered, Hook::Connect),
        (&["10.244.1.0/24"], POD, Depends, Hook::PodLink),
        (&["10.244.1.0/24"], pod("10.244.1.9"), Answered, Hook::PodLink),
        (&["10.244.1.0/24"], pod("10.244.2.9"), Dropped, Hook::PodLink),
        (&[], POD, Dropped, Hook::PodLink),
        (&["192.0.2.0/24"], NODE, Answered, Hook::Connect),
        (&["10.244.0.0/16"], NODE, Dropped, Hook::Leaving),
        (&["192.0.2.0/24"], bound("192.0.2.11"), Answered, Hook::Connect),
        (&["192.0.2.0/24"], bound("10.244.1.1"), Dropped, Hook::Leaving),
        (&["198.51.100.0/24"], OUTSIDE, Depends, Hook::Uplink),
        (&["198.51.100.0/24"], outside("198.51.100.1"), Answered, Hook::Uplink),
        (&["198.51.100.0/24"], outside("198.51.101.1"), Dropped, Hook::Uplink),
    ] {
        let told = ask(&view(&["10.244.1.5"], 0, ranges), "203.0.113.20:80", from);
        assert_eq!((told.verdict, told.hook), (verdict, hook), "{ranges:?} {from:?}: {told:?}");
    }
    // Bound on the node: the packets would not leave it, so the call is refused.
    let mut view = view(&["10.244.1.5"], 0, &["10.244.0.0/16"]);
    let own = FrontendValue { flags: frontend_flags::NODE_ADDRESS, ..FrontendValue::default() };
    view.frontends.insert(FrontendKey::address(ip("203.0.113.20").into()), own);
    let told = ask(&view, "203.0.113.20:80", NODE);
    let wanted = (Verdict::Refused, Some(DropReason::SourceNotAllowed), Hook::Connect);
    assert_eq!((told.verdict, told.reason, told.hook), wanted);
}

#[test]
fn endpoints_that_get_nothing_have_a_reason() {
    let mut view = view(&["10.244.1.5", "10.244.2.5"], 0, &[]);
    let near = view.runs[&2].slots[0];
    let word = Word { first: 0, count: 1, generation: 1 }.pack();
    let service = Service { word, flags: service_flags::IN_USE, affinity_seconds: 0 };
    view.runs.insert(3, Run { service, slots: vec![near] });
    let key = FrontendKey::new(ip("10.96.0.7").into(), Port::new(80), 6);
    view.frontends
        .insert(key, FrontendValue { internal: 3, external: 3, flags: frontend_flags::CLUSTER_IP });
    let standings = |told: &Explanation| -> Vec<Standing> {
        told.candidates.iter().map(|candidate| candidate.standing).collect()
    };
    let told = ask(&view, "10.96.0.7:80", NODE);
    assert_eq!(standings(&told), [Standing::May, Standing::OtherNode]);
    // One that only keeps what it has stands behind the run.
    let run = view.runs.get_mut(&3).unwrap();
    run.slots.push(Slot { addr: ip("10.244.1.6").into(), ..near });
    let told = ask(&view, "10.96.0.7:80", NODE);
    assert_eq!(standings(&told), [Standing::May, Standing::OtherNode, Standing::KeepsOnly]);
}
