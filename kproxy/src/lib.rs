//! kproxy: an eBPF data path for Kubernetes Services.
//!
//! ```text
//! control:  API server or a folder of manifests ─▶ source ─▶ model ─▶ plan ─▶ dataplane ─▶ maps
//! back:     maps ─▶ dataplane::read ─▶ cli (dump, status), metrics
//! ```
//!
//! `model` and `plan` are pure: no IO, no clock, no kube client, no aya. Only `dataplane` touches
//! kernel maps and links; only `node` looks at devices, addresses, cgroups and nftables.

pub mod cli;
pub mod control;
pub mod dataplane;
mod errors;
pub mod metrics;
pub mod model;
pub mod node;
pub mod plan;
pub mod server;
pub mod source;
