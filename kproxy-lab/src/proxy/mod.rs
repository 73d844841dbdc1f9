//! Service proxies on a lab's nodes: kproxy, or the real kube-proxy in its place.

mod handle;
pub(crate) mod kproxy;
pub(crate) mod kube_proxy;
mod metrics;
mod node;
mod spec;

pub use handle::Proxy;
pub(crate) use node::Node;
pub use spec::{Mode, ProxyKind, ProxySpec, Source};
