//! Random Services and random packets through the programs, against a plain model of what should
//! become of them.

mod cases;
mod explain;
mod life;
mod lookup;
mod plain;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kproxy_common::config::{Config, Range, config_flags};
use kproxy_common::counters::NO_SERVICE;
use kproxy_common::flow::{FlowKey, FlowValue, flow_flags};
use kproxy_common::net::proto::{TCP, UDP};
use kproxy_common::service::frontend_flags as kind;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

use crate::harness::{
    DEVICE_MAC, NEXT, Programs, REDIRECT, Ran, SHOT, Tcp, ends, tcp, udp, with_ttl,
};
use crate::sctp;
use crate::snat::{error_of, on_a_node};
use cases::{Act, BACKENDS, CLIENTS, Case, Ends, Hook, NODE, PODS, Step, any_case, ip, set};
use plain::{Fate, Kind, Model, PORTS, REST, Seen, address, index};

/// Elements for flows that give way: more than a case opens.
const UNASSURED: u32 = 256;
/// Bounded for CI; more by the environment (`PROPTEST_CASES`).
const CASES: u32 = 400;

#[test]
fn random_packets_fare_as_the_plain_model_says() {
    on_a_node(|programs| {
        let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::default() };
        let config = match std::env::var_os("PROPTEST_CASES") {
            Some(_) => config,
            None => ProptestConfig { cases: CASES, ..config },
        };
        let programs = RefCell::new(programs);
        let result = TestRunner::new(config).run(&any_case(), |case| {
            let mut programs = programs.borrow_mut();
            prepare(&mut programs, &case);
            play(&mut programs, &case).map_err(TestCaseError::fail)
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    });
}

/// Empty maps, filled with the Services of the case.
fn prepare(programs: &mut Programs, case: &Case) {
    programs.forget_all();
    let netfilter = if case.own_ports { 0 } else { config_flags::NETFILTER };
    let by_packets = if case.by_packets { config_flags::NODE_PACKETS } else { 0 };
    let range = |(base, len)| Range::new(ip(base), len);
    programs.configure(|_| {
        let mut config = Config {
            flags: netfilter | by_packets,
            snat_first: PORTS.start,
            snat_count: if case.own_ports { PORTS.len() as u16 } else { 0 },
            cluster: PODS.map(range),
            unassured: UNASSURED,
            ..Config::default()
        };
        config.service[0][0] = range(("10.96.0.0", 16));
        config
    });
    for node in NODE {
        programs.address(node, kind::NODE_ADDRESS);
    }
    for (i, service_port) in case.service_ports.iter().enumerate() {
        for frontend in &service_port.frontends {
            let (at, to) = (frontend.at.to_string(), |scope| index(i, scope));
            let (internal, external) = (to(frontend.internal), to(frontend.external));
            programs.frontend(&at, service_port.proto, frontend.flags, internal, external);
            if frontend.flags & kind::CLUSTER_IP != 0 {
                programs.address(&frontend.at.ip().to_string(), kind::SERVICE_ADDRESS);
            }
        }
        for local in 0..2 {
            publish(programs, index(i, local), &service_port.sets[local as usize]);
            programs.affinity(index(i, local), service_port.affinity);
            programs.algorithm(index(i, local), service_port.algorithm);
        }
        for (base, len) in &service_port.ranges {
            programs.range(index(i, 0), base, *len);
        }
    }
}

fn publish(programs: &mut Programs, service: u32, set: &cases::Set) {
    if set.backends.is_empty() {
        programs.empty(service, set.verdict);
    } else {
        programs.service(service, &set.backends);
    }
}

fn play(programs: &mut Programs, case: &Case) -> Result<(), String> {
    let mut model = Model::new(case);
    for (number, step) in case.steps.iter().enumerate() {
        let done = match step {
            Step::Rest => {
                model.rest();
                programs.age_flows(REST);
                Ok(())
            }
            Step::Publish { service_port, local, set: chosen } => {
                let i = service_port.index(case.service_ports.len());
                let chosen = set(case.service_ports[i].v6, chosen);
                publish(programs, index(i, u32::from(*local)), &chosen);
                model.publish(index(i, u32::from(*local)), chosen);
                Ok(())
            }
            Step::Junk { hook, v6, bytes } => {
                let mut packet = [&DEVICE_MAC[..], &[2, 0, 0, 0, 0, 1]].concat();
                packet.extend(if *v6 { [0x86, 0xdd] } else { [8, 0] });
                packet.extend(bytes);
                is_untouched(&packet, &programs.run(hook.program(), &packet))
            }
            Step::Cut { hook, client, what, left } => {
                let sent = dialled(case, client, 40_000, what);
                let packet = packet_of(sent, Act::Open);
                // The kernel takes no packets without an IP header; eight bytes behind it are needed.
                let header = if sent.from.is_ipv6() { 54 } else { 34 };
                let packet = &packet[..header + left.index(8)];
                is_untouched(packet, &programs.run(hook.program(), packet))
            }
            Step::Dial { hook, client, port, what, act } => {
                send(programs, &mut model, *hook, dialled(case, client, *port, what), *act)
            }
            Step::Direct { hook, client, port, backend, act } => {
                let port_of_case = &case.service_ports[0];
                let v6 = usize::from(port_of_case.v6);
                let from = (ip(CLIENTS[v6][client.index(4)]), *port).into();
                let to = address(BACKENDS[v6][backend.index(5)]);
                let sent = Ends { from, to, proto: port_of_case.proto };
                if from == to { Ok(()) } else { send(programs, &mut model, *hook, sent, *act) }
            }
            Step::Flow { hook, flow, way, act } if !model.flows.is_empty() => {
                let flow = &model.flows[flow.index(model.flows.len())];
                let sent = match way {
                    0 | 1 => flow.dialled,
                    2 | 3 => flow.to.reversed(),
                    _ => flow.to,
                };
                send(programs, &mut model, *hook, sent, *act)
            }
            Step::Flow { .. } => Ok(()),
        };
        let done = done.and_then(|()| compare_flows(programs, &model));
        done.map_err(|error| format!("step {number}, {step:?}: {error}"))?;
    }
    compare_counts(programs, &model)
}

/// A client and something that it may dial: a frontend, or an address or port that is none.
fn dialled(case: &Case, client: &Index, port: u16, what: &Index) -> Ends {
    let mut all: Vec<(SocketAddr, u8)> = Vec::new();
    for service_port in &case.service_ports {
        for frontend in &service_port.frontends {
            let node = ip(NODE[usize::from(service_port.v6)]);
            let addr = frontend.at.ip();
            let addr = if addr.is_unspecified() { node } else { addr };
            // Frontends thrice, so that most packets are for one of them.
            all.extend([((addr, frontend.at.port()).into(), service_port.proto); 3]);
            all.push(((addr, 99).into(), service_port.proto));
        }
    }
    for other in
        ["198.51.100.77:80", "10.96.0.99:80", "[2001:db8:77::77]:80", "[fd00:10:96::99]:80"]
    {
        all.push((other.parse().unwrap(), if port.is_multiple_of(2) { TCP } else { UDP }));
    }
    let (to, proto) = all[what.index(all.len())];
    let from = (ip(CLIENTS[usize::from(to.is_ipv6())][client.index(4)]), port).into();
    Ends { from, to, proto }
}

fn packet_of(Ends { from, to, proto }: Ends, act: Act) -> Vec<u8> {
    let (from, to) = (from.to_string(), to.to_string());
    let mut packet = match proto {
        TCP => {
            let flags = match act {
                Act::Open => Tcp::Syn,
                Act::OpenAnswer => Tcp::SynAck,
                Act::Data => Tcp::Ack,
                Act::Fin => Tcp::FinAck,
                Act::Rst => Tcp::Rst,
            };
            tcp(&from, &to, flags)
        }
        UDP => udp(&from, &to),
        _ => {
            let chunk = match act {
                Act::Open => sctp::INIT,
                Act::OpenAnswer => sctp::INIT_ACK,
                Act::Data => sctp::DATA,
                Act::Fin => sctp::SHUTDOWN,
                Act::Rst => sctp::ABORT,
            };
            sctp::sctp(&from, &to, chunk, 16)
        }
    };
    packet[..6].copy_from_slice(&DEVICE_MAC);
    packet
}

/// Both ends of a packet, after checking its checksums; `None`: it is of no such protocol.
fn ends_of(packet: &[u8], proto: u8) -> Option<Ends> {
    let check = || if matches!(proto, TCP | UDP) { ends(packet) } else { sctp::ends(packet) };
    let (from, to) = catch_unwind(AssertUnwindSafe(check)).ok()?;
    Some(Ends { from, to, proto })
}

fn is_untouched(packet: &[u8], ran: &Ran) -> Result<(), String> {
    if (ran.action, ran.mark, ran.packet.as_slice()) == (NEXT, 0, packet) {
        return Ok(());
    }
    Err(format!("is not left alone: {ran:?}"))
}

/// Sends a packet through a program and compares what comes out with what the model says.
fn send(
    programs: &mut Programs,
    model: &mut Model,
    hook: Hook,
    sent: Ends,
    act: Act,
) -> Result<(), String> {
    let packet = packet_of(sent, act);
    let ran = programs.run(hook.program(), &packet);
    let changed = ran.packet != packet && ran.action != SHOT;
    let came_out = if changed { ends_of(&ran.packet, sent.proto) } else { None };
    let seen = Seen { action: ran.action, ends: came_out };
    let about = |error: String| format!("{act:?} {sent:?} at {hook:?}: {error}; {ran:?}");
    let fate = model.take(hook, sent, act, packet.len(), seen).map_err(about)?;
    let (turned_source, turned_destination) = (&packet[6..12], &packet[..6]);
    match fate {
        Fate::Untouched => is_untouched(&packet, &ran).map_err(about),
        Fate::Dropped if ran.action == SHOT => Ok(()),
        Fate::Refused if ran.action == REDIRECT => {
            let mac = (&ran.packet[..6], &ran.packet[6..12]);
            if mac != (turned_source, turned_destination) {
                return Err(about("the refusal goes to somebody else".to_owned()));
            }
            if sent.proto == TCP {
                let is_reset = ran.packet[ran.packet.len() - 11 - 7] & 0x17 == 0x14;
                let back = ends_of(&ran.packet, TCP) == Some(sent.reversed());
                return if is_reset && back { Ok(()) } else { Err(about("no reset".to_owned())) };
            }
            let (kind, _, between, _) = error_of(&ran);
            let wanted = if sent.from.is_ipv6() { (1, 4) } else { (3, 3) };
            let back = between == (sent.to.ip(), sent.from.ip());
            if kind == wanted && back { Ok(()) } else { Err(about(format!("ICMP {kind:?}"))) }
        }
        Fate::Becomes { ends, action, mark, turned, forwarded } => {
            let mut wanted = packet_of(ends, act);
            if turned {
                let (to, from) = (turned_source.to_vec(), turned_destination.to_vec());
                wanted[..12].copy_from_slice(&[to, from].concat());
            }
            if forwarded {
                wanted = with_ttl(&wanted, 63);
            }
            if (ran.action, ran.mark, &ran.packet) == (action, mark, &wanted) {
                return Ok(());
            }
            Err(about(format!("should be {fate:?}")))
        }
        Fate::Dropped | Fate::Refused => Err(about(format!("should be {fate:?}"))),
    }
}

fn key_of(Ends { from, to, proto }: Ends) -> FlowKey {
    FlowKey::between(from, to, proto)
}

/// Both entries of every flow of the model are there, and no other.
fn compare_flows(programs: &mut Programs, model: &Model) -> Result<(), String> {
    let held: BTreeMap<Vec<u8>, (FlowKey, FlowValue)> = programs
        .flows()
        .into_iter()
        .map(|(key, value)| (zerocopy::IntoBytes::as_bytes(&key).to_vec(), (key, value)))
        .collect();
    for flow in &model.flows {
        let (dialled, to) = (key_of(flow.dialled), key_of(flow.to));
        let kind = match flow.kind {
            Kind::Plain => 0,
            Kind::Masquerade => flow_flags::MASQUERADE,
            Kind::Snat => flow_flags::SNAT,
            Kind::Hairpin => flow_flags::HAIRPIN,
            Kind::Node => flow_flags::NODE,
        };
        let both = kind & !flow_flags::MASQUERADE | flow_flags::REVERSE;
        for (key, becomes, flags) in
            [(dialled, to, kind), (to.reversed(), dialled.reversed(), both)]
        {
            if flow.alone && key == dialled {
                continue;
            }
            let Some((_, value)) = held.get(zerocopy::IntoBytes::as_bytes(&key)) else {
                return Err(format!("{flow:?} has no entry {key:?}"));
            };
            let kinds = flow_flags::KINDS | flow_flags::MASQUERADE;
            let says = (value.to, value.flags & kinds, value.service);
            let is_assured = value.flags & flow_flags::ASSURED != 0;
            let (state, _) = flow.life.state_and_time();
            let lives = flow.alone || (value.state, is_assured) == (state, flow.life.is_assured());
            if says != (becomes, flags, flow.service) || !lives {
                return Err(format!("{flow:?} has the entry {value:?}"));
            }
        }
    }
    let keys = |flow: &plain::Flow| [key_of(flow.dialled), key_of(flow.to.reversed())];
    let known: Vec<FlowKey> = model.flows.iter().chain(&model.forgotten).flat_map(keys).collect();
    if let Some((key, value)) = held.values().find(|(key, _)| !known.contains(key)) {
        return Err(format!("the entry {key:?}, {value:?} is of none of {:?}", model.flows));
    }
    Ok(())
}

fn compare_counts(programs: &mut Programs, model: &Model) -> Result<(), String> {
    for service in 2..10 {
        let wanted = model.counters.get(&service).copied().unwrap_or_default();
        let counted = programs.counters(service);
        if counted != wanted {
            return Err(format!("service {service} counted {counted:?} instead of {wanted:?}"));
        }
    }
    let drops: BTreeMap<(u32, u32), u64> = programs
        .drops()
        .into_iter()
        .map(|(service, reason, count)| ((service, reason as u32), count))
        .collect();
    if drops != model.drops {
        return Err(format!("drops {drops:?} instead of {:?} ({NO_SERVICE}: none)", model.drops));
    }
    Ok(())
}
