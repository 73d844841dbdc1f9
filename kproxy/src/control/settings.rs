//! What the loop is run with.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::noticeboard::Noticeboard;
use super::repairs::Repairs;
use super::state::State;
use crate::metrics;
use crate::plan::{Algorithm, NodePortAddresses};

/// Settings of the control loop.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Name of this node in the cluster.
    pub node_name: String,
    /// Directory of the problem list; made if missing.
    pub run_dir: PathBuf,
    /// How long the loop collects further events after the first one of a burst.
    pub collect: Duration,
    /// Addresses on which NodePorts answer.
    pub node_port_addresses: NodePortAddresses,
    /// The node's primary address, instead of the one that its Node object has.
    pub bind_address: Option<IpAddr>,
    /// Whether externalIPs of Services are served.
    pub serve_external_ips: bool,
    /// How backends are picked where a Service does not say.
    pub algorithm: Algorithm,
    /// Takes what the servers beside the loop want to know.
    pub state: watch::Sender<State>,
    /// Without a Node object of its own the node takes no traffic of load balancers.
    pub needs_node: bool,
    /// Where the other parts of the daemon post their problems.
    pub noticeboard: Noticeboard,
    /// Where others ask for a look at the kernel.
    pub repairs: Repairs,
    /// Counts.
    pub metrics: metrics::Control,
}

impl Settings {
    /// With the usual collecting time, 5 ms.
    pub(crate) fn new(
        node_name: impl Into<String>,
        run_dir: impl Into<PathBuf>,
        metrics: metrics::Control,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            run_dir: run_dir.into(),
            collect: Duration::from_millis(5),
            node_port_addresses: NodePortAddresses::default(),
            bind_address: None,
            serve_external_ips: true,
            algorithm: Algorithm::default(),
            state: watch::Sender::default(),
            needs_node: false,
            noticeboard: Noticeboard::default(),
            repairs: Repairs::default(),
            metrics,
        }
    }
}
