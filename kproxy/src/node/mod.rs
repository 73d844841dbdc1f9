//! What kproxy knows of and changes on the node itself: its name, devices, addresses, cgroups, bpffs and
//! one nftables table. Nothing here touches BPF maps or links.

pub mod bpffs;
pub mod cgroup;
mod device;
pub mod name;
pub mod namespaces;
pub mod netns;
pub mod nft;
mod pods;
pub mod roles;
mod rtnl;
pub mod source_ports;
pub mod sources;
mod state;
pub mod watch;

pub use self::{
    device::{Device, LOOPBACK},
    sources::Sources,
    state::NodeState,
};
