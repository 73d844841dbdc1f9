//! The question and what is known of the answer: plain facts, without sentences.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use kproxy_common::{
    drop_reason::DropReason,
    service::{FrontendKey, FrontendValue},
};
use serde::Serialize;

use crate::{
    dataplane::{codec, read::words},
    plan::{Algorithm, FrontendKind, Protocol, Scope, ServicePortId},
};

/// Who dials what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Address and port that are dialled.
    pub to: SocketAddr,
    /// Over what.
    pub protocol: Protocol,
    /// By whom.
    pub from: Sender,
}

/// Who dials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Sender {
    /// A process of this node.
    Node {
        /// The address that its socket is bound to.
        source: Option<IpAddr>,
    },
    /// A pod of this node.
    Pod {
        /// Its address; `None`: any pod.
        address: Option<IpAddr>,
        /// Cookie of its network namespace, where it was found.
        netns: Option<u64>,
    },
    /// Somebody beyond an uplink, a pod of another node too.
    Outside {
        /// The address; `None`: anybody.
        address: Option<IpAddr>,
    },
}

impl Sender {
    /// The address that it has for certain.
    pub(crate) const fn address(&self) -> Option<IpAddr> {
        match *self {
            Self::Node { source } => source,
            Self::Pod { address, .. } | Self::Outside { address } => address,
        }
    }
}

/// Which program decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// `kp_connect4/6`, `kp_sendmsg4/6`: before there is a packet.
    Connect,
    /// `kp_pod_ingress`: at the node's end of a pod's link.
    PodLink,
    /// `kp_ingress`: where packets come in by an uplink.
    Uplink,
    /// `kp_egress` of an uplink, `kp_node_egress` of the loopback device: packets of this node's own
    /// processes.
    Leaving,
    /// `kp_egress` of an uplink, for packets that no hook has seen come in.
    Unseen,
}

/// Why it is decided there, and not by the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhyHere {
    /// It is the usual place for such a sender.
    Usual,
    /// No hook for sockets sees SCTP.
    Sctp,
    /// `--socket-lb none`.
    SocketsUnused,
    /// `--socket-lb host`: not those of pods.
    HostSocketsOnly,
    /// The pod is opted out, or it is not known yet whether it is.
    OptedOut,
    /// The programs are not attached to the cgroup.
    NotAttached,
    /// The socket is bound to a loopback address.
    LoopbackSource,
    /// The source ranges do not let the socket in: its packets are judged.
    NotAllowed,
    /// There is no backend that the socket could be given.
    NoBackend,
}

/// What is dialled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Found {
    /// A frontend.
    Frontend(Frontend),
    /// A ClusterIP that has no such port and protocol.
    UnknownPort,
    /// An address of a range of ClusterIPs that no Service has.
    FreeServiceAddress,
    /// The loopback of a pod: its own business.
    OwnLoopback,
    /// An address of this node, and no NodePort.
    NodeAddress,
    /// Nothing of kproxy's.
    Nothing,
}

/// A frontend of the maps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Frontend {
    /// Kinds.
    #[serde(serialize_with = "words::kinds")]
    pub kinds: Vec<FrontendKind>,
    /// Its address in the maps; `0.0.0.0` or `::` for a NodePort.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// Number of the service port.
    pub id: u32,
    /// Name of the service port.
    #[serde(serialize_with = "words::name_opt")]
    pub service: Option<ServicePortId>,
    /// As the maps have it.
    #[serde(skip)]
    pub value: FrontendValue,
}

impl Frontend {
    pub(super) fn new(
        key: &FrontendKey,
        value: FrontendValue,
        id: u32,
        service: Option<ServicePortId>,
    ) -> Self {
        let (addr, port) = (key.addr.into(), key.port.get());
        Self { kinds: codec::kinds_of(value.flags), addr, port, id, service, value }
    }
}

/// Whether the sender may.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Access {
    /// The frontend is open to all.
    Open,
    /// A range holds the sender.
    LetIn {
        /// The range; `None`: this node counts as let in, whatever its address.
        #[serde(serialize_with = "words::net_opt")]
        range: Option<IpNet>,
    },
    /// No range holds it: its packets are dropped.
    Denied {
        /// All ranges.
        #[serde(serialize_with = "words::nets")]
        ranges: Vec<IpNet>,
    },
    /// No range holds it: the call is refused, for its packets would not leave the node.
    Refused {
        /// All ranges.
        #[serde(serialize_with = "words::nets")]
        ranges: Vec<IpNet>,
    },
    /// It depends on the address of the sender.
    Unknown {
        /// All ranges.
        #[serde(serialize_with = "words::nets")]
        ranges: Vec<IpNet>,
    },
}

/// The backend set that applies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Set {
    /// Which of the two.
    #[serde(serialize_with = "words::scope")]
    pub scope: Scope,
    /// Service index, the number that the programs use.
    pub index: u32,
    /// How a backend is picked.
    #[serde(serialize_with = "words::algorithm")]
    pub algorithm: Algorithm,
    /// Backends.
    pub backends: u16,
    /// How often the set has changed, wrapping.
    pub generation: u16,
}

/// Session affinity of the Service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Affinity {
    /// Timeout in seconds.
    pub seconds: u32,
    /// Whether it is known who the client is.
    pub client_known: bool,
    /// What is kept for the client.
    pub kept: Option<Kept>,
}

/// The backend that a client was given last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Kept {
    /// The backend.
    pub backend: SocketAddr,
    /// Seconds until the client is forgotten.
    pub expires_in_seconds: u32,
    /// The set that applies has it: the client comes back to it.
    pub counts: bool,
}

/// An endpoint that the maps know of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Candidate {
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// It runs on this node.
    pub local: bool,
    /// Whether it may get the connection.
    pub standing: Standing,
    /// Whom it sees as its client; `None` if it gets nothing.
    pub seen_as: Option<SeenAs>,
}

/// Whether an endpoint may get a connection, and why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It may.
    May,
    /// Session affinity holds this client to another one.
    HeldElsewhere,
    /// The policy is Local, and it is on another node.
    OtherNode,
    /// Topology hints, or ready endpoints that come before terminating ones.
    HintsOrTerminating,
    /// UDP: it serves what it has and gets nothing new: terminating, or left out by policy or hints.
    KeepsOnly,
}

/// Whom a backend sees as its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeenAs {
    /// The client itself.
    Client,
    /// This node: the programs change the source.
    Node,
    /// This node: netfilter masquerades.
    Masquerade,
    /// The frontend: the pod is its own backend.
    Frontend,
}

/// What becomes of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// One of the candidates gets it.
    Answered,
    /// One of the candidates gets it if the source ranges hold the sender's address.
    Depends,
    /// The sender is told that nobody listens.
    Refused,
    /// Dropped without a word.
    Dropped,
    /// kproxy leaves it alone.
    LeftAlone,
}

/// What becomes of a connection, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Explanation {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why it is refused or dropped, as it is counted.
    #[serde(serialize_with = "words::reason_opt")]
    pub reason: Option<DropReason>,
    /// What is dialled.
    pub found: Found,
    /// Which program decides.
    pub hook: Hook,
    /// Why that one.
    pub why_here: WhyHere,
    /// Whether the sender may.
    pub access: Access,
    /// The set that applies; `None` without a frontend.
    pub set: Option<Set>,
    /// Session affinity, if the Service has any.
    pub affinity: Option<Affinity>,
    /// The endpoints that the maps know of.
    pub candidates: Vec<Candidate>,
}

impl Explanation {
    pub(super) const fn new(hook: Hook, why_here: WhyHere, found: Found) -> Self {
        Self {
            verdict: Verdict::LeftAlone,
            reason: None,
            found,
            hook,
            why_here,
            access: Access::Open,
            set: None,
            affinity: None,
            candidates: Vec::new(),
        }
    }

    pub(super) fn ends(mut self, verdict: Verdict, reason: DropReason) -> Self {
        (self.verdict, self.reason) = (verdict, Some(reason));
        self
    }

    /// The frontend, if one is dialled.
    pub const fn frontend(&self) -> Option<&Frontend> {
        match &self.found {
            Found::Frontend(frontend) => Some(frontend),
            _ => None,
        }
    }

    /// The backends of which one gets the connection.
    pub fn may(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(|candidate| candidate.standing == Standing::May)
    }
}
