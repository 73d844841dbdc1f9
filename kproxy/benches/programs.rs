//! What a packet costs in the programs, run by BPF_PROG_TEST_RUN: no network, no lab, so a change of
//! a few nanoseconds shows. `cargo bench --profile dev -p kproxy --bench programs`; needs root.
//!
//! A packet that is translated differs from the one that came in, so it would not be translated
//! again. The flows measured here translate to what is there already: the work is the same.

#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
#[path = "../tests/packets/harness.rs"]
mod harness;

use aya::{TestRun as _, programs::TestRunOptions};
use harness::{Programs, Tcp, tcp, udp};
use kproxy_common::{
    abi::map,
    filter,
    flow::{FlowValue, flow_state},
    net::proto,
    service::{empty_verdict, frontend_flags},
    trace::Trace,
};

/// Runs of one figure, which is the least of its rounds: what disturbs only ever adds.
const RUNS: u32 = 100_000;
const ROUNDS: usize = 40;

/// Client, frontend, backend and a pod that is no backend.
const ENDS: [(&str, [&str; 4]); 2] = [
    ("IPv4", ["203.0.113.9:40000", "192.0.2.1:30080", "10.244.1.5:8080", "10.244.1.6:8080"]),
    (
        "IPv6",
        [
            "[2001:db8:7::9]:40000",
            "[2001:db8::1]:30080",
            "[fd00:10:244:1::5]:8080",
            "[fd00:10:244:1::6]:8080",
        ],
    ),
];

/// Makes a packet from one end to another.
type Make = fn(&str, &str) -> Vec<u8>;
const WORKS: [(&str, Make); 2] = [("TCP", |from, to| tcp(from, to, Tcp::Ack)), ("UDP", udp)];

fn main() {
    println!("Nanoseconds a packet, least of {ROUNDS} rounds");
    println!(
        "           passes in   passes out  translated in  translated out  from a pod  to a pod"
    );
    let (mut full, mut dropped) = (None, None);
    for (family, [client, frontend, backend, stranger]) in ENDS {
        let mut programs = Programs::load();
        programs.service(2, &[&format!("L{backend}")]);
        for proto in [proto::TCP, proto::UDP] {
            programs.frontend(frontend, proto, frontend_flags::SERVICE_ADDRESS, 2, 2);
        }
        programs.ingress(&tcp(client, frontend, Tcp::Syn));
        programs.run("kp_egress", &tcp(backend, client, Tcp::SynAck));
        programs.ingress(&tcp(client, frontend, Tcp::Ack));
        programs.ingress(&udp(client, frontend));
        programs.run("kp_egress", &udp(backend, client));
        keep_still(&mut programs);
        let mut before = programs.counters(2).1;
        for (name, make) in WORKS {
            let [a, b, c, d, e, f] = [
                ("kp_ingress", make(client, stranger)),
                ("kp_egress", make(stranger, client)),
                ("kp_ingress", make(client, frontend)),
                ("kp_egress", make(backend, client)),
                ("kp_pod_ingress", make(stranger, backend)),
                ("kp_pod_egress", make(backend, stranger)),
            ]
            .map(|(program, packet)| least(&mut programs, program, &packet));
            let translated = 2 * u64::from(RUNS) * ROUNDS as u64;
            let now = programs.counters(2).1;
            let counted = now - std::mem::replace(&mut before, now);
            assert!(counted >= translated, "{family} {name}: {counted} of {translated} translated");
            println!("  {family} {name} {a:>9}  {b:>11}  {c:>13}  {d:>14}  {e:>10}  {f:>8}");
        }
        if family == "IPv4" {
            dropped = Some(dropped_and_told(&mut programs));
            full = Some(filter_full_and_rebuilt(&mut programs, &tcp(client, stranger, Tcp::Ack)));
        }
    }
    if let Some([alone, limited, told]) = dropped {
        println!(
            "  IPv4 TCP SYN that is dropped while nobody traces: {alone}, told beyond the rate: \
             {limited}, told: {told}"
        );
    }
    if let Some([full, rebuilt]) = full {
        println!("  IPv4 TCP that passes in, the flow filter full: {full}, rebuilt: {rebuilt}");
    }
}

/// What a packet takes that is dropped: while nobody listens, somebody listens and has heard enough, and somebody
/// hears of it (until the ring is full).
fn dropped_and_told(programs: &mut Programs) -> [u128; 3] {
    let at = "192.0.2.1:30081";
    programs.empty(4, empty_verdict::DROP);
    programs.frontend(at, proto::TCP, frontend_flags::SERVICE_ADDRESS, 4, 4);
    let packet = tcp("203.0.113.9:40000", at, Tcp::Syn);
    let all = Trace { until: u64::MAX, reasons: !0, services: !0, ends: !0, ..Trace::default() };
    let traces =
        [Trace::default(), Trace { a_second: 1, ..all }, Trace { a_second: u32::MAX, ..all }];
    traces.map(|trace| {
        programs.listen(trace);
        let took = if trace.a_second == u32::MAX {
            told(programs, &packet)
        } else {
            least(programs, "kp_ingress", &packet)
        };
        programs.listen(Trace::default());
        took
    })
}

/// As [`least`], with so few runs a round that the ring has room for all.
fn told(programs: &mut Programs, packet: &[u8]) -> u128 {
    let round = |_| {
        programs.events();
        let options =
            TestRunOptions { data_in: Some(packet), repeat: 1_000, ..TestRunOptions::default() };
        let ran = programs.program("kp_ingress").test_run(options);
        ran.expect("BPF_PROG_TEST_RUN").duration.as_nanos()
    };
    (0..ROUNDS).map(round).min().unwrap_or_default()
}

/// What a packet to a stranger takes while every byte of the flow filter is set, as after very many
/// clients, and after what no flow sends to is taken out, as the daemon does.
fn filter_full_and_rebuilt(programs: &mut Programs, packet: &[u8]) -> [u128; 2] {
    let kept: Vec<(u32, usize)> =
        programs.flows().iter().map(|(key, _)| filter::flow_position(&key.dst)).collect();
    let mut set = |bytes: &dyn Fn(u32) -> [u8; 8]| {
        let mut elements = programs.array::<[u8; 8]>(map::FLOW_FILTER);
        for element in 0..filter::FLOW_ELEMENTS {
            elements.set(element, bytes(element), 0).expect("set the flow filter");
        }
        least(programs, "kp_ingress", packet)
    };
    let full = set(&|_| [filter::FRESH; 8]);
    let rebuilt = set(&|element| {
        let mut bytes = [0; 8];
        for (_, byte) in kept.iter().filter(|(of, _)| *of == element) {
            bytes[byte & 7] = filter::FRESH;
        }
        bytes
    });
    [full, rebuilt]
}

/// What one program takes for one packet.
fn least(programs: &mut Programs, program: &str, packet: &[u8]) -> u128 {
    let program = programs.program(program);
    let round = |_| {
        let options =
            TestRunOptions { data_in: Some(packet), repeat: RUNS, ..TestRunOptions::default() };
        program.test_run(options).expect("BPF_PROG_TEST_RUN").duration.as_nanos()
    };
    (0..ROUNDS).map(round).min().unwrap_or_default()
}

/// Makes every flow translate its packets to what they are. UDP goes on for long enough to be a stream.
fn keep_still(programs: &mut Programs) {
    for (key, value) in programs.flows() {
        let state = if key.proto == proto::UDP { flow_state::STREAM } else { value.state };
        let value = FlowValue { to: key, state, ..value };
        programs.hash(map::FLOWS).insert(key, value, 0).expect("change a flow");
    }
}
