//! UDP (nf_conntrack_proto_udp.c): an exchange, or a stream.

use super::segment::{Taken, is_reply, set_state};
use crate::flow::{
    FlowValue,
    flow_state::{REPLIED, STREAM, UNREPLIED},
    state::STREAM_AFTER,
};

/// A datagram at this time (seconds of CLOCK_MONOTONIC).
#[inline(always)]
pub const fn take(own: &mut FlowValue, other: &mut FlowValue, now: u32) -> Taken {
    if own.state == UNREPLIED && is_reply(own) {
        // Only what comes after it can make it a stream.
        set_state(own, other, REPLIED);
    } else if own.state == REPLIED && now.wrapping_sub(own.end) as i32 > STREAM_AFTER as i32 {
        set_state(own, other, STREAM);
    }
    Taken::Yes
}
