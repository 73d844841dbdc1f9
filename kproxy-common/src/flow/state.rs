//! States of a connection, and how long each lasts without a packet.
//!
//! Named as those of nf_conntrack (net/netfilter/nf_conntrack_proto_tcp.c, nf_conntrack_proto_udp.c).

use crate::pod::shared_numbers;

shared_numbers! {
    /// Values of [`super::FlowValue::state`]; also the places of their times in
    /// [`crate::config::Config::timeouts`].
    pub mod flow_state {
        /// A SYN or INIT of the client (SYN_SENT).
        pub const OPENING: u8 = 0;
        /// A SYN of each end, and none is acknowledged (SYN_SENT2).
        pub const CROSSED: u8 = 1;
        /// The backend has acknowledged the client's SYN (SYN_RECV).
        pub const RECEIVED: u8 = 2;
        /// The client has acknowledged the backend's (ESTABLISHED).
        pub const ESTABLISHED: u8 = 3;
        /// A FIN has passed (FIN_WAIT).
        pub const FIN_WAIT: u8 = 4;
        /// Packets go on after it: one direction is closed (CLOSE_WAIT).
        pub const CLOSE_WAIT: u8 = 5;
        /// A FIN has passed in each direction (LAST_ACK).
        pub const LAST_ACK: u8 = 6;
        /// Packets after both (TIME_WAIT).
        pub const TIME_WAIT: u8 = 7;
        /// A RST has passed (CLOSE).
        pub const RESET: u8 = 8;
        /// UDP without an answer.
        pub const UNREPLIED: u8 = 9;
        /// UDP with an answer: an exchange.
        pub const REPLIED: u8 = 10;
        /// UDP both ways for more than [`super::STREAM_AFTER`]: a stream.
        pub const STREAM: u8 = 11;
        /// How many there are.
        pub const COUNT: u8 = 12;
    }
}

use flow_state::COUNT;

/// Seconds without a packet after which an entry is forgotten whose other half is not there.
pub const LONE: u32 = 30;

/// Seconds after which UDP that is answered counts as a stream (`stream_ts` in
/// nf_conntrack_proto_udp.c).
pub const STREAM_AFTER: u32 = 2;

/// Names of the states, by number: in the dump, and in the option that sets their times.
const NAMES: [&str; COUNT as usize] = [
    "opening",
    "crossed",
    "received",
    "established",
    "fin-wait",
    "close-wait",
    "last-ack",
    "time-wait",
    "reset",
    "unreplied",
    "replied",
    "stream",
];

/// Seconds without a packet after which a connection is forgotten, by state: the defaults of
/// nf_conntrack, but for established and half-closed TCP, where kube-proxy sets 24 hours and one
/// (kube-proxy.md 4.4).
pub const TIMEOUTS: [u32; COUNT as usize] =
    [120, 120, 60, 86_400, 120, 3_600, 30, 120, 10, 30, 30, 120];

/// State of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FlowState(u8);

impl FlowState {
    /// From the number in an entry; `None`: it is of no state.
    pub const fn from_number(number: u8) -> Option<Self> {
        if number < COUNT { Some(Self(number)) } else { None }
    }

    /// [`flow_state`].
    pub const fn number(self) -> u8 {
        self.0
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..COUNT).map(Self)
    }

    /// The word shown by `kproxy dump flows`.
    pub const fn name(self) -> &'static str {
        NAMES[self.0 as usize]
    }
}

/// Whether a connection in this state is over: it gives way at once, and a SYN opens a new one.
#[inline(always)]
pub const fn is_over(state: u8) -> bool {
    matches!(state, flow_state::LAST_ACK | flow_state::TIME_WAIT | flow_state::RESET)
}

/// Whether a connection in this state is one that both ends have confirmed and that goes on.
#[inline(always)]
pub const fn is_confirmed(state: u8) -> bool {
    matches!(
        state,
        flow_state::ESTABLISHED
            | flow_state::FIN_WAIT
            | flow_state::CLOSE_WAIT
            | flow_state::STREAM
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_times_are_in_order() {
        for state in FlowState::all() {
            assert_eq!(FlowState::from_number(state.number()), Some(state));
            assert_eq!(FlowState::all().filter(|other| other.name() == state.name()).count(), 1);
            assert!(!(is_over(state.number()) && is_confirmed(state.number())));
        }
        assert_eq!(FlowState::from_number(COUNT), None);
        let time = |state: u8| TIMEOUTS[usize::from(state)];
        assert!(time(flow_state::RESET) < time(flow_state::RECEIVED));
        assert!(time(flow_state::RECEIVED) < time(flow_state::CLOSE_WAIT));
        assert!(time(flow_state::CLOSE_WAIT) < time(flow_state::ESTABLISHED));
    }
}
