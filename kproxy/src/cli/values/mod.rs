//! Values of options, checked where they are typed: what is past clap is valid.

mod dump;
mod explain;
mod run;
mod timeouts;

pub(super) use dump::{AddressFilter, PortFilter, ServiceFilter};
pub(super) use explain::{Target, Who};
pub(super) use run::{
    ClusterRanges, DeviceGlob, HealthzAddress, MapSize, MetricsAddress, NamespaceName,
    NodePortRanges, PodRange, PortRange,
};
pub(super) use run::{algorithm, node_name};
pub(super) use timeouts::{ConntrackTime, StateTimeout, Timeout, typed};
