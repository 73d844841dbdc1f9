//! Random Services and random senders: what `kproxy explain` says against what the programs do. The
//! sockets' path has no test run; the lab's test of `explain` has it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use kproxy::dataplane::explain::{
    Candidate, Explanation, Question, Run, SeenAs, Sender, Verdict, View, decide,
};
use kproxy::plan::Protocol;
use kproxy_common::abi::{MARK_MASQUERADE, map};
use kproxy_common::affinity::{AffinityKey, AffinityValue};
use kproxy_common::config::{Config, Uplink};
use kproxy_common::drop_reason::DropReason;
use kproxy_common::net::proto::{ICMP, ICMPV6, TCP};
use kproxy_common::service::{FrontendKey, FrontendValue, Service, Slot, service_flags};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

use super::cases::{Act, Case, Ends, Hook, NODE, any_case, ip};
use super::plain::OVERLAY;
use super::{dialled, ends_of, packet_of, prepare};
use crate::harness::{Programs, REDIRECT, Ran, SHOT, knows_where_packets_come_from};
use crate::snat::on_a_node;

/// Bounded for CI; more by the environment (`PROPTEST_CASES`).
const CASES: u32 = 120;
/// Questions of a case.
const QUESTIONS: std::ops::Range<usize> = 4..12;
/// Service indices that a case may use.
const INDICES: u32 = 16;

/// A sender and what it dials.
#[derive(Clone, Debug)]
struct Dial {
    hook: Hook,
    client: Index,
    what: Index,
}

fn any_dial() -> impl Strategy<Value = Dial> {
    let hook = prop_oneof![Just(Hook::Ingress), Just(Hook::PodIngress), Just(Hook::Egress)];
    (hook, any::<Index>(), any::<Index>()).prop_map(|(hook, client, what)| Dial {
        hook,
        client,
        what,
    })
}

#[test]
fn explain_says_what_the_programs_do() {
    on_a_node(|programs| {
        // Round robin has a turn of its own on each CPU.
        let mut here = CpuSet::new();
        here.set(sched_getcpu().unwrap()).unwrap();
        sched_setaffinity(Pid::from_raw(0), &here).unwrap();
        let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::default() };
        let config = match std::env::var_os("PROPTEST_CASES") {
            Some(_) => config,
            None => ProptestConfig { cases: CASES, ..config },
        };
        let (programs, asked) = (RefCell::new(programs), RefCell::new(0u64));
        let strategy = (any_case(), vec(any_dial(), QUESTIONS));
        let result = TestRunner::new(config).run(&strategy, |(case, dials)| {
            let mut programs = programs.borrow_mut();
            prepare(&mut programs, &case);
            let view = read(&mut programs);
            for (number, dial) in dials.iter().enumerate() {
                *asked.borrow_mut() += 1;
                compare(&mut programs, &case, &view, number, dial)
                    .map_err(|error| TestCaseError::fail(format!("{dial:?}: {error}")))?;
            }
            Ok(())
        });
        println!("{} questions", asked.borrow());
        if let Err(error) = result {
            panic!("{error}");
        }
    });
}

/// What the programs' maps hold; no hook for sockets is attached.
fn read(programs: &mut Programs) -> View {
    let slots = programs.array::<Slot>(map::SLOTS);
    let slots: Vec<Slot> = (0..16 * INDICES).map(|i| slots.get(&i, 0).unwrap()).collect();
    let services = programs.array::<Service>(map::SERVICES);
    let services: Vec<Service> = (0..INDICES).map(|i| services.get(&i, 0).unwrap()).collect();
    let runs = (0..).zip(services).filter_map(|(index, service)| {
        Some((index, Run::of(service, |i| slots.get(i as usize).copied())?))
    });
    let mut view = View {
        runs: runs.collect(),
        config: programs.array::<Config>(map::CONFIG).get(&0, 0).unwrap(),
        has_pod_links: true,
        refuses_calls: true,
        ..View::default()
    };
    let frontends = programs.hash::<FrontendKey, FrontendValue>(map::FRONTENDS);
    view.frontends = frontends.iter().map(Result::unwrap).collect();
    let uplinks = programs.hash::<u32, Uplink>(map::UPLINKS);
    view.uplinks = uplinks.iter().map(Result::unwrap).collect();
    let ranges: Vec<_> = programs.ranges().keys().map(Result::unwrap).collect();
    view.ranges = ranges
        .iter()
        .map(|key| {
            let base = IpAddr::from(key.data().addr);
            let bits = key.prefix_len() - if base.is_ipv4() { 128 } else { 32 };
            (key.data().service_port, ipnet::IpNet::new(base, bits as u8).unwrap())
        })
        .collect();
    view
}

/// The view with the clients that are remembered by now.
fn now(programs: &mut Programs, view: &View) -> View {
    let clients = programs.hash::<AffinityKey, AffinityValue>(map::AFFINITY);
    let affinity = clients.iter().map(Result::unwrap).collect();
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    let now = std::time::Duration::from(now).as_nanos() as u64;
    View { affinity, now, ..view.clone() }
}

fn question(hook: Hook, ends: Ends) -> Question {
    let address = Some(ends.from.ip());
    let from = match hook {
        Hook::Ingress => Sender::Outside { address },
        Hook::PodIngress | Hook::PodEgress => Sender::Pod { address, netns: None },
        Hook::Egress => Sender::Node { source: address },
    };
    Question { to: ends.to, protocol: Protocol::from_number(ends.proto).unwrap(), from }
}

/// Sends packets of new connections until all backends must have been seen.
fn compare(
    programs: &mut Programs,
    case: &Case,
    view: &View,
    number: usize,
    Dial { hook, client, what }: &Dial,
) -> Result<(), String> {
    let port = |i: usize| 41_000 + (number * 16 + i) as u16;
    let first = dialled(case, client, port(0), what);
    let asked = question(*hook, first);
    let told = decide(&now(programs, view), &asked);
    let may: BTreeSet<SocketAddr> = told.may().map(end).collect();
    let mut seen = BTreeSet::new();
    for i in 0..may.len().max(1) {
        let sent = Ends { from: (first.from.ip(), port(i)).into(), ..first };
        // From the second on a client with session affinity is known.
        let told = decide(&now(programs, view), &asked);
        let ran = programs.run(hook.program(), &packet_of(sent, Act::Open));
        let about = |error: String| format!("{sent:?}: {error}; {told:?}; {ran:?}");
        agrees(programs, *hook, sent, &told, &ran, &mut seen).map_err(about)?;
    }
    let set = told.set.as_ref();
    let run = set.and_then(|set| view.runs.get(&set.index));
    let in_turn = run.is_some_and(|run| run.service.flags == service_flags::IN_USE);
    if told.verdict == Verdict::Answered && in_turn && told.affinity.is_none() && seen != may {
        return Err(format!("{first:?}: should reach {may:?} and reaches {seen:?}"));
    }
    Ok(())
}

fn end(candidate: &Candidate) -> SocketAddr {
    (candidate.addr, candidate.port).into()
}

fn agrees(
    programs: &mut Programs,
    hook: Hook,
    sent: Ends,
    told: &Explanation,
    ran: &Ran,
    seen: &mut BTreeSet<SocketAddr>,
) -> Result<(), String> {
    let done = what_was_done(sent, ran);
    match (told.verdict, done) {
        (Verdict::LeftAlone, Done::Nothing)
        | (Verdict::Dropped, Done::Dropped)
        | (Verdict::Refused, Done::Refused) => Ok(()),
        // Where it comes in it is left alone, and dropped where it leaves.
        (Verdict::Dropped, Done::Nothing)
            if told.reason == Some(DropReason::FreeServiceAddress) && hook != Hook::Egress =>
        {
            if !knows_where_packets_come_from() {
                return Ok(());
            }
            programs.comes_from(1);
            let out = programs.egress(&packet_of(sent, Act::Open));
            programs.comes_from(0);
            if out.action == SHOT { Ok(()) } else { Err(format!("it leaves: {out:?}")) }
        }
        (Verdict::Answered, Done::Sent(became)) => {
            seen.insert(became.to);
            let Some(candidate) = told.may().find(|of| end(of) == became.to) else {
                return Err(format!("{} is no candidate", became.to));
            };
            let source = became.from.ip();
            let own = [NODE, OVERLAY].iter().flatten().any(|text| ip(text) == source);
            let marked = ran.mark & MARK_MASQUERADE != 0;
            let right = match candidate.seen_as {
                Some(SeenAs::Client) => source == sent.from.ip() && !marked,
                Some(SeenAs::Node) => own && !marked,
                Some(SeenAs::Masquerade) => marked,
                Some(SeenAs::Frontend) => source == sent.to.ip(),
                None => false,
            };
            if right { Ok(()) } else { Err(format!("the backend sees {source}")) }
        }
        (_, done) => Err(format!("{done:?} is done")),
    }
}

/// What a program did with a packet.
#[derive(Debug)]
enum Done {
    Nothing,
    Dropped,
    Refused,
    Sent(Ends),
}

fn what_was_done(sent: Ends, ran: &Ran) -> Done {
    if ran.action == SHOT {
        return Done::Dropped;
    }
    let protocol = ran.packet[if sent.from.is_ipv6() { 20 } else { 23 }];
    if ran.action == REDIRECT && [ICMP, ICMPV6].contains(&protocol) {
        return Done::Refused;
    }
    match ends_of(&ran.packet, sent.proto) {
        Some(ends) if ends == sent => Done::Nothing,
        Some(ends) if sent.proto == TCP && ends == sent.reversed() => Done::Refused,
        Some(ends) => Done::Sent(ends),
        None => Done::Nothing,
    }
}
