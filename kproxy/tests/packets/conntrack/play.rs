//! One connection through the programs and through the rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kproxy_common::flow::track::segment_flags::{ACK, RST, SYN};
use kproxy_common::flow::{FlowKey, FlowValue, flow_flags};
use kproxy_common::net::proto::TCP;
use nix::time::{ClockId, clock_gettime};

use super::cases::{Case, Learnt, Number, Path, Step};
use super::ends::{Act, End, Mode};
use super::rules::{Fate, Tracked, Way};
use crate::harness::{
    DEVICE_MAC, NEXT, Programs, REDIRECT, Ran, Segment, ends, tcp_with, with_ttl,
};

/// Packets under way at most: what is more is lost.
const UNDER_WAY: usize = 16;
/// Seconds that the clock of the programs and that of the model may be apart.
const SLACK: u32 = 3;

/// The flow that there should be.
struct Flow {
    tracked: Tracked,
    /// Source that the backend sees.
    source: SocketAddr,
    /// Time of the last packet that counted.
    last: u32,
}

impl Flow {
    fn is_up(&self, now: u32) -> bool {
        now - self.last >= self.tracked.state.number_and_time().1
    }
}

pub(super) struct Play<'a> {
    programs: &'a mut Programs,
    case: &'a Case,
    client: End,
    /// Ends of the backend, by the source that they see.
    backends: BTreeMap<SocketAddr, End>,
    /// Where the backend's answers go.
    source: SocketAddr,
    flow: Option<Flow>,
    under_way: Vec<(Way, SocketAddr, Segment)>,
    now: u32,
    /// The number after what the forger said last.
    said: u32,
}

/// Seconds of the clock that the programs read.
pub(super) fn seconds() -> u32 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().tv_sec() as u32
}

impl<'a> Play<'a> {
    pub(super) fn new(programs: &'a mut Programs, case: &'a Case) -> Self {
        let [client, ..] = case.path.ends(case.v6);
        Self {
            programs,
            case,
            client: End::new(false, case.isn),
            backends: BTreeMap::new(),
            source: client,
            flow: None,
            under_way: Vec::new(),
            now: 0,
            said: case.isn.wrapping_add(0x3000_0000),
        }
    }

    pub(super) fn all(mut self) -> Result<(), String> {
        for (number, step) in self.case.steps.iter().enumerate() {
            self.step(step).and_then(|()| self.compare()).map_err(|error| {
                let state = self.flow.as_ref().map(|flow| flow.tracked.clone());
                format!("step {number}, {step:?}: {error}; {state:?}")
            })?;
        }
        Ok(())
    }

    fn backend(&mut self) -> &mut End {
        let isn = self.case.isn.wrapping_add(1 << 31);
        self.backends.entry(self.source).or_insert_with(|| End::new(true, isn))
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Act { way, act } => {
                let sent = match way {
                    Way::Client => self.client.act(*act),
                    Way::Backend => self.backend().act(*act),
                };
                if let Some(sent) = sent {
                    if *act == Act::Connect {
                        // What is left of the connection before has died out meanwhile.
                        self.under_way.clear();
                    }
                    self.send(*way, sent);
                }
                Ok(())
            }
            Step::Lose { which } if !self.under_way.is_empty() => {
                self.under_way.remove(which.index(self.under_way.len()));
                Ok(())
            }
            Step::Deliver { which, again, lost } if !self.under_way.is_empty() => {
                self.deliver(which.index(self.under_way.len()), *again, *lost)
            }
            Step::Lose { .. } | Step::Deliver { .. } => Ok(()),
            Step::Settle => {
                for _ in 0..UNDER_WAY {
                    if self.under_way.is_empty() {
                        break;
                    }
                    self.deliver(0, false, false)?;
                    self.compare()?;
                }
                Ok(())
            }
            Step::Forge { flags, seq, ack, data } => {
                let data = if flags & (SYN | RST) == 0 { *data } else { 0 };
                self.forge(*flags, *seq, *ack, data)
            }
            Step::Wait(seconds) => {
                self.now += seconds;
                self.programs.age_flows(*seconds);
                Ok(())
            }
        }
    }

    fn send(&mut self, way: Way, sent: Segment) {
        self.under_way.push((way, self.source, sent));
        if self.under_way.len() > UNDER_WAY {
            self.under_way.remove(0);
        }
    }

    fn deliver(&mut self, place: usize, again: bool, lost: bool) -> Result<(), String> {
        let (way, source, sent) =
            if again { self.under_way[place] } else { self.under_way.remove(place) };
        // An end of the backend whose connection nobody leads to it any more.
        if way == Way::Backend && source != self.source {
            return Ok(());
        }
        let lived = self.lives();
        let was_assured = self.is_assured();
        let was_known = self.is_known();
        let translated = self.pass(way, sent)?;
        if lived && was_assured && !translated {
            return Err(format!("{sent:?} of a connection that lives is left alone"));
        }
        if translated && !lost {
            self.receive(way, &sent);
        }
        let stays = was_assured && was_known && !sent.has(RST);
        if lived && stays && self.lives() && !self.is_assured() {
            return Err(format!("after {sent:?} a connection that lives is not assured"));
        }
        Ok(())
    }

    fn receive(&mut self, way: Way, sent: &Segment) {
        let answer = match way {
            Way::Client => self.backend().receive(sent),
            Way::Backend => self.client.receive(sent),
        };
        if let Some(answer) = answer {
            self.send(way.other(), answer);
        }
    }

    /// Whether both ends are open to each other, and not both have said that they close.
    fn lives(&mut self) -> bool {
        let backend = self.backend().clone();
        self.client.is_paired_with(&backend)
            && (self.client.mode, backend.mode) == (Mode::Open, Mode::Open)
            && !(self.client.fin_sent && backend.fin_sent)
    }

    /// Whether the flow is about the connection that the ends have. Where somebody else's SYN has hidden the
    /// one that began it, the flow is still about the one before, and learns of it by the next SYN-ACK.
    fn is_known(&mut self) -> bool {
        let ends = [self.client.next, self.backend().next];
        self.flow.as_ref().is_some_and(|flow| flow.tracked.is_near(ends))
    }

    fn is_assured(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.tracked.is_assured() && !flow.is_up(self.now))
    }

    /// A packet in the name of one end. It may not do what only the ends may.
    fn forge(&mut self, flags: u8, seq: Number, ack: Number, data: u32) -> Result<(), String> {
        let (way, mut learnt) = self.case.forger;
        if flags & (SYN | RST) != 0 && self.client.mode != Mode::Open {
            // A client that dials takes these from whoever knows what it acknowledges.
            learnt = Learnt::Nothing;
        }
        let backend = self.backend().clone();
        let (seq_known, ack_known) = match way {
            Way::Client => (self.client.next, backend.next),
            Way::Backend => (backend.next, self.client.next),
        };
        // An eighth of the circle and more from both ends' numbers, and from those of forged SYNs.
        let away = if flags == SYN { 0x2000_0000 } else { 0x5000_0000 };
        let far = |guess: u32| self.case.isn.wrapping_add(away + guess % 0x1000_0000);
        // With a number of its own and one that it has learnt it would know both.
        let number = |number| match number {
            Number::Guess(guess) => far(guess),
            Number::Own if self.case.forger.1 == Learnt::Acknowledgement => far(0),
            Number::Own => self.said,
        };
        // Who knows the sequence number may reset: the receiver takes it.
        let knows_seq = learnt == Learnt::Sequence && flags & RST == 0;
        let seq = if knows_seq { seq_known } else { number(seq) };
        let ack = if learnt == Learnt::Acknowledgement { ack_known } else { number(ack) };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        let sent = Segment { flags, seq, ack, data };
        if !knows_seq {
            self.said = sent.end();
        }
        let was_assured = self.is_assured();
        let before = self.entries();
        let translated = self.pass(way, sent)?;
        let after = self.entries();
        let without_syn = |entries: &[Option<FlowValue>; 2]| {
            entries.map(|entry| entry.map(|value| FlowValue { syn: 0, ..value }))
        };
        // A forger whose SYN the client has taken for the backend's has a connection of its own.
        let is_genuine = was_assured && self.client.is_paired_with(&backend);
        if is_genuine && without_syn(&before) != without_syn(&after) {
            return Err(format!("{sent:?} is forged and changes {before:?} to {after:?}"));
        }
        if !was_assured && self.is_assured() {
            return Err(format!("{sent:?} is forged and makes the flow assured"));
        }
        if translated {
            self.receive(way, &sent);
        }
        Ok(())
    }

    /// Both entries of the flow.
    fn entries(&mut self) -> [Option<FlowValue>; 2] {
        let [client, frontend, backend] = self.case.path.ends(self.case.v6);
        let keys =
            [FlowKey::between(client, frontend, TCP), FlowKey::between(backend, self.source, TCP)];
        let table = self.programs.flows();
        keys.map(|key| table.iter().find(|(held, _)| *held == key).map(|(_, value)| *value))
    }

    /// A packet comes to the node. Whether it goes on translated.
    fn pass(&mut self, way: Way, sent: Segment) -> Result<bool, String> {
        let [client, frontend, backend] = self.case.path.ends(self.case.v6);
        let (from, to) = match way {
            Way::Client => (client, frontend),
            Way::Backend => (backend, self.source),
        };
        let packet = framed(from, to, &sent);
        let ran = self.programs.run(self.case.path.program(way), &packet);
        if self.flow.as_ref().is_some_and(|flow| flow.is_up(self.now)) {
            self.flow = None;
        }
        let opens = way == Way::Client && sent.flags & (SYN | ACK | RST) == SYN;
        let fate = match &mut self.flow {
            Some(flow) => flow.tracked.take(way, &sent),
            None if opens => Fate::OpensAnew,
            None => Fate::LeftAlone,
        };
        let wanted = match (fate, &mut self.flow) {
            (Fate::LeftAlone, _) => {
                let is_untouched = (ran.action, &ran.packet) == (NEXT, &packet);
                return if is_untouched { Ok(false) } else { Err(wrong(way, &sent, fate, &ran)) };
            }
            (Fate::OpensAnew, _) => {
                let (source, _) = ends(&ran.packet);
                self.check_source(source)?;
                self.source = source;
                let tracked = Tracked::open(&sent, self.case.path == Path::Elsewhere);
                self.flow = Some(Flow { tracked, source, last: self.now });
                (source, backend)
            }
            (_, Some(flow)) => {
                if fate == Fate::Counts {
                    flow.last = self.now;
                }
                match way {
                    Way::Client => (flow.source, backend),
                    Way::Backend => (frontend, client),
                }
            }
            (_, None) => unreachable!("only flows have packets"),
        };
        let is_elsewhere = self.case.path == Path::Elsewhere;
        let mut packet = framed(wanted.0, wanted.1, &sent);
        if is_elsewhere {
            packet = with_ttl(&packet, 63);
        }
        let action = if is_elsewhere { REDIRECT } else { NEXT };
        if (ran.action, &ran.packet) != (action, &packet) {
            return Err(wrong(way, &sent, fate, &ran));
        }
        Ok(true)
    }

    fn check_source(&self, source: SocketAddr) -> Result<(), String> {
        let [client, frontend, _] = self.case.path.ends(self.case.v6);
        let fits = if self.case.path == Path::Elsewhere {
            source.ip() == frontend.ip() && (20_000..20_100).contains(&source.port())
        } else {
            source.ip() == client.ip() && source.port() >= 1024
        };
        if fits { Ok(()) } else { Err(format!("the source becomes {source}")) }
    }

    /// Both entries say what the rules say, and so does the number of assured flows.
    fn compare(&mut self) -> Result<(), String> {
        let [client, frontend, backend] = self.case.path.ends(self.case.v6);
        let [forward, reverse] = self.entries();
        let Some(flow) = &self.flow else {
            return if forward.is_none() { Ok(()) } else { Err(format!("{forward:?} is left")) };
        };
        let (Some(forward), Some(reverse)) = (forward, reverse) else {
            return Err(format!("entries {forward:?} and {reverse:?}"));
        };
        let becomes =
            (FlowKey::between(flow.source, backend, TCP), FlowKey::between(frontend, client, TCP));
        if (forward.to, reverse.to) != becomes {
            return Err(format!("{forward:?} and {reverse:?} lead elsewhere"));
        }
        let (number, _) = flow.tracked.state.number_and_time();
        let is_assured = |value: &FlowValue| value.flags & flow_flags::ASSURED != 0;
        let held = [forward, reverse].map(|value| (value.state, is_assured(&value)));
        if held != [(number, flow.tracked.is_assured()); 2] {
            return Err(format!("states and whether assured: {held:?}"));
        }
        let now = seconds();
        let rested = [forward, reverse].map(|value| now.wrapping_sub(value.last_seen));
        let idle = rested[0].min(rested[1]);
        let wanted = self.now - flow.last;
        if !(wanted..=wanted + SLACK).contains(&idle) {
            return Err(format!("it has rested for {idle} s and not {wanted} s"));
        }
        let counted = self.programs.assured();
        let wanted = u64::from(flow.tracked.is_assured());
        if counted != wanted {
            return Err(format!("{counted} flows count as assured, not {wanted}"));
        }
        Ok(())
    }
}

fn wrong(way: Way, sent: &Segment, fate: Fate, ran: &Ran) -> String {
    format!("{way:?} {sent:?} should be {fate:?}: {ran:?}")
}

fn framed(from: SocketAddr, to: SocketAddr, sent: &Segment) -> Vec<u8> {
    let mut packet = tcp_with(from, to, sent);
    packet[..6].copy_from_slice(&DEVICE_MAC);
    packet
}
