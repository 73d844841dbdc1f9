//! What packets say, and what both protocols do with it.

use crate::flow::{FlowValue, flow_flags};

/// Bits of [`Segment::flags`]: those of TCP (RFC 9293 section 3.1).
pub mod segment_flags {
    /// The sender has no more data.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Breaks it off.
    pub const RST: u8 = 0x04;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// What a TCP or SCTP packet says, in host byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// TCP: sequence number. SCTP: verification tag.
    pub seq: u32,
    /// TCP: acknowledgement number, if the flag is set. SCTP: initiate tag of INIT and INIT ACK.
    pub ack: u32,
    /// TCP: the sequence number that follows: data, SYN and FIN counted.
    pub end: u32,
    /// [`segment_flags`]; of an SCTP chunk those that mean the same.
    pub flags: u8,
}

/// What a packet is to the connection with its addresses and ports. A number: what a BPF function
/// returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Taken {
    /// Of another connection, which is not translated.
    No = 0,
    /// Of this one, as far as can be told; it changes nothing.
    Unproved = 1,
    /// Of this one: it has moved it on, and its time begins again.
    Yes = 2,
}

impl Segment {
    /// Whether any of these flags is set.
    #[inline(always)]
    pub(super) const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// An acknowledgement that opens and ends nothing.
    #[inline(always)]
    pub const fn is_bare_ack(&self) -> bool {
        use segment_flags::{ACK, FIN, RST, SYN};
        self.flags & (SYN | FIN | RST | ACK) == ACK
    }

    /// SYN or INIT.
    #[inline(always)]
    pub(super) const fn is_syn(&self) -> bool {
        self.flags & (segment_flags::SYN | segment_flags::ACK) == segment_flags::SYN
    }

    /// Its answer.
    #[inline(always)]
    pub(super) const fn is_syn_ack(&self) -> bool {
        self.flags & (segment_flags::SYN | segment_flags::ACK)
            == segment_flags::SYN | segment_flags::ACK
    }
}

#[inline(always)]
pub(super) const fn is_reply(value: &FlowValue) -> bool {
    value.flags & flow_flags::REVERSE != 0
}

#[inline(always)]
pub(super) const fn set_state(own: &mut FlowValue, other: &mut FlowValue, state: u8) {
    (own.state, other.state) = (state, state);
}

/// A FIN or SHUTDOWN, or a packet after one.
#[inline(always)]
pub(super) fn close_or_go_on(own: &mut FlowValue, other: &mut FlowValue, is_fin: bool) {
    use crate::flow::flow_state::{CLOSE_WAIT, ESTABLISHED, FIN_WAIT, LAST_ACK, TIME_WAIT};
    if is_fin {
        // Sent again it says nothing new.
        if own.flags & flow_flags::FIN == 0 && matches!(own.state, ESTABLISHED..=CLOSE_WAIT) {
            own.flags |= flow_flags::FIN;
            let is_last = other.flags & flow_flags::FIN != 0;
            set_state(own, other, if is_last { LAST_ACK } else { FIN_WAIT });
        }
    } else if own.state == FIN_WAIT {
        set_state(own, other, CLOSE_WAIT);
    } else if own.state == LAST_ACK {
        set_state(own, other, TIME_WAIT);
    }
}

/// A RST or ABORT that the receiver takes. It leaves its mark only where [`revive`] may take it back:
/// nothing but what both ends have confirmed can prove to go on.
#[inline(always)]
pub(super) fn reset(own: &mut FlowValue, other: &mut FlowValue) {
    use crate::flow::flow_state::{CROSSED, OPENING, RECEIVED, RESET};
    own.flags |= match own.state {
        OPENING | CROSSED | RECEIVED => 0,
        RESET => (own.flags | other.flags) & flow_flags::RST,
        _ => flow_flags::RST,
    };
    set_state(own, other, RESET);
}

/// Takes a RST back that proved to be nobody's: the connection goes on, or closes (`is_fin`).
#[inline(always)]
pub(super) fn revive(own: &mut FlowValue, other: &mut FlowValue, is_fin: bool) {
    use crate::flow::flow_state::{CLOSE_WAIT, ESTABLISHED, LAST_ACK};
    own.flags &= !flow_flags::RST;
    let fin = flow_flags::FIN;
    let state = if own.flags & other.flags & fin != 0 {
        LAST_ACK
    } else if (own.flags | other.flags) & fin != 0 {
        CLOSE_WAIT
    } else {
        ESTABLISHED
    };
    set_state(own, other, state);
    if is_fin {
        close_or_go_on(own, other, true);
    }
}

/// The connection begins again with a SYN that was left out of account, as the backend acknowledges
/// it: one end, or both, has forgotten what was.
#[inline(always)]
pub(super) fn begin_again(own: &mut FlowValue, other: &mut FlowValue) {
    for value in [&mut *own, &mut *other] {
        value.flags &= !(flow_flags::FIN | flow_flags::RST);
        value.syn = 0;
    }
    set_state(own, other, crate::flow::flow_state::RECEIVED);
}
