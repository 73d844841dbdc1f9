//! What becomes of a connection by its packets, of whatever protocol.

use kproxy_common::flow::flow_state;
use kproxy_common::net::proto::{TCP, UDP};

use super::cases::Act;
use crate::conntrack::rules::{Fate, Tracked, Way};
use crate::harness::{Segment, Tcp};

#[derive(Clone, Debug)]
pub(super) enum Life {
    Tcp(Tracked),
    Sctp(Association),
    Udp { opened: u32, is_answered: bool, is_stream: bool },
}

/// SCTP whose packets all bear the right tag.
#[derive(Clone, Debug)]
pub(super) struct Association {
    state: u8,
    /// An INIT waits for its answer.
    init: bool,
    /// The backend has said which tag it wants.
    is_answered: bool,
    shut: [bool; 2],
    aborted: [bool; 2],
    has_own_port: bool,
    collides: bool,
}

pub(super) const fn segment_of(act: Act) -> Segment {
    match act {
        Act::Open => Tcp::Syn,
        Act::OpenAnswer => Tcp::SynAck,
        Act::Data => Tcp::Ack,
        Act::Fin => Tcp::FinAck,
        Act::Rst => Tcp::Rst,
    }
    .segment()
}

impl Life {
    pub(super) fn open(proto: u8, now: u32, has_own_port: bool) -> Self {
        match proto {
            TCP => Self::Tcp(Tracked::open(&segment_of(Act::Open), has_own_port)),
            UDP => Self::Udp { opened: now, is_answered: false, is_stream: false },
            _ => Self::Sctp(Association {
                state: flow_state::OPENING,
                init: true,
                is_answered: false,
                shut: [false; 2],
                aborted: [false; 2],
                has_own_port,
                collides: false,
            }),
        }
    }

    pub(super) fn take(&mut self, way: Way, act: Act, now: u32) -> Fate {
        match self {
            Self::Tcp(tracked) => tracked.take(way, &segment_of(act)),
            Self::Sctp(association) => association.take(way, act),
            Self::Udp { opened, is_answered, is_stream } => {
                *is_stream |= *is_answered && now - *opened > 2;
                *is_answered |= way == Way::Backend;
                Fate::Counts
            }
        }
    }

    /// The entries' state, and seconds that it lasts.
    pub(super) const fn state_and_time(&self) -> (u8, u32) {
        match self {
            Self::Tcp(tracked) => tracked.state.number_and_time(),
            Self::Sctp(association) => {
                let time = kproxy_common::flow::state::TIMEOUTS[association.state as usize];
                (association.state, time)
            }
            Self::Udp { is_stream: true, .. } => (flow_state::STREAM, 120),
            Self::Udp { is_answered: true, .. } => (flow_state::REPLIED, 30),
            Self::Udp { .. } => (flow_state::UNREPLIED, 30),
        }
    }

    pub(super) const fn is_assured(&self) -> bool {
        use flow_state::{CLOSE_WAIT, ESTABLISHED, FIN_WAIT, STREAM};
        matches!(self.state_and_time().0, ESTABLISHED | FIN_WAIT | CLOSE_WAIT | STREAM)
    }

    /// Whether its port is free for others.
    pub(super) const fn is_over(&self) -> bool {
        use flow_state::{LAST_ACK, RESET, TIME_WAIT};
        matches!(self.state_and_time().0, LAST_ACK | TIME_WAIT | RESET)
    }

    pub(super) const fn is_opening(&self) -> bool {
        matches!(self.state_and_time().0, flow_state::OPENING)
    }

    /// Whether the backend has another connection with the same addresses and ports.
    pub(super) const fn collides(&self) -> bool {
        match self {
            Self::Tcp(tracked) => tracked.collides(),
            Self::Sctp(association) => association.collides,
            Self::Udp { .. } => false,
        }
    }

    /// Whether a SYN or INIT opens a new one in its place, the backends being the same.
    pub(super) const fn opens_anew(&self) -> bool {
        use flow_state::{RESET, TIME_WAIT};
        matches!(self.state_and_time().0, TIME_WAIT | RESET) || self.is_opening() && self.collides()
    }
}

impl Association {
    fn take(&mut self, way: Way, act: Act) -> Fate {
        use flow_state::{
            CLOSE_WAIT, ESTABLISHED, FIN_WAIT, LAST_ACK, OPENING, RECEIVED, RESET, TIME_WAIT,
        };
        let (own, is_reply) = (way as usize, way == Way::Backend);
        match (self.state, act, is_reply) {
            (_, Act::Open, true) => return Fate::Passes,
            (OPENING, Act::Open, false) => return Fate::Counts,
            (_, Act::Open, false) => {
                self.init = true;
                return Fate::Passes;
            }
            (OPENING, _, false) => return Fate::Passes,
            (_, Act::OpenAnswer, true) if self.init => {
                (self.state, self.init) = (RECEIVED, false);
                self.is_answered = true;
                (self.shut, self.aborted) = ([false; 2], [false; 2]);
                return Fate::Counts;
            }
            (ESTABLISHED, Act::OpenAnswer, true) | (_, Act::OpenAnswer, false) => {
                return Fate::Passes;
            }
            (_, Act::OpenAnswer, true) => return Fate::LeftAlone,
            (_, Act::Rst, _) => {
                // Only what was confirmed can prove to go on.
                self.aborted[own] |= match self.state {
                    OPENING | RECEIVED => false,
                    RESET => self.aborted[1 - own],
                    _ => true,
                };
                self.state = RESET;
                return Fate::Counts;
            }
            (OPENING, _, true) => {
                self.collides = !self.has_own_port;
                return Fate::LeftAlone;
            }
            (RESET, _, false) if !self.is_answered => return Fate::Passes,
            (RECEIVED, _, true) => return Fate::Counts,
            (RECEIVED, _, false) => self.state = ESTABLISHED,
            (RESET, _, _) if self.aborted[own] => {
                self.aborted[own] = false;
                self.state = match self.shut {
                    [true, true] => LAST_ACK,
                    [false, false] => ESTABLISHED,
                    _ => CLOSE_WAIT,
                };
                if act != Act::Fin {
                    return Fate::Counts;
                }
            }
            _ => {}
        }
        if act == Act::Fin {
            if !self.shut[own] && matches!(self.state, ESTABLISHED | FIN_WAIT | CLOSE_WAIT) {
                self.shut[own] = true;
                self.state = if self.shut[1 - own] { LAST_ACK } else { FIN_WAIT };
            }
        } else if self.state == FIN_WAIT {
            self.state = CLOSE_WAIT;
        } else if self.state == LAST_ACK {
            self.state = TIME_WAIT;
        }
        Fate::Counts
    }
}
