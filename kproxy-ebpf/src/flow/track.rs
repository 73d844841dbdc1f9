//! What packets tell of the connection that they belong to.

use kproxy_common::{
    flow::{FlowKey, FlowState, FlowValue, flow_flags},
    service::Word,
};

use super::{
    filter,
    table::{self, find},
};
use crate::{
    kernel::now,
    packet::Packet,
    service::{load, pick},
};

/// Seconds of silence after which netfilter may have forgotten a UDP connection: it must be asked
/// again to masquerade. `nf_conntrack_udp_timeout` is 30 unless an administrator shortens it.
const NETFILTER_MEMORY: u32 = 2;

/// Whether the packet belongs to the flow that was found for it, which then takes note of it. A SYN
/// that opens a new connection does not.
#[inline(always)]
pub(crate) fn continues_flow(packet: &Packet, value: &mut FlowValue) -> bool {
    let reverse = value.flags & flow_flags::REVERSE != 0;
    if packet.is_syn() && !reverse && end_if_over(&packet.key, value) {
        return false;
    }
    if reverse {
        value.flags |= flow_flags::REPLIED;
    } else if value.flags & flow_flags::MASQUERADE != 0 && packet.is_udp() {
        follow_netfilter(value);
    }
    touch(value, packet);
    true
}

/// Brings the forward entry of a masqueraded UDP flow in step with what netfilter knows: it remembers
/// the flow once it was answered, until the client rests. Out of line, to spare the caller's stack.
#[inline(never)]
fn follow_netfilter(forward: &mut FlowValue) {
    let rested = now().wrapping_sub(forward.last_seen) >= NETFILTER_MEMORY;
    if !rested && forward.flags & flow_flags::REPLIED != 0 {
        return;
    }
    let reverse = find(&forward.to.reversed());
    if rested {
        forward.flags &= !flow_flags::REPLIED;
        if let Some(reverse) = reverse {
            reverse.flags &= !flow_flags::REPLIED;
        }
    } else if reverse.is_some_and(|reverse| reverse.flags & flow_flags::REPLIED != 0) {
        forward.flags |= flow_flags::REPLIED;
    }
}

/// Records that a packet of this direction has passed.
#[inline(always)]
fn touch(value: &mut FlowValue, packet: &Packet) {
    let now = now();
    if value.last_seen != now {
        value.last_seen = now;
    }
    if packet.is_rst() {
        value.flags |= flow_flags::RST;
        end(value);
    } else if packet.is_fin() {
        value.flags |= flow_flags::FIN;
        end(value);
    }
}

/// Marks both entries of a connection that is over. Only its last packets get here.
#[inline(never)]
fn end(value: &mut FlowValue) {
    let Some(other) = find(&value.to.reversed()) else { return };
    if value.flags & flow_flags::RST != 0 || other.flags & flow_flags::FIN != 0 {
        value.flags |= flow_flags::OVER;
        other.flags |= flow_flags::OVER;
        if value.flags & flow_flags::COUNTED != 0 {
            load::ended(value, other);
        }
    }
}

/// Ends the connection of a forward entry when an opening packet starts a new one on the same
/// addresses and ports: the old one is over, or it was never answered and the backends have changed
/// since (the retry goes to a live backend). Both entries go: the new connection may be refused.
#[inline(never)]
fn end_if_over(key: &FlowKey, forward: &FlowValue) -> bool {
    let reverse_key = forward.to.reversed();
    let over = is_over(forward, &reverse_key);
    if over {
        table::remove(&reverse_key);
        table::remove(key);
    }
    over
}

#[inline(always)]
fn is_over(forward: &FlowValue, reverse_key: &FlowKey) -> bool {
    if forward.flags & flow_flags::OVER != 0 {
        return true;
    }
    let Some(reverse) = find(reverse_key) else { return true };
    if FlowState::of(forward, reverse) != FlowState::Opening {
        return false;
    }
    match pick::word(forward.service) {
        Some(packed) => Word::unpack(packed).generation != forward.generation,
        None => true,
    }
}

/// Ends a flow whose answers would be mistaken for those of the direct connection that this packet
/// opens (same client port, straight to the backend), if its answers have these `flags`.
#[inline(never)]
pub(crate) fn end_stale(direct: &FlowKey, flags: u16) {
    if !filter::has_flows_to(&direct.src) {
        return;
    }
    let reverse_key = direct.reversed();
    let Some(reverse) = find(&reverse_key) else { return };
    if reverse.flags & flags != flags {
        return;
    }
    let forward_key = reverse.to.reversed();
    // After the sweeper took the forward entry, the one that is there is of a newer flow.
    if find(&forward_key).is_some_and(|forward| forward.to == *direct) {
        table::remove(&forward_key);
    }
    table::remove(&reverse_key);
}
