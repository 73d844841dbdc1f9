//! Tells netfilter of connections that have a source port of this node. kube-proxy, whose masquerading gives out
//! such ports as well, then gives out none of these; and where a connection is left to netfilter it goes on.

use std::{
    collections::HashMap,
    io,
    time::{Duration, Instant},
};

use aya::maps::MapError;
use aya_obj::generated::BPF_EXIST;
use kproxy_common::{
    config::Config,
    flow::{CLAIMS, FlowKey, FlowState, FlowValue, flow_flags},
};

use crate::{
    dataplane::{connections::Connection, maps::Flows},
    node::ctnetlink::{Conntrack, Tracked},
};

/// Seconds that an entry lasts unless it is named again: nobody takes it away if this process is killed.
const LASTS: u32 = 120;
/// When it is named again.
const AGAIN: Duration = Duration::from_secs(40);

/// What netfilter was told.
#[derive(Default)]
pub(super) struct Told {
    conntrack: Option<Conntrack>,
    /// By the key of the forward entry.
    connections: HashMap<FlowKey, Entered>,
    /// Those that go through the stack, which netfilter follows by the backend's address.
    near: Vec<(FlowKey, Tracked)>,
    problem: Option<io::Error>,
}

struct Entered {
    tracked: Tracked,
    /// When it was named last, and how long it may rest from then on, in seconds.
    named: Instant,
    timeout: u32,
    is_open: bool,
}

impl Entered {
    /// Has the entry last, when it is time.
    fn name_again(&mut self, conntrack: &Conntrack) -> io::Result<()> {
        if self.named.elapsed() < AGAIN {
            return Ok(());
        }
        self.named = Instant::now();
        // Somebody may have flushed the table.
        conntrack.keep(&self.tracked, LASTS).or_else(|_| conntrack.enter(&self.tracked).map(drop))
    }
}

/// Keeps the first of all problems.
fn problem_of(problem: &mut Option<io::Error>, result: io::Result<()>) {
    if let Err(error) = result {
        problem.get_or_insert(error);
    }
}

impl Told {
    /// Enters those of these connections that have a source port of this node, and removes those that are open no
    /// more.
    pub(super) fn tell(&mut self, open: &[Connection<'_>], config: &Config) {
        let Self { conntrack, connections, near, problem } = self;
        let opened = match conntrack {
            Some(_) => Ok(()),
            None => Conntrack::open().map(|opened| *conntrack = Some(opened)),
        };
        problem_of(problem, opened);
        let Some(conntrack) = conntrack else { return };
        connections.values_mut().for_each(|entered| entered.is_open = false);
        near.clear();
        for connection in open {
            let Some((key, flags, tracked)) = tracked(connection) else { continue };
            let timeout = connection.timeout(config);
            if flags & flow_flags::SNAT == 0 {
                let is_near = flags & (flow_flags::MASQUERADE | CLAIMS) == 0;
                near.extend(is_near.then_some((key, Tracked { left: timeout, ..tracked })));
                continue;
            }
            let entered = match connections.get_mut(&key) {
                Some(entered) => {
                    (entered.is_open, entered.timeout) = (true, timeout);
                    entered.name_again(conntrack)
                }
                None => conntrack.enter(&tracked).map(|is_new| {
                    // What netfilter knows already has taken its port there.
                    if is_new {
                        let named = Instant::now();
                        connections.insert(key, Entered { tracked, named, timeout, is_open: true });
                    }
                }),
            };
            // One that is refused is no reason to leave the others out.
            problem_of(problem, entered);
        }
        connections.retain(|_, entered| {
            if !entered.is_open {
                // It may have gone by itself.
                conntrack.remove(&entered.tracked).ok();
            }
            entered.is_open
        });
    }

    /// Has netfilter translate them for as long as they may rest, and those that go through the stack as well; how
    /// many there are.
    pub(super) fn leave(&mut self, flows: &mut Flows) -> usize {
        let Self { conntrack, connections, near, .. } = self;
        let Some(conntrack) = conntrack else { return 0 };
        let mut left = 0;
        for (key, Entered { tracked, timeout, .. }) in connections {
            let is_kept = conntrack.keep(tracked, *timeout).is_ok();
            left += usize::from(is_kept && pass_on(flows, key).is_ok());
        }
        for (key, tracked) in near {
            // The answers bear the same addresses by either entry, so there can be one; a packet that the programs
            // translate between this and the next two would have netfilter choose another port for the client.
            let as_translated = Tracked { frontend: tracked.backend, ..*tracked };
            conntrack.remove(&as_translated).ok();
            let is_entered = matches!(conntrack.enter(tracked), Ok(true));
            left += usize::from(is_entered && pass_on(flows, key).is_ok());
        }
        left
    }

    pub(super) const fn problem(&self) -> Option<&io::Error> {
        self.problem.as_ref()
    }
}

/// Has the programs leave the connection with this forward key as it is.
fn pass_on(flows: &mut Flows, key: &FlowKey) -> Result<(), MapError> {
    let forward = flows.get(key, 0)?;
    let reverse_key = forward.to.reversed();
    let reverse = flows.get(&reverse_key, 0)?;
    for (key, value) in [(*key, forward), (reverse_key, reverse)] {
        let flags = value.flags & !flow_flags::KINDS | value.flags & flow_flags::REVERSE;
        let value = FlowValue { flags: flags | flow_flags::UNTRANSLATED, ..value };
        // Where it ended meanwhile, nothing is to be left.
        flows.insert(key, value, u64::from(BPF_EXIST))?;
    }
    Ok(())
}

/// A connection as netfilter would have it, its key and its flags.
fn tracked(connection: &Connection<'_>) -> Option<(FlowKey, u16, Tracked)> {
    let (key, forward) = connection.forward.filter(|_| !connection.is_lone())?;
    let tracked = Tracked {
        protocol: key.proto,
        client: key.source(),
        frontend: key.destination(),
        backend: forward.to.destination(),
        source: forward.to.source(),
        state: FlowState::from_number(forward.state)?,
        left: LASTS,
    };
    Some((*key, forward.flags, tracked))
}
