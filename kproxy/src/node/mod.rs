//! What kproxy knows of and changes on the node itself: its name, devices, addresses, cgroups, bpffs, one
//! nftables table, and its own rights. Nothing here touches BPF maps or links.

pub(crate) mod bpffs;
pub(crate) mod capabilities;
pub(crate) mod cgroup;
pub(crate) mod conntrack;
pub(crate) mod conntrack_limits;
pub(crate) mod ctnetlink;
pub(crate) mod device;
pub(crate) mod filters;
pub(crate) mod forwarding;
pub(crate) mod kube_proxy;
pub(crate) mod name;
pub(crate) mod namespaces;
pub(crate) mod netlink;
pub(crate) mod netns;
pub mod nft;
mod pods;
pub(crate) mod processes;
mod roles;
mod rtnl;
pub(crate) mod source_ports;
mod sources;
mod state;
pub mod watch;
pub(crate) mod xdp;
pub(crate) mod xfrm;

pub use self::{
    device::{Device, LOOPBACK},
    sources::Sources,
    state::{NodeState, Served},
};
