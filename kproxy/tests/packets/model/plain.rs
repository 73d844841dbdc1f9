//! The plain model: what the programs should do, said without maps, hashes or bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use kproxy_common::abi::MARK_MASQUERADE;
use kproxy_common::counters::NO_SERVICE;
use kproxy_common::drop_reason::DropReason;
use kproxy_common::net::proto::{SCTP, UDP};
use kproxy_common::service::{cluster_index, empty_verdict};

use super::cases::{Act, BACKENDS, Case, Ends, Hook, NODE, Set, ip};
use super::life::Life;
use super::lookup::{Dialled, holds};
use crate::conntrack::rules::{Fate as Verdict, Way};
use crate::harness::{NEXT, REDIRECT, SHOT};

/// Source ports that the programs give out.
pub(super) const PORTS: std::ops::Range<u16> = 20_000..20_100;
/// The address of the device that the third network of backends is behind, a family.
pub(super) const OVERLAY: [&str; 2] = ["10.244.1.0", "fd00:10:244:1::"];
/// Seconds that a step [`super::cases::Step::Rest`] takes.
pub(super) const REST: u32 = 5;
/// Seconds that an entry without its other half lasts.
const LONE: u32 = 30;
/// Seconds after which netfilter may have forgotten a UDP conversation.
const NETFILTER_MEMORY: u32 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The source stays.
    Plain,
    /// Netfilter changes the source.
    Masquerade,
    /// The programs do.
    Snat,
    /// A pod is its own backend and sees the frontend as its client.
    Hairpin,
    /// The client is a process of this node.
    Node,
}

/// Who opens a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sender {
    Outside,
    Pod,
    Node,
}

impl Sender {
    const fn of(pod: bool) -> Self {
        if pod { Self::Pod } else { Self::Outside }
    }
}

/// A connection that is translated.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// As the client sends.
    pub(super) dialled: Ends,
    /// As the backend receives.
    pub(super) to: Ends,
    pub(super) kind: Kind,
    pub(super) service: u32,
    /// How often the set had changed when the backend was chosen.
    version: u32,
    /// Time of the last request and of the last answer.
    seen: [u32; 2],
    pub(super) life: Life,
    answered: bool,
    /// Netfilter knows it.
    pub(super) known: bool,
    /// The client's entry has given way to a new flow's: answers under way pass.
    pub(super) alone: bool,
}

impl Flow {
    /// Whether nobody has sent for so long that it is forgotten.
    fn is_up(&self, now: u32) -> bool {
        if self.alone {
            return now - self.seen[1] >= LONE;
        }
        now - self.seen[0].max(self.seen[1]) >= self.life.state_and_time().1
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It goes on as it is.
    Untouched,
    Dropped,
    /// The sender is told that nobody listens.
    Refused,
    /// It goes on with these ends.
    Becomes {
        ends: Ends,
        action: i32,
        mark: u32,
        turned: bool,
        /// It is one hop further.
        forwarded: bool,
    },
}

/// What the programs were seen to do with a packet that opens a flow: which of the allowed ways
/// they took is theirs to choose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) action: i32,
    /// Ends of the packet that came out, if it has any.
    pub(super) ends: Option<Ends>,
}

pub(super) struct Model {
    pub(super) case: Case,
    /// By service index.
    sets: BTreeMap<u32, (Set, u32)>,
    pub(super) flows: Vec<Flow>,
    /// Flows whose time is up: their entries may be there until somebody finds them.
    pub(super) forgotten: Vec<Flow>,
    now: u32,
    /// A pod-facing port has opened flows.
    pods_have_flows: bool,
    /// A process of this node has opened flows.
    node_has_flows: bool,
    /// The backend that a client was given last.
    memory: BTreeMap<(IpAddr, u32), SocketAddr>,
    /// Connections, packets and bytes by service index.
    pub(super) counters: BTreeMap<u32, (u64, u64, u64)>,
    pub(super) drops: BTreeMap<(u32, u32), u64>,
}

/// Service port `i` of a case has the id `i + 1`.
pub(super) fn index(service_port: usize, local: u32) -> u32 {
    cluster_index(service_port as u32 + 1) + local
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.trim_start_matches('L').parse().unwrap()
}

impl Model {
    pub(super) fn new(case: &Case) -> Self {
        let sets = case.service_ports.iter().enumerate().flat_map(|(i, service_port)| {
            [0, 1].map(|local| (index(i, local), (service_port.sets[local as usize].clone(), 0)))
        });
        Self {
            case: case.clone(),
            sets: sets.collect(),
            flows: Vec::new(),
            forgotten: Vec::new(),
            now: 1000,
            pods_have_flows: false,
            node_has_flows: false,
            memory: BTreeMap::new(),
            counters: BTreeMap::new(),
            drops: BTreeMap::new(),
        }
    }

    pub(super) fn publish(&mut self, service: u32, set: Set) {
        let (old, version) = self.sets.get_mut(&service).unwrap();
        *old = set;
        *version += 1;
    }

    pub(super) fn rest(&mut self) {
        self.now += REST;
    }

    /// What should become of a packet of `bytes` bytes, given what was seen where that is open. An
    /// error says what was seen that may not be.
    pub(super) fn take(
        &mut self,
        hook: Hook,
        ends: Ends,
        act: Act,
        bytes: usize,
        seen: Seen,
    ) -> Result<Fate, String> {
        let now = self.now;
        let (gone, flows) = self.flows.drain(..).partition(|flow| flow.is_up(now));
        self.flows = flows;
        self.forgotten.extend::<Vec<Flow>>(gone);
        match hook {
            Hook::Ingress => self.comes_in(false, ends, act, bytes, seen),
            Hook::PodIngress => self.comes_in(true, ends, act, bytes, seen),
            Hook::Egress => self.goes_out(false, ends, act, bytes, seen),
            Hook::PodEgress => self.goes_out(true, ends, act, bytes, seen),
        }
    }

    fn comes_in(
        &mut self,
        pod: bool,
        ends: Ends,
        act: Act,
        bytes: usize,
        seen: Seen,
    ) -> Result<Fate, String> {
        let opens = ends.proto == UDP || act == Act::Open;
        let syn = ends.proto != UDP && act == Act::Open;
        let have_flows = self.pods_have_flows || self.node_has_flows;
        if pod && !have_flows && self.is_ruled_out(&ends.to.ip()) {
            return Ok(Fate::Untouched);
        }
        if let Some(i) = self.asked_by(ends).or_else(|| self.answered_by(ends))
            && match self.flows[i].kind {
                Kind::Snat => pod,
                Kind::Hairpin => !pod,
                // All backends are reached by uplinks here.
                Kind::Node => pod,
                Kind::Plain | Kind::Masquerade => false,
            }
        {
            return Ok(Fate::Untouched);
        }
        if let Some(i) = self.asked_by(ends) {
            if self.flows[i].kind == Kind::Node {
                // Somebody pretends to be this node.
                return Ok(Fate::Untouched);
            }
            if !self.gives_way(i, syn) {
                return Ok(self.passes(i, 0, pod, act, bytes));
            }
            self.end(i);
        } else if let Some(i) = self.answered_by(ends) {
            if matches!(self.flows[i].kind, Kind::Snat | Kind::Hairpin | Kind::Node) {
                return Ok(self.passes(i, 1, pod, act, bytes));
            }
            if !syn {
                return Ok(Fate::Untouched);
            }
        }
        if !opens {
            return Ok(Fate::Untouched);
        }
        let (service_port, frontend) = match self.lookup(ends) {
            Dialled::Frontend(service_port, frontend) => (service_port, frontend.clone()),
            Dialled::UnknownPort => {
                self.count_drop(NO_SERVICE, DropReason::UnknownPort);
                return Ok(Fate::Refused);
            }
            Dialled::Nothing => {
                self.flows.retain(|flow| flow.to != ends || !flow.life.is_over());
                if !self.flows.iter().any(|flow| flow.to == ends) {
                    return Ok(Fate::Untouched);
                }
                // The backend has a flow with these addresses and ports: another port.
                self.pods_have_flows |= pod;
                return self.open_direct(ends, act, bytes, seen);
            }
        };
        let local = if pod { frontend.internal } else { frontend.external };
        let service = index(service_port as usize, local);
        if !self.is_allowed(service_port, &frontend, &ends.from.ip()) {
            self.count_drop(service, DropReason::SourceNotAllowed);
            return Ok(Fate::Dropped);
        }
        if self.sets[&service].0.backends.is_empty() {
            return Ok(self.no_backend(service));
        }
        self.pods_have_flows |= pod;
        self.open(Sender::of(pod), service_port, service, ends, act, bytes, seen)
    }

    /// All that leaves by an uplink is made here.
    fn goes_out(
        &mut self,
        pod: bool,
        ends: Ends,
        act: Act,
        bytes: usize,
        seen: Seen,
    ) -> Result<Fate, String> {
        if pod && !self.pods_have_flows {
            return Ok(Fate::Untouched);
        }
        if let Some(i) = self.answered_by(ends) {
            if matches!(self.flows[i].kind, Kind::Snat | Kind::Hairpin | Kind::Node) {
                return Ok(Fate::Untouched);
            }
            return Ok(self.passes(i, 1, false, act, bytes));
        }
        let opens = ends.proto == UDP || act == Act::Open;
        if let Some(i) = self.asked_by(ends) {
            if pod || self.flows[i].kind != Kind::Node {
                return Ok(Fate::Untouched);
            }
            if !self.gives_way(i, ends.proto != UDP && act == Act::Open) {
                return Ok(self.passes(i, 0, false, act, bytes));
            }
            self.end(i);
        }
        if pod || !opens {
            return Ok(Fate::Untouched);
        }
        self.dials(ends, act, bytes, seen)
    }

    /// A process of this node whose socket no hook has given a backend.
    fn dials(&mut self, ends: Ends, act: Act, bytes: usize, seen: Seen) -> Result<Fate, String> {
        let (service_port, frontend) = match self.lookup(ends) {
            Dialled::Frontend(service_port, frontend) => (service_port, frontend.clone()),
            Dialled::UnknownPort => {
                self.count_drop(NO_SERVICE, DropReason::UnknownPort);
                return Ok(Fate::Refused);
            }
            Dialled::Nothing if holds("10.96.0.0", 16, &ends.to.ip()) => {
                self.count_drop(NO_SERVICE, DropReason::FreeServiceAddress);
                return Ok(Fate::Dropped);
            }
            Dialled::Nothing => {
                // Others are passed on at a glance: the node's own ports are none that are given out.
                if self.case.by_packets || ends.proto == SCTP {
                    self.flows.retain(|flow| flow.to != ends || !flow.life.is_over());
                }
                return Ok(Fate::Untouched);
            }
        };
        let service = index(service_port as usize, frontend.internal);
        if !self.is_allowed(service_port, &frontend, &ends.from.ip()) {
            self.count_drop(service, DropReason::SourceNotAllowed);
            return Ok(Fate::Dropped);
        }
        self.node_has_flows = true;
        if self.sets[&service].0.backends.is_empty() {
            return Ok(self.no_backend(service));
        }
        self.open(Sender::Node, service_port, service, ends, act, bytes, seen)
    }

    fn asked_by(&self, ends: Ends) -> Option<usize> {
        self.flows.iter().position(|flow| flow.dialled == ends && !flow.alone)
    }

    fn answered_by(&self, ends: Ends) -> Option<usize> {
        self.flows.iter().position(|flow| flow.to.reversed() == ends)
    }

    fn count_drop(&mut self, service: u32, reason: DropReason) {
        *self.drops.entry((service, reason as u32)).or_default() += 1;
    }

    /// Refuses or drops as the verdict of the empty set says.
    fn no_backend(&mut self, service: u32) -> Fate {
        if self.sets[&service].0.verdict == empty_verdict::REJECT {
            self.count_drop(service, DropReason::NoBackend);
            Fate::Refused
        } else {
            self.count_drop(service, DropReason::NoLocalBackend);
            Fate::Dropped
        }
    }

    /// Whether a packet of the client starts a new connection in place of this one: it has ended, or it
    /// was never answered and the backends have changed, or its backend has left.
    fn gives_way(&mut self, i: usize, syn: bool) -> bool {
        let flow = &self.flows[i];
        let Some((set, version)) = self.sets.get(&flow.service) else {
            return syn && flow.life.opens_anew();
        };
        let has_changed = flow.version != *version;
        if flow.dialled.proto != UDP {
            return syn && (flow.life.opens_anew() || flow.life.is_opening() && has_changed);
        }
        let is_member = set.backends.iter().any(|text| address(text) == flow.to.to);
        if has_changed && is_member {
            self.flows[i].version = *version;
        }
        has_changed && !is_member
    }

    /// A new connection takes the place of this one.
    fn end(&mut self, i: usize) {
        let flow = &mut self.flows[i];
        if flow.dialled.proto == UDP || flow.life.collides() {
            flow.alone = true;
        } else {
            self.flows.remove(i);
        }
    }

    /// A packet of an open flow: `way` 0 is the client's, 1 the backend's.
    fn passes(&mut self, i: usize, way: usize, pod: bool, act: Act, bytes: usize) -> Fate {
        let now = self.now;
        let flow = &mut self.flows[i];
        let udp = flow.dialled.proto == UDP;
        if way == 1 {
            flow.answered = true;
        } else if udp && flow.kind == Kind::Masquerade {
            if now - flow.seen[0] >= NETFILTER_MEMORY {
                (flow.answered, flow.known) = (false, false);
            } else if flow.answered {
                flow.known = true;
            }
        }
        if flow.alone {
            // Without its other half it cannot be told whose it is, if there are two.
            if !udp {
                return Fate::Untouched;
            }
            flow.seen[1] = now;
        } else {
            let by = if way == 0 { Way::Client } else { Way::Backend };
            match flow.life.take(by, act, now) {
                Verdict::Counts => flow.seen[way] = now,
                Verdict::LeftAlone => return Fate::Untouched,
                Verdict::Passes | Verdict::OpensAnew => {}
            }
        }
        self.translate(i, way, pod, act, bytes)
    }

    fn translate(&mut self, i: usize, way: usize, pod: bool, act: Act, bytes: usize) -> Fate {
        let flow = &self.flows[i];
        let ends = if way == 0 { flow.to } else { flow.dialled.reversed() };
        let first = if flow.dialled.proto == UDP { !flow.known } else { act == Act::Open };
        let marked = way == 0 && flow.kind == Kind::Masquerade && first;
        let turned = pod && flow.kind == Kind::Hairpin;
        // Answers that come in elsewhere than requests leave are handed over at another device.
        let is_handed = flow.kind == Kind::Node
            && (way == 0 || flow.to.to == address(BACKENDS[usize::from(ends.to.is_ipv6())][4]));
        let forwarded = flow.kind == Kind::Snat;
        let redirected = turned || forwarded || is_handed;
        let counters = self.counters.entry(flow.service).or_default();
        (counters.1, counters.2) = (counters.1 + 1, counters.2 + bytes as u64);
        Fate::Becomes {
            ends,
            action: if redirected { REDIRECT } else { NEXT },
            mark: if marked { MARK_MASQUERADE } else { 0 },
            turned,
            forwarded,
        }
    }

    /// How a connection to this backend is translated, and the source address that it sees.
    fn manner(&self, sender: Sender, ends: Ends, backend: &str) -> (Kind, IpAddr) {
        let (client, to) = (ends.from.ip(), address(backend).ip());
        let v6 = usize::from(to.is_ipv6());
        let source = ip(if backend == BACKENDS[v6][4] { OVERLAY[v6] } else { NODE[v6] });
        let pod = match sender {
            Sender::Node => return (Kind::Node, source),
            Sender::Pod => true,
            Sender::Outside => false,
        };
        let changed = if pod { client == to } else { !backend.starts_with('L') };
        match (changed, self.case.own_ports) {
            (false, _) => (Kind::Plain, client),
            (true, false) => (Kind::Masquerade, client),
            (true, true) if pod => (Kind::Hairpin, ends.to.ip()),
            (true, true) => (Kind::Snat, source),
        }
    }

    /// Whether answers of a backend to these ends already belong to a live connection.
    fn is_taken(&self, to: Ends, dialled: Ends) -> bool {
        let same = |flow: &&Flow| flow.to == to && !flow.life.is_over();
        self.flows
            .iter()
            .find(same)
            .is_some_and(|flow| flow.dialled != dialled || flow.life.collides())
    }

    /// A connection past every frontend that gets another port.
    fn open_direct(
        &mut self,
        ends: Ends,
        act: Act,
        bytes: usize,
        seen: Seen,
    ) -> Result<Fate, String> {
        let Some(to) = seen.ends.filter(|to| {
            (to.to, to.from.ip()) == (ends.to, ends.from.ip()) && !self.is_taken(*to, ends)
        }) else {
            return Err("a direct connection gets another port".to_owned());
        };
        self.flows.retain(|flow| flow.to != to);
        self.flows.push(Flow {
            dialled: ends,
            to,
            kind: Kind::Plain,
            service: NO_SERVICE,
            version: 0,
            seen: [self.now; 2],
            life: Life::open(ends.proto, self.now, false),
            answered: false,
            known: false,
            alone: false,
        });
        Ok(self.translate(self.flows.len() - 1, 0, false, act, bytes))
    }

    #[expect(clippy::too_many_arguments, reason = "all that a packet and its Service say")]
    fn open(
        &mut self,
        sender: Sender,
        service_port: u32,
        service: u32,
        ends: Ends,
        act: Act,
        bytes: usize,
        seen: Seen,
    ) -> Result<Fate, String> {
        let (Set { backends, .. }, version) = self.sets[&service].clone();
        let all: BTreeSet<SocketAddr> = backends.iter().map(|text| address(text)).collect();
        let sticky = self.case.service_ports[service_port as usize].affinity != 0;
        let memory_key = (ends.from.ip(), service_port);
        let Some(to) = seen.ends.filter(|_| seen.action != SHOT) else {
            return Err("no packet came out".to_owned());
        };
        let allowed = match self.memory.get(&memory_key) {
            // The client comes back to its backend, if that is still one.
            Some(backend) if sticky && all.contains(backend) => BTreeSet::from([*backend]),
            _ => all,
        };
        if !allowed.contains(&to.to) {
            return Err(format!("the backend {} is none of {allowed:?}", to.to));
        }
        if sticky {
            self.memory.insert(memory_key, to.to);
        }
        let text = backends.iter().find(|text| address(text) == to.to).unwrap();
        let (kind, source) = self.manner(sender, ends, text);
        let own = Ends { from: (source, ends.from.port()).into(), ..to };
        // Another connection of this client port has answers of this backend: the backend sees
        // another port of the client.
        let port_fits = match kind {
            Kind::Snat | Kind::Hairpin => PORTS.contains(&to.from.port()),
            Kind::Node if self.case.own_ports => PORTS.contains(&to.from.port()),
            _ if self.is_taken(own, ends) => to.from.port() >= 1024,
            _ => to == own,
        };
        if to.from.ip() != source || !port_fits || self.is_taken(to, ends) {
            return Err(format!("{kind:?}: the source is {}", to.from));
        }
        // What is left of an earlier connection gives way.
        self.flows.retain(|flow| flow.to != to);
        self.flows.push(Flow {
            dialled: ends,
            to,
            kind,
            service,
            version,
            seen: [self.now; 2],
            life: Life::open(ends.proto, self.now, kind == Kind::Snat),
            answered: false,
            known: false,
            alone: false,
        });
        self.counters.entry(service).or_default().0 += 1;
        let pod = sender == Sender::Pod;
        Ok(self.translate(self.flows.len() - 1, 0, pod, act, bytes))
    }
}
