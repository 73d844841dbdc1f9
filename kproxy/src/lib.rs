//! kproxy: an eBPF data path for Kubernetes Services.
//!
//! ```text
//! control:  API server or a folder of manifests ─▶ source ─▶ model ─▶ plan ─▶ dataplane ─▶ maps
//! back:     maps ─▶ dataplane::read ─▶ cli (dump, status), metrics
//!           maps ─▶ dataplane::read ─▶ dataplane::explain ─▶ cli (explain)
//! ```
//!
//! The layers, each importing only those below it:
//! ```text
//! cli        what is typed and printed
//! daemon     puts the pieces together, and what goes on beside the control loop
//! server     what is answered over HTTP
//! control    one loop: events in, changed plans out, problems reported
//! metrics    what is counted            source  Kubernetes objects, turned into the model's
//! config     kube-proxy's configuration: flags over file over defaults; reads its file, nothing else
//! dataplane  kernel maps, programs, links: nobody else touches them
//! node       devices, addresses, cgroups, bpffs and nftables: nobody else touches them
//! plan       what the maps should hold    ┐ pure: no IO, no clock,
//! model      Services, slices, the node   ┘ no kube client, no aya
//! ```
//! `timing` (clocks, pauses) and `errors` (their causes on one line) are for all of them.

pub mod cli;
mod config;
mod control;
mod daemon;
pub mod dataplane;
mod errors;
mod metrics;
mod model;
pub mod node;
pub mod plan;
mod server;
mod source;
mod timing;
