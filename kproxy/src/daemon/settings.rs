//! What the daemon is run with, whatever was typed to say so.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use kproxy_common::flow::FlowState;

use super::run_dir::{RunDir, Started};
use crate::config::KubeProxyConfiguration;
use crate::dataplane;
use crate::node::watch::Names;
use crate::plan::{Algorithm, NodePortAddresses, OptOut};

/// What the daemon is run with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Name of this node in the cluster.
    pub node_name: String,
    /// Where Services come from.
    pub source: Source,
    /// Where the daemon keeps what others read of it.
    pub run_dir: RunDir,
    /// Pins, cgroup and capacities of the data path.
    pub dataplane: dataplane::Settings,
    /// Names of devices that replace the rules by which they are found.
    pub devices: Names,
    /// Pod ranges.
    pub cluster_cidrs: ClusterCidrs,
    /// Whether externalIPs of Services are served.
    pub serve_external_ips: bool,
    /// Addresses on which NodePorts and health checks answer.
    pub node_port_addresses: NodePortAddresses,
    /// The node's primary address, if it is not the one of its Node object.
    pub bind_address: Option<IpAddr>,
    /// Whose sockets get a backend when they connect.
    pub socket_lb: SocketLb,
    /// The pods that are opted out of that.
    pub opt_out: OptOut,
    /// Who changes the source of connections to backends elsewhere.
    pub source_nat: SourceNat,
    /// How long flows are kept, where neither the node nor the defaults are to say.
    pub flow_timeouts: FlowTimeouts,
    /// How backends are picked where a Service does not say.
    pub algorithm: Algorithm,
    /// Where metrics are served; `None`: nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// Where load balancers ask after the node; `None`: nowhere.
    pub healthz_address: Option<SocketAddr>,
    /// What the kernel's connection tracking is set to.
    pub conntrack: Conntrack,
    /// kube-proxy's configuration that this was made of, to be told.
    pub config: KubeProxyConfiguration,
    /// The command line that all this was typed on.
    pub started: Started,
}

/// What the kernel's connection tracking is set to; 0 leaves it as it is, times are in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Conntrack {
    /// Connections there is room for, for each CPU.
    pub max_per_core: u32,
    /// Connections there is room for at least, if `max_per_core` is not 0.
    pub min: u32,
    /// An established TCP connection.
    pub tcp_established: u32,
    /// One that the far end has closed.
    pub tcp_close_wait: u32,
    /// Packets outside the window count.
    pub tcp_be_liberal: bool,
    /// An unanswered UDP exchange.
    pub udp: u32,
    /// A UDP stream.
    pub udp_stream: u32,
}

/// Seconds without a packet after which a flow in a state is forgotten.
pub(crate) type FlowTimeouts = BTreeMap<FlowState, u32>;

/// Where Services come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A folder of manifests.
    Manifests(PathBuf),
    /// An API server.
    ApiServer {
        /// Kubeconfig to use; `None`: the service account of the pod kproxy runs in.
        kubeconfig: Option<PathBuf>,
        /// Its address, in place of the one that the kubeconfig has.
        url: Option<String>,
    },
}

/// Pod ranges: at most one a family. Source ranges that hold one as a whole let every pod in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ClusterCidrs {
    /// IPv4 range.
    pub v4: Option<Ipv4Net>,
    /// IPv6 range.
    pub v6: Option<Ipv6Net>,
}

/// Whose sockets get a backend when they connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SocketLb {
    /// Those of the node and of its pods.
    All,
    /// Those of the node; packets of pods are translated at their link.
    Host,
    /// Nobody's: packets are translated where they leave.
    None,
}

/// Who changes the source of connections to backends elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SourceNat {
    /// The BPF programs, netfilter where they cannot.
    Programs {
        /// The ports that they give out; `None`: the largest range that nobody else takes.
        ports: Option<RangeInclusive<u16>>,
    },
    /// Netfilter, always.
    Netfilter,
}
