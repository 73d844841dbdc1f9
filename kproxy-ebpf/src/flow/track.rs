//! What packets tell of the connection that they belong to; which of it is believed, and what follows,
//! says [`kproxy_common::flow::track`].

use kproxy_common::{
    counters::NO_SERVICE,
    flow::{
        FlowKey, FlowValue, flow_flags, flow_state,
        state::{is_confirmed, is_over},
        track::{self, Taken, segment_flags},
    },
    net::proto,
    service::Word,
};

use super::{assured, table, unassured};
use crate::{
    packet::Packet,
    service::{load, pick},
    stats,
};

/// Seconds of silence after which netfilter may have forgotten a UDP connection: it must be asked
/// again to masquerade. `nf_conntrack_udp_timeout` is 30 unless an administrator shortens it.
const NETFILTER_MEMORY: u32 = 2;

/// What a packet is to the flow that was found for it. A number: what a BPF function returns.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Belongs {
    /// It is of another connection with the same addresses and ports.
    No = 0,
    /// It is of the flow.
    Yes = 1,
    /// It opens a new connection in place of the flow.
    Opens = 2,
    /// The backend still holds what the port's last owner has opened, and asks about it (RFC 5961 section
    /// 4).
    Challenges = 3,
}

/// Whether the packet belongs to the flow that was found for it, which then takes note of it.
#[inline(always)]
pub(crate) fn continues_flow(packet: &Packet, value: &mut FlowValue) -> Belongs {
    if packet.is_udp() {
        // Streams to a set that has not changed go on; all others are looked at.
        if value.state != flow_state::STREAM || needs_look(value) {
            let belongs = follow_udp(packet, value);
            if belongs != Belongs::Yes {
                return belongs;
            }
        }
    } else if !packet.is_later() && !track::goes_on(value, &packet.segment) {
        return follow(packet, value);
    }
    if value.last_seen != packet.now {
        touch(packet, value);
    }
    Belongs::Yes
}

/// The first packet of its direction in this second.
#[inline(always)]
fn touch(packet: &Packet, value: &mut FlowValue) {
    value.last_seen = packet.now;
    // Refused when it was confirmed: there may be room by now.
    if value.flags & flow_flags::ASSURED == 0 && is_confirmed(value.state) {
        settle(packet, value);
    }
}

/// Whether a UDP stream may have to leave its backend, or netfilter to be asked again.
#[inline(always)]
fn needs_look(value: &FlowValue) -> bool {
    if value.flags & flow_flags::REVERSE != 0 {
        return value.flags & flow_flags::REPLIED == 0;
    }
    value.flags & flow_flags::MASQUERADE != 0 || is_generation_old(value)
}

/// Whether the set of backends has changed since the backend was last found in it.
#[inline(always)]
fn is_generation_old(value: &FlowValue) -> bool {
    value.service != NO_SERVICE
        && pick::word(value.service)
            .is_none_or(|word| Word::unpack(word).generation != value.generation)
}

/// A datagram. Out of line, to spare the caller's stack.
#[inline(never)]
fn follow_udp(packet: &Packet, value: &mut FlowValue) -> Belongs {
    let is_reply = value.flags & flow_flags::REVERSE != 0;
    // A backend that has left gets no more: as if the flow were new (CT-06, CT-07). Its answers under
    // way still find the entry of their direction.
    if !is_reply && is_generation_old(value) && !stays(value) {
        return Belongs::Opens;
    }
    let Some(other) = table::other(&packet.key, value) else { return Belongs::Yes };
    if is_reply {
        value.flags |= flow_flags::REPLIED;
    } else if value.flags & flow_flags::MASQUERADE != 0 {
        follow_netfilter(value, other, packet.now);
    }
    let before = value.state;
    track::take_udp(value, other, packet.now);
    if value.state != before {
        settle(packet, value);
    }
    Belongs::Yes
}

/// Whether the set that has changed still holds the backend of this forward entry, which takes note.
#[inline(never)]
fn stays(forward: &mut FlowValue) -> bool {
    let word = pick::word(forward.service).unwrap_or(0);
    let is_member = pick::is_member(word, &forward.to.dst, forward.to.dst_port);
    if is_member {
        forward.generation = Word::unpack(word).generation;
    }
    is_member
}

/// Ends a UDP flow whose backend has left, as its next datagram would: whether it did.
#[inline(always)]
pub(crate) fn leaves(key: &FlowKey, value: &mut FlowValue) -> bool {
    let has_left = key.proto == proto::UDP
        && value.flags & flow_flags::REVERSE == 0
        && is_generation_old(value)
        && !stays(value);
    if has_left {
        table::forget_forward(key, value);
    }
    has_left
}

/// Brings the forward entry of a masqueraded UDP flow in step with what netfilter knows: it remembers
/// the flow once it was answered, until the client rests.
#[inline(always)]
fn follow_netfilter(forward: &mut FlowValue, reverse: &mut FlowValue, now: u32) {
    if now.wrapping_sub(forward.last_seen) >= NETFILTER_MEMORY {
        forward.flags &= !flow_flags::REPLIED;
        reverse.flags &= !flow_flags::REPLIED;
    } else if reverse.flags & flow_flags::REPLIED != 0 {
        forward.flags |= flow_flags::REPLIED;
    }
}

/// A packet of TCP or SCTP that is not like most.
#[inline(never)]
fn follow(packet: &Packet, value: &mut FlowValue) -> Belongs {
    let Some(other) = table::other(&packet.key, value) else {
        // An answer without a request is another connection's; a request whose answers could not be
        // translated loses nothing by a new flow.
        return match (value.flags & flow_flags::REVERSE != 0, packet.is_syn()) {
            (true, _) => Belongs::No,
            (false, true) => Belongs::Opens,
            (false, false) => Belongs::Yes,
        };
    };
    let is_reply = value.flags & flow_flags::REVERSE != 0;
    if packet.is_syn() && !is_reply && opens_anew(value, other) {
        return Belongs::Opens;
    }
    let before = value.state;
    match track::take(value, other, &packet.segment, packet.is_tcp()) {
        Taken::No => {
            if before != flow_state::OPENING {
                return Belongs::No;
            }
            // A port of this node's is nobody else's: what the backend still holds of its last owner can
            // be ended. Another port may be as used.
            if value.flags & flow_flags::SNAT != 0 {
                let is_challenge = packet.is_tcp() && packet.segment.is_bare_ack();
                return if is_challenge { Belongs::Challenges } else { Belongs::No };
            }
            if packet.segment.flags & segment_flags::RST == 0 {
                other.flags |= flow_flags::COLLIDES;
            }
            return Belongs::No;
        }
        Taken::Unproved => return Belongs::Yes,
        Taken::Yes => value.last_seen = packet.now,
    }
    if value.state != before {
        if is_reply && before == flow_state::OPENING && value.state == flow_state::RESET {
            stats::count_failure(value.service);
        }
        settle(packet, value);
    }
    Belongs::Yes
}

/// Whether a SYN on this forward entry opens a new connection: the old one is over, or it was never
/// answered and the backends have changed since (the retry goes to a live backend), or the backend has
/// another connection with the same addresses and ports, so that this one needs another port.
#[inline(always)]
fn opens_anew(forward: &FlowValue, reverse: &mut FlowValue) -> bool {
    match forward.state {
        flow_state::TIME_WAIT | flow_state::RESET => true,
        flow_state::OPENING if forward.flags & flow_flags::COLLIDES != 0 => {
            // Its port stays taken for the other one.
            reverse.flags |= flow_flags::COLLIDES;
            true
        }
        flow_state::OPENING => is_generation_old(forward),
        _ => false,
    }
}

/// The state has changed: what follows for the flow's place among those that give way, and for the
/// counts.
#[inline(never)]
fn settle(packet: &Packet, value: &mut FlowValue) {
    let Some(other) = table::other(&packet.key, value) else { return };
    let is_assured = value.flags & flow_flags::ASSURED != 0;
    if is_confirmed(value.state) {
        if !is_assured && assured::join() {
            value.flags |= flow_flags::ASSURED;
            other.flags |= flow_flags::ASSURED;
        }
        return;
    }
    let (forward, reverse) =
        if value.flags & flow_flags::REVERSE == 0 { (value, other) } else { (other, value) };
    if is_assured {
        forward.flags &= !flow_flags::ASSURED;
        reverse.flags &= !flow_flags::ASSURED;
        assured::leave();
        forward.slot = unassured::enter(&reverse.to.reversed(), forward.slot);
    }
    if is_over(forward.state) && forward.flags & flow_flags::COUNTED != 0 {
        forward.flags &= !flow_flags::COUNTED;
        reverse.flags &= !flow_flags::COUNTED;
        load::ended(&forward.to.dst, forward.to.dst_port);
    }
}
