//! How packets move a connection on: pure, so that host tests reach it; the programs run the same.
//!
//! The measure is nf_conntrack: what a packet is not known to say truly changes nothing. Who sends
//! packets with forged addresses does not see what the ends have said, and must guess numbers of 32
//! bits (docs/flows.md).

mod sctp;
mod segment;
mod tcp;
mod udp;

pub use segment::{Segment, Taken, segment_flags};
pub use tcp::goes_on;
pub use udp::take as take_udp;

use self::segment::set_state;
use super::{FlowValue, flow_state};

/// A TCP packet or SCTP chunk: `own` is the entry that it was found by, `other` that of the other
/// direction.
#[inline(always)]
pub fn take(own: &mut FlowValue, other: &mut FlowValue, segment: &Segment, is_tcp: bool) -> Taken {
    if is_tcp { tcp::take(own, other, segment) } else { sctp::take(own, other, segment) }
}

/// Writes down what the opening packet says.
#[inline(always)]
pub fn open(forward: &mut FlowValue, reverse: &mut FlowValue, segment: &Segment, is_tcp: bool) {
    set_state(forward, reverse, flow_state::OPENING);
    if is_tcp { tcp::open(forward, segment) } else { sctp::open(reverse, segment) }
}

#[cfg(test)]
mod tests;
