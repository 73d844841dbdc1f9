//! Values of options, checked where they are typed: what is past clap is valid.

mod dump;
mod explain;
mod run;
mod services;
mod timeouts;
mod trace;

pub(super) use dump::{AddressFilter, PortFilter, ServiceFilter};
pub(super) use explain::{Target, Who};
pub(super) use run::{
    ClusterRanges, DeviceGlob, MapSize, NamespaceName, PodRange, PortRange, algorithm,
};
pub(super) use services::{BPFFS_ROOT, services};
pub(super) use timeouts::{StateTimeout, Timeout, typed};
pub(super) use trace::{Endpoint, drop_reason};
