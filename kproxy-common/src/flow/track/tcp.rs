//! TCP (RFC 9293; nf_conntrack_proto_tcp.c): the states, and which numbers are believed.

use super::segment::{
    Segment, Taken, begin_again, close_or_go_on, is_reply, reset, revive,
    segment_flags::{ACK, FIN, RST, SYN},
    set_state,
};
use crate::flow::{
    FlowValue, flow_flags,
    flow_state::{CROSSED, ESTABLISHED, OPENING, RECEIVED, RESET},
};

/// How far the numbers of a packet may be from those that came before: more than most windows, and
/// so little that who cannot see the connection guesses both of them once in four million packets.
const WINDOW: u32 = 1 << 20;

/// Whether two sequence numbers are less than a [`WINDOW`] apart.
#[inline(always)]
const fn are_near(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).wrapping_add(WINDOW) <= 2 * WINDOW
}

/// Whether `number` lies in `from..=to`.
#[inline(always)]
const fn is_between(number: u32, from: u32, to: u32) -> bool {
    number.wrapping_sub(from) <= to.wrapping_sub(from)
}

/// Whether `number` comes after `other`.
#[inline(always)]
const fn is_after(number: u32, other: u32) -> bool {
    number.wrapping_sub(other) as i32 > 0
}

/// Writes down what a packet of this direction has said, and whether it was news.
#[inline(always)]
const fn advance(own: &mut FlowValue, segment: &Segment) -> bool {
    let (sends, acknowledges) = (is_after(segment.end, own.end), is_after(segment.ack, own.ack));
    if sends {
        own.end = segment.end;
    }
    if acknowledges {
        own.ack = segment.ack;
    }
    sends || acknowledges
}

/// What the client has sent once this packet of it confirms the connection: one that says something again,
/// as those that keep alive do, takes nothing back.
#[inline(always)]
const fn end_confirmed(own: &FlowValue, segment: &Segment) -> u32 {
    let is_again = are_near(segment.end, own.end) && !is_after(segment.end, own.end);
    if is_again { own.end } else { segment.end }
}

/// Whether this is a packet like most: of an established connection, and it opens and ends nothing.
/// Its entry takes note of it; the other is not needed.
#[inline(always)]
pub fn goes_on(own: &mut FlowValue, segment: &Segment) -> bool {
    let is_usual = segment.is_bare_ack()
        && own.state == ESTABLISHED
        && are_near(segment.end, own.end)
        && are_near(segment.ack, own.ack);
    if is_usual {
        advance(own, segment);
    }
    is_usual
}

/// The client's SYN.
#[inline(always)]
pub(super) fn open(forward: &mut FlowValue, segment: &Segment) {
    let after_syn = segment.seq.wrapping_add(1);
    (forward.ack, forward.end, forward.syn) = (after_syn, segment.end, after_syn);
}

/// See [`super::take`].
#[inline(always)]
pub(super) fn take(own: &mut FlowValue, other: &mut FlowValue, segment: &Segment) -> Taken {
    let is_half_open = matches!(own.state, OPENING | CROSSED);
    if segment.has(RST) {
        let counts = if is_half_open {
            breaks_off_opening(own, other, segment)
        } else {
            breaks_off(own, other, segment)
        };
        if counts {
            reset(own, other);
            return Taken::Yes;
        }
        return unproved(own);
    }
    match (is_half_open, is_reply(own)) {
        (true, false) => client_opens(own, other, segment),
        (true, true) => backend_opens(own, other, segment),
        (false, _) if own.state == RECEIVED && is_reply(own) => backend_waits(own, other, segment),
        (false, _) if own.state == RECEIVED => client_confirms(own, other, segment),
        (false, _) => goes_on_or_closes(own, other, segment),
    }
}

/// A packet that proves nothing: until the client has confirmed the connection, one that comes from
/// the backend may be of another with the same addresses and ports.
#[inline(always)]
const fn unproved(own: &FlowValue) -> Taken {
    if matches!(own.state, OPENING | CROSSED | RECEIVED) && is_reply(own) {
        Taken::No
    } else {
        Taken::Unproved
    }
}

/// Whether the backend acknowledges a SYN that the client has sent: the first, or the last.
#[inline(always)]
const fn acknowledges_syn(client: &FlowValue, segment: &Segment) -> bool {
    segment.has(ACK)
        && (segment.ack == client.ack || segment.ack == client.syn || segment.ack == client.end)
}

/// The client, before the backend has acknowledged.
#[inline(always)]
fn client_opens(own: &mut FlowValue, other: &mut FlowValue, segment: &Segment) -> Taken {
    if segment.is_syn() {
        // Another number: the client has forgotten the one before, or somebody else sends. The answer
        // to either counts.
        (own.syn, own.end) = (segment.seq.wrapping_add(1), segment.end);
        return Taken::Yes;
    }
    // Both ends have sent a SYN (RFC 9293 section 3.5): this one acknowledges the backend's.
    if own.state == CROSSED && segment.has(ACK) && segment.ack == other.end {
        (other.ack, own.end, own.ack) = (own.end, end_confirmed(own, segment), segment.ack);
        own.syn = 0;
        set_state(own, other, ESTABLISHED);
        close_or_go_on(own, other, segment.has(FIN));
        return Taken::Yes;
    }
    Taken::Unproved
}

/// The backend, before it has acknowledged.
#[inline(always)]
fn backend_opens(own: &mut FlowValue, other: &mut FlowValue, segment: &Segment) -> Taken {
    if segment.is_syn() {
        own.end = segment.end;
        set_state(own, other, CROSSED);
        return Taken::Yes;
    }
    if segment.is_syn_ack() && acknowledges_syn(other, segment) {
        receive(own, other, segment);
        set_state(own, other, RECEIVED);
        return Taken::Yes;
    }
    Taken::No
}

/// Writes down the backend's SYN and which of the client's it acknowledges.
#[inline(always)]
fn receive(own: &mut FlowValue, other: &mut FlowValue, segment: &Segment) {
    (own.end, own.ack) = (segment.end, segment.ack);
    (other.end, other.ack, other.syn) = (segment.ack, segment.end, 0);
}

/// The client, after the backend has acknowledged: its own acknowledgement proves that it has seen
/// the answer, which whoever forges its address has not.
#[inline(always)]
fn client_confirms(own: &mut FlowValue, other: &mut FlowValue, segment: &Segment) -> Taken {
    if segment.is_syn() {
        own.syn = segment.end;
        return Taken::Unproved;
    }
    let confirms = segment.has(ACK)
        && is_between(segment.ack, own.ack, other.end)
        && are_near(segment.end, other.ack);
    if !confirms {
        return Taken::Unproved;
    }
    (own.end, own.ack, own.syn) = (end_confirmed(own, segment), segment.ack, 0);
    // The backend may have had so little to say that it is done.
    if other.flags & flow_flags::FIN != 0 {
        set_state(own, other, crate::flow::flow_state::CLOSE_WAIT);
    } else {
        set_state(own, other, ESTABLISHED);
    }
    if segment.has(FIN) {
        close_or_go_on(own, other, true);
    }
    Taken::Yes
}

/// The backend, before the client has confirmed.
#[inline(always)]
fn backend_waits(own: &mut FlowValue, other: &mut FlowValue, segment: &Segment) -> Taken {
    if segment.is_syn_ack() {
        if other.syn != 0 && segment.ack == other.syn {
            receive(own, other, segment);
            return Taken::Yes;
        }
        let is_again = segment.ack == own.ack && segment.end == other.ack;
        return if is_again { Taken::Unproved } else { Taken::No };
    }
    let is_own = segment.has(ACK)
        && are_near(segment.end, own.end)
        && are_near(segment.ack, own.ack)
        && !segment.has(SYN);
    if !is_own {
        return Taken::No;
    }
    advance(own, segment);
    if segment.has(FIN) {
        own.flags |= flow_flags::FIN;
    }
    Taken::Yes
}

/// Either end of a connection that both have confirmed.
#[inline(always)]
fn goes_on_or_closes(own: &mut FlowValue, other: &mut FlowValue, segment: &Segment) -> Taken {
    if segment.has(SYN) {
        if segment.is_syn() && !is_reply(own) {
            // Not a late copy of the connection's own.
            if is_after(segment.end, own.end) || !are_near(segment.end, own.end) {
                own.syn = segment.end;
            }
        } else if segment.is_syn_ack()
            && is_reply(own)
            && other.syn != 0
            && segment.ack == other.syn
        {
            receive(own, other, segment);
            begin_again(own, other);
            return Taken::Yes;
        }
        return Taken::Unproved;
    }
    let is_own = are_near(segment.end, own.end) && are_near(segment.ack, own.ack)
        || are_near(segment.end, other.ack) && are_near(segment.ack, other.end);
    if !segment.has(ACK) || !is_own {
        return Taken::Unproved;
    }
    let is_news = advance(own, segment);
    if own.state == RESET {
        // Who has sent a RST sends no more. What the other sent before it heard of it is no sign.
        if is_news && own.flags & flow_flags::RST != 0 {
            revive(own, other, segment.has(FIN));
        }
        return Taken::Yes;
    }
    close_or_go_on(own, other, segment.has(FIN));
    Taken::Yes
}

/// Whether a RST ends a connection that nobody has acknowledged: the backend's acknowledges the SYN
/// (RFC 9293 section 3.10.7.3), the client's follows it, or answers the backend's SYN.
#[inline(always)]
const fn breaks_off_opening(own: &FlowValue, other: &FlowValue, segment: &Segment) -> bool {
    if is_reply(own) {
        return acknowledges_syn(other, segment);
    }
    segment.seq == own.ack
        || segment.seq == own.syn
        || segment.seq == own.end
        || own.state == CROSSED && segment.has(ACK) && segment.ack == other.end
}

/// Whether the receiver takes a RST, as far as can be told (RFC 5961 section 3.2): it follows what the
/// receiver has acknowledged, or what the sender has sent; or it answers a SYN that the receiver knows
/// nothing of.
#[inline(always)]
const fn breaks_off(own: &FlowValue, other: &FlowValue, segment: &Segment) -> bool {
    segment.seq == other.ack
        || segment.seq == own.end
        || segment.has(ACK) && other.syn != 0 && segment.ack == other.syn
}
