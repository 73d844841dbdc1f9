//! Random packets of a connection through the programs, and through a plain model of what nf_conntrack
//! makes of them. Both must agree after each packet: whether it is translated, the state, whether the
//! flow is assured, when its time is up.
//!
//! kproxy is deliberately not conntrack in what follows. The model says so in `Tracked::differs`,
//! `is_believed` and `is_reset`.
//!
//! | what | why |
//! |---|---|
//! | The window is 1 MiB around what was said last, not what the ends have announced. | A window needs the options of both SYNs; to guess both numbers takes four million packets. |
//! | What is outside of it is still translated, and changes nothing. | The receiver judges better; kube-proxy lets it pass unchanged, which resets long fat connections. |
//! | Before the client confirms, what does not belong to the SYN is left alone. | It may be an answer to another connection of the same addresses and ports. |
//! | A SYN-ACK or ACK of the client confirms in SYN_SENT2 and SYN_RECV. | It proves that the client has seen the backend's number. |
//! | A FIN before that is kept until the client confirms. | Else a forged SYN would have FIN_WAIT's time. |
//! | A FIN that is sent again is no second one. | conntrack takes it for the other end's and ends a half-closed connection after LAST_ACK's 30 s. |
//! | A RST counts only with the very number that is expected, in every state. | conntrack believes any in FIN_WAIT and later; RFC 5961 asks for the number. |
//! | Who sends on after a RST takes it back, if the connection was confirmed. | It was not theirs: otherwise the flow would end 10 s later, both ends alive. |
//! | A backend's SYN in TIME_WAIT opens nothing. | It is no packet to a frontend. |
//! | Flows in FIN_WAIT and CLOSE_WAIT stay assured. | conntrack may end them early (`tcp_can_early_drop`), though they may live for hours. |
//! | No shorter times for retransmissions and unacknowledged data. | They follow from what the window is tracked for. |
//! | A copy of the client's own SYN is no SYN that was ignored. | A late copy of its SYN-ACK would begin the connection again. |
//!
//! A forger sends in the name of one of the two ends. Who can send as both may begin and end what it
//! likes, with conntrack as well.

mod cases;
mod ends;
mod play;
pub(crate) mod rules;

use std::cell::RefCell;

use kproxy_common::config::Config;
use kproxy_common::flow::{FlowKey, flow_flags, flow_state};
use kproxy_common::net::proto::UDP;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::harness::{NEXT, Programs, REDIRECT, udp};
use crate::snat::{SERVICE, on_a_node};
use cases::{Datagram, Path, any_case, any_datagrams};
use play::{Play, seconds};
use rules::Way;

/// Bounded for CI; more by the environment (`PROPTEST_CASES`).
const CASES: u32 = 400;

/// Elements for flows that give way: as many as a case may open, and a few cases more.
const UNASSURED: u32 = 64;

/// Runs a test on random values, each with an empty flow table.
fn on_random<S: Strategy>(
    programs: &mut Programs,
    strategy: &S,
    test: impl Fn(&mut Programs, S::Value) -> Result<(), String>,
) where
    S::Value: std::fmt::Debug,
{
    programs.configure(|config| Config { unassured: UNASSURED, ..config });
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::default() };
    let config = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig { cases: CASES, ..config },
    };
    let programs = RefCell::new(programs);
    let result = TestRunner::new(config).run(strategy, |case| {
        let mut programs = programs.borrow_mut();
        programs.forget_flows();
        test(&mut programs, case).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn publish(programs: &mut Programs, path: Path, v6: bool) {
    let [_, _, backend] = path.ends(v6);
    let here = if path == Path::Elsewhere { "" } else { "L" };
    programs.service(SERVICE, &[&format!("{here}{backend}")]);
}

#[test]
fn tcp_fares_as_with_conntrack() {
    on_a_node(|programs| {
        on_random(programs, &any_case(), |programs, case| {
            publish(programs, case.path, case.v6);
            Play::new(programs, &case).all()
        });
    });
}

/// nf_conntrack_proto_udp.c: the time is that of a stream once both have sent, and one of them more than
/// two seconds after the first packet; the answer that makes it a conversation does not make it a stream.
#[test]
fn udp_fares_as_with_conntrack() {
    on_a_node(|programs| {
        on_random(programs, &any_datagrams(), |programs, (path, v6, steps)| {
            publish(programs, path, v6);
            converse(programs, path, v6, &steps)
        });
    });
}

/// A conversation over UDP as conntrack sees it.
struct Conversation {
    opened: u32,
    last: u32,
    is_answered: bool,
    is_stream: bool,
}

impl Conversation {
    const fn time(&self) -> u32 {
        if self.is_stream { 120 } else { 30 }
    }

    const fn state(&self) -> u8 {
        match (self.is_answered, self.is_stream) {
            (false, _) => flow_state::UNREPLIED,
            (true, false) => flow_state::REPLIED,
            (true, true) => flow_state::STREAM,
        }
    }
}

fn converse(
    programs: &mut Programs,
    path: Path,
    v6: bool,
    steps: &[Datagram],
) -> Result<(), String> {
    let [client, frontend, backend] = path.ends(v6);
    let (mut now, mut source) = (0, client);
    let mut known: Option<Conversation> = None;
    for (number, step) in steps.iter().enumerate() {
        let way = match step {
            Datagram::Wait(seconds) => {
                now += seconds;
                programs.age_flows(*seconds);
                continue;
            }
            Datagram::Sent(way) => *way,
        };
        let (from, to) = if way == Way::Client { (client, frontend) } else { (backend, source) };
        let packet = udp(&from.to_string(), &to.to_string());
        let ran = programs.run(path.program(way), &packet);
        let about = |error: &str| format!("step {number}, {step:?}: {error}; {ran:?}");
        known = known.filter(|flow| now - flow.last < flow.time());
        let Some(flow) = &mut known else {
            if way == Way::Backend {
                if ran.packet[12..] != packet[12..] || ran.action != NEXT {
                    return Err(about("there is no flow"));
                }
                continue;
            }
            source = ran.source();
            let (is_answered, is_stream) = (false, false);
            known = Some(Conversation { opened: now, last: now, is_answered, is_stream });
            continue;
        };
        flow.is_stream |= flow.is_answered && now - flow.opened > 2;
        flow.is_answered |= way == Way::Backend;
        flow.last = now;
        let becomes = if way == Way::Client { (source, backend) } else { (frontend, client) };
        let action = if path == Path::Elsewhere { REDIRECT } else { NEXT };
        if (ran.action, ran.ends()) != (action, becomes) {
            return Err(about("it goes elsewhere"));
        }
        let (state, is_stream) = (flow.state(), flow.is_stream);
        let table = programs.flows();
        for held in
            [FlowKey::between(client, frontend, UDP), FlowKey::between(backend, source, UDP)]
        {
            let value = table.iter().find(|(key, _)| *key == held).map(|(_, value)| *value);
            let says = value.map(|value| (value.state, value.flags & flow_flags::ASSURED != 0));
            if says != Some((state, is_stream)) {
                return Err(about(&format!("{state} and the entry {value:?}")));
            }
        }
        let clock = seconds();
        let rested = table.iter().map(|(_, value)| clock.wrapping_sub(value.last_seen)).min();
        if rested.is_none_or(|rested| rested > 3) || programs.assured() != u64::from(is_stream) {
            return Err(about("time or number of assured flows"));
        }
    }
    Ok(())
}
