//! Values of options, checked where they are typed: what is past clap is valid.

mod dump;
mod run;

pub use dump::{AddressFilter, PortFilter, ServiceFilter};
pub use run::{
    ClusterRanges, DeviceGlob, MapSize, MetricsAddress, NamespaceName, NodePortRanges, PodRange,
    PortRange,
};
pub(super) use run::{algorithm, node_name};
