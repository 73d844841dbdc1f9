//! Random lives of a connection: what its ends do, what becomes of packets on the way, and what others
//! send in their name.

use std::net::SocketAddr;

use kproxy_common::flow::track::segment_flags::{ACK, FIN, RST, SYN};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::ends::Act;
use super::rules::Way;

/// Where client and backend are, and so which programs their packets meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    /// From outside to a backend on this node.
    Near,
    /// From outside to one elsewhere: the programs change the source.
    Elsewhere,
    /// From a pod whose sockets nobody sees.
    Pod,
}

impl Path {
    /// Client, frontend and backend.
    pub(super) fn ends(self, v6: bool) -> [SocketAddr; 3] {
        let ends = match (self, v6) {
            (Self::Near, false) => ["203.0.113.9:40000", "192.0.2.1:30080", "10.244.1.5:8080"],
            (Self::Near, true) => {
                ["[2001:db8:9::9]:40000", "[2001:db8::1]:30080", "[fd00:10:244:1::5]:8080"]
            }
            (Self::Elsewhere, false) => ["203.0.113.9:40000", "192.0.2.1:30080", "10.244.2.5:8080"],
            (Self::Elsewhere, true) => {
                ["[2001:db8:9::9]:40000", "[2001:db8::1]:30080", "[fd00:10:244:2::5]:8080"]
            }
            (Self::Pod, false) => ["10.244.1.7:40000", "10.96.0.10:80", "10.244.1.5:8080"],
            (Self::Pod, true) => {
                ["[fd00:10:244:1::7]:40000", "[fd00:10:96::a]:80", "[fd00:10:244:1::5]:8080"]
            }
        };
        ends.map(|end| end.parse().unwrap())
    }

    pub(super) const fn program(self, way: Way) -> &'static str {
        match (self, way) {
            (Self::Near | Self::Elsewhere, Way::Client) | (Self::Elsewhere, Way::Backend) => {
                "kp_ingress"
            }
            (Self::Near, Way::Backend) => "kp_egress",
            (Self::Pod, Way::Client) => "kp_pod_ingress",
            (Self::Pod, Way::Backend) => "kp_pod_egress",
        }
    }
}

/// Where a forger has a number from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Number {
    /// Anything far from what is said.
    Guess(u32),
    /// It follows what the same forger said before.
    Own,
}

/// Which one of the two numbers of a connection a forger has learnt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Learnt {
    Nothing,
    Sequence,
    Acknowledgement,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Act {
        way: Way,
        act: Act,
    },
    /// A packet under way comes to the node; `again`: and will once more; `lost`: but no further.
    Deliver {
        which: Index,
        again: bool,
        lost: bool,
    },
    /// It does not come to the node.
    Lose {
        which: Index,
    },
    /// All that is under way arrives, and what is answered to it.
    Settle,
    Forge {
        flags: u8,
        seq: Number,
        ack: Number,
        data: u32,
    },
    Wait(u32),
}

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) path: Path,
    pub(super) v6: bool,
    /// The client's first initial number; the backend's is half the circle further.
    pub(super) isn: u32,
    /// In whose name is forged, and what the forger has learnt.
    pub(super) forger: (Way, Learnt),
    pub(super) steps: Vec<Step>,
}

/// Unit of waiting: no sum of it comes within three seconds before a timeout, so that the seconds that
/// a case takes itself do not matter.
const UNIT: u32 = 11;

fn any_way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(Way::Client), Just(Way::Backend)]
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Connect),
        5 => (1..1400u32).prop_map(Act::Data),
        1 => Just(Act::Ack),
        2 => Just(Act::Keepalive),
        4 => Just(Act::Close),
        1 => Just(Act::Reset),
        3 => Just(Act::Again),
        1 => Just(Act::Forget),
    ]
}

fn any_number() -> impl Strategy<Value = Number> {
    prop_oneof![3 => any::<u32>().prop_map(Number::Guess), 1 => Just(Number::Own)]
}

fn any_step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![
        2 => Just(SYN),
        2 => Just(SYN | ACK),
        3 => Just(ACK),
        2 => Just(FIN | ACK),
        2 => Just(RST),
        2 => Just(RST | ACK),
    ];
    let rarely = || prop::bool::weighted(0.15);
    let units = prop_oneof![4 => 1..12u32, 1 => Just(328), 1 => Just(650), 1 => Just(7855)];
    prop_oneof![
        6 => (any_way(), any_act()).prop_map(|(way, act)| Step::Act { way, act }),
        8 => (any::<Index>(), rarely(), rarely())
            .prop_map(|(which, again, lost)| Step::Deliver { which, again, lost }),
        1 => any::<Index>().prop_map(|which| Step::Lose { which }),
        4 => Just(Step::Settle),
        4 => (flags, any_number(), any_number(), 0..1400u32)
            .prop_map(|(flags, seq, ack, data)| Step::Forge { flags, seq, ack, data }),
        1 => units.prop_map(|units| Step::Wait(units * UNIT)),
    ]
}

pub(super) fn any_case() -> impl Strategy<Value = Case> {
    let path = prop_oneof![Just(Path::Near), Just(Path::Elsewhere), Just(Path::Pod)];
    let isn = prop_oneof![3 => Just(1 << 30), 1 => Just(u32::MAX - 100)];
    let learnt =
        prop_oneof![Just(Learnt::Nothing), Just(Learnt::Sequence), Just(Learnt::Acknowledgement)];
    let steps = vec(any_step(), 4..50);
    (path, any::<bool>(), isn, (any_way(), learnt), steps).prop_map(
        |(path, v6, isn, forger, mut steps)| {
            steps.insert(0, Step::Act { way: Way::Client, act: Act::Connect });
            Case { path, v6, isn, forger, steps }
        },
    )
}

/// A datagram, or time without one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Datagram {
    Sent(Way),
    Wait(u32),
}

pub(super) fn any_datagrams() -> impl Strategy<Value = (Path, bool, Vec<Datagram>)> {
    let path = prop_oneof![Just(Path::Near), Just(Path::Elsewhere), Just(Path::Pod)];
    let step = prop_oneof![
        3 => any_way().prop_map(Datagram::Sent),
        1 => (1..12u32).prop_map(|units| Datagram::Wait(units * UNIT)),
    ];
    (path, any::<bool>(), vec(step, 1..25))
}
