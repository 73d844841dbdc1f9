//! Clusters made of network namespaces: nodes, pods, a router, a client outside.
//!
//! ```no_run
//! use kproxy_lab::{Family, Lab, POD_PORT, Probe};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::builder().nodes(2).build()?;
//! let server = lab.pod("n2", "a").at(Family::V6, POD_PORT);
//! let outcome = lab.pod("n1", "a").probe(Probe::tcp(server).count(5))?;
//! assert_eq!(outcome.servers(), [("n2/a", 5)].into());
//! # Ok(())
//! # }
//! ```
//!
//! With the real API server and a proxy on every node:
//!
//! ```no_run
//! use kproxy_lab::manifest::{Service, slices};
//! use kproxy_lab::{Lab, Mode, POD_PORT, Probe, ProxySpec};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::builder().nodes(2).build()?;
//! let api = lab.start_control_plane()?.api();
//! let web = Service::new("web").of_type("NodePort").port("http", "TCP", 80, POD_PORT);
//! api.apply_object(web.node_port(30_080))?;
//! for slice in slices("web", "http", "TCP", POD_PORT, &[&lab.pod("n1", "a"), &lab.pod("n2", "a")]) {
//!     api.apply_object(slice)?;
//! }
//! lab.start_proxies(ProxySpec::kube_proxy(Mode::Nftables))?;
//! for node_port in lab.node("n1").addresses().both().map(|ip| (ip, 30_080)) {
//!     let outcome = lab.client().probe(Probe::tcp(node_port).count(20))?;
//!     assert_eq!(outcome.server_set(), ["n1/a", "n2/a"].into());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is put into the machine's own network namespace, and all names carry the lab's id, so
//! labs run side by side. A lab is removed when it is dropped and when its process ends, whatever
//! the cause: a watcher process sees the end, and `kproxy-lab clean` finds what even that missed.
//!
//! The library runs the `kproxy-lab` binary for agents and watchers: build the package's binary
//! first (`cargo build -p kproxy-lab`), or name it in `KPROXY_LAB_BIN`.

mod agent;
mod binary;
mod cgroup;
pub mod cli;
mod control;
mod hold;
mod http;
pub mod kubernetes;
mod lab;
mod layout;
mod load;
pub mod manifest;
mod mounts;
mod netns;
mod probe;
mod process;
mod protocol;
mod proxy;
mod signals;
mod state;
mod watcher;

pub use binary::kproxy;
pub use control::{Api, ControlPlane};
pub use hold::{Hold, HoldReport};
pub use http::{HttpAnswer, HttpOutcome};
pub use lab::{Builder, Feature, Held, Lab, Network, Place};
pub use layout::{Addresses, CLUSTER_CIDRS, Family, POD_PORT, SERVICE_CIDR_V4, SERVICE_CIDR_V6};
pub use load::{BULK_BYTES, Load, LoadReport, Work};
pub use probe::{Attempt, Outcome, Probe, Transport, Verdict, mapped};
pub use process::Process;
pub use protocol::Answer;
pub use proxy::{Mode, Proxy, ProxyKind, ProxySpec, Source};
pub use signals::clean_on_signals;
pub use state::{Found, Owner, clean, clean_dead, list};
