//! Source ports: for connections to backends on other nodes, for a pod that is its own backend, and
//! for a client port that leads to one backend by two frontends.
//!
//! The reverse entry of a flow is the claim: its key is {backend, this node's address and port}, and
//! it is inserted only where none is. So a port is free for every backend on its own, and the owner
//! of a port is the connection that answers on it.

use kproxy_common::{
    config::Config,
    drop_reason::DropReason,
    flow::{FlowKey, FlowValue, flow_flags, state::is_over},
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

/// Claims a source port: completes `key`'s destination port and inserts `value` under it.
#[inline(never)]
pub(crate) fn claim(ports: u32, key: &mut FlowKey, value: &FlowValue) -> Result<(), DropReason> {
    let Ports { first, count } = Ports::unpack(ports);
    let seed = source_port::hash(&value.to.dst, value.to.dst_port, value.to.src_port);
    // Where none is free, one whose connection is over, and of those the one that rested longest: the
    // backend may hold it in TIME_WAIT. Otherwise the longest of one that nobody has confirmed.
    let (mut best, mut least) = (Port(0), u32::MAX);
    let mut attempt = 0;
    while attempt < TRIES {
        key.dst_port = source_port::nth(first, count, seed, attempt);
        let Some(owner) = table::find(key, value.last_seen) else {
            return insert_new(ports, seed, key, value);
        };
        // Half the seconds leave a bit to say who comes last.
        let since = owner.last_seen >> 1;
        let rank = if is_over(owner.state) { since } else { since | CONFIRMED_BY_NOBODY };
        let gives_way = owner.flags & (flow_flags::ASSURED | flow_flags::COLLIDES) == 0;
        if gives_way && rank < least {
            (best, least) = (key.dst_port, rank);
        }
        attempt += 1;
    }
    if best.0 == 0 {
        return Err(DropReason::NoSourcePort);
    }
    key.dst_port = best;
    if let Some(old) = table::any(key) {
        table::forget(key, old);
    }
    insert_new(ports, seed, key, value)
}

/// Comes after every time of [`claim`].
const CONFIRMED_BY_NOBODY: u32 = 1 << 31;

/// Inserts under a key that was free a moment ago.
#[inline(always)]
fn insert_new(
    ports: u32,
    seed: u32,
    key: &mut FlowKey,
    value: &FlowValue,
) -> Result<(), DropReason> {
    if table::insert(key, value)? {
        return Ok(());
    }
    // Another CPU was faster: once more, with a port that was not looked at.
    let Ports { first, count } = Ports::unpack(ports);
    key.dst_port = source_port::nth(first, count, seed, TRIES);
    if table::insert(key, value)? { Ok(()) } else { Err(DropReason::NoSourcePort) }
}
