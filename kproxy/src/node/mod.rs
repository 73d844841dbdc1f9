//! The node that kproxy runs on: devices and addresses, the cgroup tree, the BPF file system,
//! nftables. Changes made here are undone by `kproxy cleanup`.

pub mod bpffs;
pub mod cgroup;
pub mod devices;
pub mod netns;
pub mod nft;

pub use devices::{Device, NodeState};
