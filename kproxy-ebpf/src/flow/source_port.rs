//! Source ports: for connections to backends on other nodes, for a pod that is its own backend, and
//! for a client port that leads to one backend by two frontends.
//!
//! The reverse entry of a flow is the claim: its key is {backend, this node's address and port}, and
//! it is inserted only where none is. So a port is free for every backend on its own, and the owner
//! of a port is the connection that answers on it.

use kproxy_common::{
    config::Config,
    drop_reason::DropReason,
    flow::{FlowKey, FlowValue, flow_flags, flow_state, state::is_over},
    net::Port,
    source_port,
};

use super::table;

/// Source ports to choose from.
pub(crate) struct Ports {
    first: u16,
    count: u16,
}

impl Ports {
    /// Those of an address that is not this node's.
    pub(crate) const ANY: Self = Self { first: 1024, count: 64_512 };

    /// Those of this node.
    #[inline(always)]
    pub(crate) fn of(config: &Config) -> Self {
        Self { first: config.snat_first, count: config.snat_count }
    }

    /// For a register: a BPF function has five.
    #[inline(always)]
    pub(crate) const fn pack(self) -> u32 {
        (self.first as u32) << 16 | self.count as u32
    }

    #[inline(always)]
    const fn unpack(packed: u32) -> Self {
        Self { first: (packed >> 16) as u16, count: packed as u16 }
    }
}

/// Ports tried. At nine ports in ten taken, one connection in thirty would still find none free.
const TRIES: u32 = 32;

/// A claim: too much for the stack, and what it has found so far for the verifier, which would follow
/// both outcomes of each try to the end.
pub(super) struct Claim {
    /// Key of the reverse entry. Its destination port is what is claimed.
    pub(super) key: FlowKey,
    /// The reverse entry.
    pub(super) value: FlowValue,
    /// The port whose owner gives way first, 0: none so far, and that owner's [`rank`].
    best: Port,
    least: u32,
    /// What the backend expects next of a connection that it holds half-open for the port's last owner; 0:
    /// none that is known of.
    pub(super) expected: u32,
}

/// Claims a source port: completes the key and inserts the entry under it.
#[inline(never)]
pub(super) fn claim(ports: u32, claim: &mut Claim) -> Result<(), DropReason> {
    let Ports { first, count } = Ports::unpack(ports);
    let to = &claim.value.to;
    let seed = source_port::hash(&to.dst, to.dst_port, to.src_port);
    // Where none is free, one whose connection is over, and of those the one that rested longest: the
    // backend may hold it in TIME_WAIT. Otherwise the oldest that nobody has confirmed, to a few milliseconds:
    // an honest client's is one for a round trip, and a flood takes all ports within a second.
    (claim.best, claim.least) = (Port(0), u32::MAX);
    let mut attempt = 0;
    while attempt < TRIES {
        claim.key.dst_port = source_port::nth(first, count, seed, attempt);
        let Some(owner) = table::any(&claim.key) else { return insert_new(ports, seed, claim) };
        let rank = rank(owner, claim.value.opened);
        if rank < claim.least {
            (claim.best, claim.least) = (claim.key.dst_port, rank);
        }
        attempt += 1;
    }
    claim.key.dst_port = claim.best;
    if let Some(old) = table::find(&claim.key, claim.value.last_seen) {
        if claim.least >= ASSURED {
            return Err(DropReason::NoSourcePort);
        }
        if old.state == flow_state::RECEIVED {
            claim.expected = old.ack;
        }
        table::forget(&claim.key, old);
    }
    insert_new(ports, seed, claim)
}

/// From this [`rank`] on nobody gives way.
const ASSURED: u32 = 1 << 31;

/// Who gives way first has the least. An assured flow never does. `now`: ticks as in [`FlowValue::opened`].
#[inline(always)]
fn rank(owner: &FlowValue, now: u16) -> u32 {
    // By shifts: BPF makes a branch of every comparison, and the verifier walks both ways of it at each
    // of the tries.
    let is_over = OVER >> (owner.state & 31) & 1;
    let flags = u32::from(owner.flags);
    let assured = flags / u32::from(flow_flags::ASSURED);
    let collides = flags / u32::from(flow_flags::COLLIDES);
    let keeps = (assured | collides) & 1;
    let youth = u32::from(!now.wrapping_sub(owner.opened));
    // All ones if it is over.
    let rested = is_over.wrapping_neg();
    owner.last_seen >> 2 & rested | (youth | 1 << 30) & !rested | keeps << 31
}

/// Bits of the states in which a connection is over.
const OVER: u32 = {
    let (mut bits, mut state) = (0, 0);
    while state < flow_state::COUNT {
        bits |= (is_over(state) as u32) << state;
        state += 1;
    }
    bits
};

/// Inserts under a key that was free a moment ago.
#[inline(always)]
fn insert_new(ports: u32, seed: u32, claim: &mut Claim) -> Result<(), DropReason> {
    if table::insert(&claim.key, &claim.value)? {
        return Ok(());
    }
    // Another CPU was faster: once more, with a port that was not looked at.
    let Ports { first, count } = Ports::unpack(ports);
    claim.key.dst_port = source_port::nth(first, count, seed, TRIES);
    let is_free = table::insert(&claim.key, &claim.value)?;
    if is_free { Ok(()) } else { Err(DropReason::NoSourcePort) }
}
