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
mod cli;
mod control;
pub mod image;
pub mod kubernetes;
mod lab;
mod layout;
mod lifetime;
pub mod manifest;
mod mounts;
mod netns;
mod place;
mod process;
mod protocol;
mod proxy;
mod random;
mod traffic;
mod wait;
mod wiring;

pub use binary::{in_path, kproxy};
pub use cli::Cli;
pub use control::{Api, ControlPlane, Fault, Relay};
pub use lab::{Builder, Lab};
pub use layout::{Addresses, CLUSTER_CIDRS, Family, POD_PORT};
pub use lifetime::clean::clean_dead;
pub use lifetime::owner::{Found, Owner, list};
pub use lifetime::signals::clean_on_signals;
pub use place::{Held, Place, Stepped};
pub use process::Process;
pub use proxy::{Mode, Proxy, ProxyKind, ProxySpec, Source};
pub use traffic::{
    Answer, Attempt, BULK_BYTES, Flood, FloodReport, Forge, Forgery, Hold, HoldReport, HttpAnswer,
    HttpOutcome, Load, LoadReport, Outcome, Packets, Probe, SPOOFED, Seen, Step, Transport,
    Verdict, Work, mapped,
};
pub use wait::poll_until;
pub use wiring::{Feature, Network};
