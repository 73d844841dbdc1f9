//! Where plans go.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::dataplane;
pub(crate) use crate::dataplane::Report;
use crate::plan::{Change, ServicePortPlan};

/// The data path as the control loop sees it. Calls may block for as long as map writes take.
pub(crate) trait DataplaneSink {
    /// Makes the data path hold exactly `desired`, changing only what differs. The first call
    /// comes once the first lists are complete.
    fn reconcile(&mut self, desired: Vec<ServicePortPlan>) -> Report;

    /// Forgets what is known of the data path, which somebody else may have changed: the next [`Self::reconcile`]
    /// looks at it anew. Attaches what was taken off.
    fn reread(&mut self) -> Report;

    /// Applies one batch. A frontend may move from one service port to another within a batch, in
    /// a ring even, so the whole batch is one step: what counts is who has a frontend at its end.
    /// Removals come first.
    fn apply(&mut self, changes: Vec<Change>) -> Report;

    /// Sets the addresses on which NodePorts answer.
    fn set_node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Report;

    /// Sets the ranges that ClusterIPs come from (NODE-08). Not called before they are known.
    fn set_service_ranges(&mut self, ranges: &[IpNet]) -> Report;

    /// Sets the addresses of each Pod that is opted out of the socket path by its namespace. Not called
    /// before they are known.
    fn set_opted_out_pods(&mut self, pods: Vec<BTreeSet<IpAddr>>);

    /// Called once, after the first `reconcile`: let traffic through the maps.
    ///
    /// # Errors
    /// Ends the loop; the data path cannot work at all.
    fn attach(&mut self) -> Result<(), dataplane::Error>;
}
