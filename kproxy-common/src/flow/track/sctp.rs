//! SCTP (RFC 9260): what bears the verification tag of its direction is believed.

use super::segment::{
    Segment, Taken, begin_again, close_or_go_on, is_reply, reset, revive,
    segment_flags::{FIN, RST, SYN},
    set_state,
};
use crate::flow::{
    FlowValue, flow_flags,
    flow_state::{CROSSED, ESTABLISHED, OPENING, RECEIVED, RESET},
};

/// The client's INIT: its tag is that of the backend's packets.
#[inline(always)]
pub(super) const fn open(reverse: &mut FlowValue, segment: &Segment) {
    (reverse.ack, reverse.syn) = (segment.ack, segment.ack);
}

/// See [`super::take`].
#[inline(always)]
pub(super) fn take(own: &mut FlowValue, other: &mut FlowValue, segment: &Segment) -> Taken {
    let (tag, is_reply) = (segment.seq, is_reply(own));
    if segment.is_syn() {
        if is_reply {
            return Taken::Unproved;
        }
        other.syn = segment.ack;
        return if own.state == OPENING { Taken::Yes } else { Taken::Unproved };
    }
    if matches!(own.state, OPENING | CROSSED) && !is_reply {
        return Taken::Unproved;
    }
    let answers_init = own.syn != 0 && tag == own.syn;
    if segment.is_syn_ack() && is_reply {
        if answers_init || own.state == OPENING && tag == own.ack {
            (own.ack, other.ack) = (tag, segment.ack);
            begin_again(own, other);
            return Taken::Yes;
        }
        return if own.state == ESTABLISHED { Taken::Unproved } else { Taken::No };
    }
    // An ABORT may bear the tag of the packet that it answers (RFC 9260 section 8.5.1).
    let is_own = own.ack != 0 && tag == own.ack
        || own.state == OPENING && answers_init
        || segment.has(RST) && other.ack != 0 && tag == other.ack;
    if !is_own || segment.has(SYN) {
        let may_be_anothers = is_reply && matches!(own.state, OPENING | CROSSED | RECEIVED);
        return if may_be_anothers { Taken::No } else { Taken::Unproved };
    }
    if segment.has(RST) {
        reset(own, other);
        return Taken::Yes;
    }
    match own.state {
        // Nothing but its INIT ACK or ABORT can answer.
        OPENING => return Taken::No,
        RECEIVED if is_reply => return Taken::Yes,
        RECEIVED => set_state(own, other, ESTABLISHED),
        RESET if own.flags & flow_flags::RST != 0 => {
            revive(own, other, segment.has(FIN));
            return Taken::Yes;
        }
        _ => {}
    }
    close_or_go_on(own, other, segment.has(FIN));
    Taken::Yes
}
