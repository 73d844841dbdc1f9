//! What the maps hold, in plain types: one row an item. Filled by [`super::Pins`].
//!
//! Rows serialise with the words that Kubernetes uses (`ClusterIP`, `TCP`, `IPv4`).

use std::net::{IpAddr, SocketAddr};

use kproxy_common::{drop_reason::DropReason, flow::FlowState};
use serde::Serialize;

use super::words;
use crate::plan::{Algorithm, EmptyVerdict, FrontendKind, Protocol, Scope, ServicePortId, Sources};

/// A frontend: what clients dial and where it leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct FrontendRow {
    /// Kinds, more than one when a Service lists an address twice. Never empty for entries that
    /// this version wrote.
    #[serde(serialize_with = "words::kinds")]
    pub kinds: Vec<FrontendKind>,
    /// Address; `0.0.0.0` or `::` for NodePorts (every address of this node).
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol; `None` for a number that kproxy never writes.
    #[serde(serialize_with = "words::protocol_opt")]
    pub protocol: Option<Protocol>,
    /// Set for pods and this node.
    #[serde(serialize_with = "words::scope")]
    pub internal: Scope,
    /// Set for senders outside the cluster.
    #[serde(serialize_with = "words::scope")]
    pub external: Scope,
    /// Who may open connections.
    #[serde(serialize_with = "words::sources")]
    pub sources: Sources,
    /// Number of the service port.
    pub id: u32,
    /// Name of the service port; `None` when the NAMES map lacks it.
    #[serde(serialize_with = "words::name_opt")]
    pub service: Option<ServicePortId>,
}

/// What the maps know of an address as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct AddressRow {
    /// The address.
    pub addr: IpAddr,
    /// It belongs to this node: NodePorts answer on it.
    pub node: bool,
    /// It is a ClusterIP: ports without a frontend are refused.
    pub service: bool,
}

/// A service port and its backend sets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct ServiceRow {
    /// Number of the service port.
    pub id: u32,
    /// Name; `None` when the NAMES map lacks it.
    #[serde(serialize_with = "words::name_opt")]
    pub service: Option<ServicePortId>,
    /// Session affinity timeout in seconds.
    pub affinity_seconds: Option<u32>,
    /// How backends are picked.
    #[serde(serialize_with = "words::algorithm")]
    pub algorithm: Algorithm,
    /// Who may dial the frontends that are open to some sources only.
    pub source_ranges: Vec<String>,
    /// The cluster-wide set.
    pub cluster: SetRow,
    /// The set of this node's endpoints, when a frontend uses it.
    pub local: Option<SetRow>,
}

/// One published backend set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct SetRow {
    /// Service index, the number that the programs use.
    pub index: u32,
    /// Number of backends.
    pub backends: u16,
    /// First slot of the run, `None` for an empty set.
    pub first_slot: Option<u32>,
    /// Raised by one, wrapping, at each change of the set.
    pub generation: u16,
    /// What happens to new connections while the set is empty; `None` when it is not.
    #[serde(serialize_with = "words::verdict_opt")]
    pub empty: Option<EmptyVerdict>,
}

/// A backend in a published set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct BackendRow {
    /// Number of the service port.
    pub id: u32,
    /// Name of the service port; `None` when the NAMES map lacks it.
    #[serde(serialize_with = "words::name_opt")]
    pub service: Option<ServicePortId>,
    /// Set that holds the backend.
    #[serde(serialize_with = "words::scope")]
    pub set: Scope,
    /// Endpoint address.
    pub addr: IpAddr,
    /// Endpoint port.
    pub port: u16,
    /// The endpoint runs on this node.
    pub local: bool,
    /// Connections that this node has open to it, of all service ports that count them; `None`:
    /// this one does not ([`Algorithm::LeastConnections`] does).
    pub connections: Option<u64>,
    /// Slot number.
    pub slot: u32,
}

/// A connection that the packet path translates: the forward and the reverse entry in one row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct FlowRow {
    /// Protocol; `None` for a number that kproxy never writes.
    #[serde(serialize_with = "words::protocol_opt")]
    pub protocol: Option<Protocol>,
    /// The client.
    pub client: SocketAddr,
    /// What the client dialled.
    pub frontend: SocketAddr,
    /// The backend that it was given.
    pub backend: SocketAddr,
    /// State of the connection; `None` for a number that kproxy never writes.
    #[serde(serialize_with = "words::flow_state")]
    pub state: Option<FlowState>,
    /// It gives way to no other connection.
    pub assured: bool,
    /// What the backend sees as its client: the client itself, or this node for a backend
    /// elsewhere. `None`: netfilter masquerades the connection and knows.
    pub source: Option<SocketAddr>,
    /// Which of the two entries exist. One alone is left over and soon swept.
    pub halves: FlowHalves,
    /// Seconds since the last packet of either direction; `None` before the first.
    pub idle_seconds: Option<u32>,
    /// Seconds of silence left until the flow is forgotten; 0 for an overdue one.
    pub expires_in_seconds: u32,
    /// Why it is kept.
    pub kind: FlowKind,
    /// Set that the backend was taken from; `None`: it dials no Service.
    #[serde(serialize_with = "words::scope_opt")]
    pub set: Option<Scope>,
    /// Number of the service port; `None`: it dials no Service.
    pub id: Option<u32>,
    /// Name of the service port; `None` when it is gone, or there is none.
    #[serde(serialize_with = "words::name_opt")]
    pub service: Option<ServicePortId>,
}

/// A socket and the backend that a program has given it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct SocketRow {
    /// Protocol.
    #[serde(serialize_with = "words::protocol_opt")]
    pub protocol: Option<Protocol>,
    /// As `ss` calls it; `connected` and `unconnected` of UDP.
    pub state: &'static str,
    /// What the socket did to get it.
    pub told_by: ToldBy,
    /// Its own end.
    pub local: SocketAddr,
    /// What it has dialled.
    pub frontend: SocketAddr,
    /// The backend that it was given.
    pub backend: SocketAddr,
    /// Number of the service port.
    pub id: u32,
    /// Name of the service port; `None` when it is gone.
    #[serde(serialize_with = "words::name_opt")]
    pub service: Option<ServicePortId>,
    /// Inode number of its network namespace.
    pub namespace: u64,
    /// Kernel id of its cgroup, which is the inode number of its folder; 0: the kernel does not tell.
    pub cgroup: u64,
    /// User that it belongs to.
    pub user: u32,
    /// Its inode number; 0: no process has it any more.
    pub inode: u32,
}

/// What a socket does to get a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToldBy {
    /// connect(): once.
    Connect,
    /// sendto() or sendmsg(): with each datagram.
    Send,
}

/// Why a connection is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FlowKind {
    /// It dials a Service.
    Service,
    /// It dials a backend itself, which has another connection with the same addresses and ports: the
    /// backend sees another port.
    Direct,
    /// This node has sent it from a NodePort, past every frontend, or kube-proxy has opened it: nothing is translated
    /// here.
    Untranslated,
}

/// The backend that a client of a service port with session affinity was given last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct AffinityRow {
    /// The client.
    pub client: AffinityClient,
    /// Backend address.
    pub addr: IpAddr,
    /// Backend port.
    pub port: u16,
    /// Seconds since its last new connection.
    pub idle_seconds: u32,
    /// Seconds left until the client is forgotten.
    pub expires_in_seconds: u32,
    /// Number of the service port.
    pub id: u32,
    /// Name of the service port; `None` when the NAMES map lacks it.
    #[serde(serialize_with = "words::name_opt")]
    pub service: Option<ServicePortId>,
}

/// Who is remembered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AffinityClient {
    /// The processes of this node, pods in its network namespace among them.
    Node,
    /// The sender of packets.
    Address(IpAddr),
    /// The processes of a pod, by the cookie of its network namespace.
    Netns(u64),
}

/// Which entries of a flow were found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FlowHalves {
    /// Both directions.
    Both,
    /// The forward entry alone.
    ForwardOnly,
    /// The reverse entry alone.
    ReverseOnly,
}

/// Counters of one backend set, summed over CPUs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct CounterRow {
    /// Number of the service port.
    pub id: u32,
    /// Name of the service port; `None` when the NAMES map lacks it.
    #[serde(serialize_with = "words::name_opt")]
    pub service: Option<ServicePortId>,
    /// The set.
    #[serde(serialize_with = "words::scope")]
    pub set: Scope,
    /// Connections given a backend.
    pub connections: u64,
    /// Packets translated on the packet path.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// Connections of the packet path that the backend refused or did not answer.
    pub failed: u64,
}

/// Refusals and drops of one reason, summed over CPUs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct DropRow {
    /// Number of the service port; `None` when the drop belongs to none.
    pub id: Option<u32>,
    /// Name of the service port; `None` when it is gone or there was none.
    #[serde(serialize_with = "words::name_opt")]
    pub service: Option<ServicePortId>,
    /// The set; `None` when the drop belongs to no service.
    #[serde(serialize_with = "words::scope_opt")]
    pub set: Option<Scope>,
    /// The stored reason.
    pub reason_number: u32,
    /// The reason; `None` for a number that this version does not know.
    #[serde(serialize_with = "words::reason_opt")]
    pub reason: Option<DropReason>,
    /// Packets or calls.
    pub count: u64,
}

/// How full a map is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct UsageRow {
    /// Map name.
    pub map: &'static str,
    /// Entries in use.
    pub used: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// A program and where it is attached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct LinkRow {
    /// Program name.
    pub(crate) program: String,
    /// Where it is attached.
    pub(crate) target: LinkTarget,
    /// Kernel id of the link; 0 for a filter of clsact, which has none.
    pub(crate) link_id: u32,
    /// Kernel id of the program.
    pub(crate) program_id: u32,
}

/// Where a link leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LinkTarget {
    /// A cgroup, by its kernel id (the inode number of its folder).
    Cgroup {
        /// The id.
        id: u64,
    },
    /// A network device.
    Device {
        /// Its name now.
        name: String,
        /// Interface index.
        index: u32,
    },
    /// The cgroup or device is gone; the pin is left over.
    Gone,
}
