//! Making a lab.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, OnceLock};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use parking_lot::Mutex;

use super::Lab;
use crate::layout::{self, GATEWAY};
use crate::lifetime::clean::{clean, clean_dead};
use crate::lifetime::watcher::Watcher;
use crate::lifetime::{owner, signals};
use crate::place::Place;
use crate::wiring::{Feature, Network, Shape, nodes, overlay, settings};
use crate::{cgroup, netns};

/// How a lab shall look.
#[derive(Clone, Debug)]
pub struct Builder {
    nodes: u8,
    pods: Vec<String>,
    bridge_netfilter: bool,
    shape: Shape,
}

impl Default for Builder {
    fn default() -> Self {
        let pods = vec!["a".into(), "b".into()];
        Self { nodes: 1, pods, bridge_netfilter: true, shape: Shape::default() }
    }
}

impl Builder {
    /// Number of nodes, 1 to 99 (default 1). They are called `n1`, `n2`, …
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// Names of the pods of every node (default `a` and `b`).
    #[must_use]
    pub fn pods(mut self, pods: &[&str]) -> Self {
        self.pods = pods.iter().map(|pod| (*pod).to_owned()).collect();
        self
    }

    /// Whether packets between pods of one node pass netfilter (default: yes, where the kernel's
    /// br_netfilter is loaded). kube-proxy needs it: it never sees the replies of such pods
    /// otherwise.
    #[must_use]
    pub fn bridge_netfilter(mut self, on: bool) -> Self {
        self.bridge_netfilter = on;
        self
    }

    /// How nodes and pods are connected (default: [`Network::Bridge`]).
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.shape.network = network;
        self
    }

    /// Something that the nodes have besides; may be said of several.
    #[must_use]
    pub fn feature(mut self, feature: Feature) -> Self {
        self.shape.features.insert(feature);
        self
    }

    /// Makes the lab. Labs whose process has died are removed on the way.
    ///
    /// # Errors
    /// Without root's rights, without cgroup v2, when `ip` is missing; nothing is left then.
    pub fn build(self) -> Result<Lab> {
        if !nix::unistd::Uid::effective().is_root() {
            bail!("a lab makes namespaces, cgroups and mounts: run this as root");
        }
        if !(1..=99).contains(&self.nodes) {
            bail!("a lab has 1 to 99 nodes, not {}", self.nodes);
        }
        for feature in &self.shape.features {
            feature.is_supported()?;
        }
        if let Err(error) = clean_dead() {
            eprintln!("kproxy-lab: {error:#}");
        }
        let cgroup_root = cgroup::root()?;
        let names = owner::claim()?;
        signals::remember(names.id());
        let lab = Lab {
            cgroup: cgroup_root.join(names.cgroup()),
            nodes: self.nodes,
            shape: self.shape,
            places: Mutex::new(BTreeMap::new()),
            proxies: Mutex::new(Vec::new()),
            control: OnceLock::new(),
            // From here on a failure drops the lab and so removes it.
            watcher: Some(Watcher::start(names.id()).inspect_err(|_failed| {
                let _nothing_but_a_folder = clean(names.id());
            })?),
            names,
        };
        lab.wire(self.bridge_netfilter)?;
        in_parallel(lab.nodes().iter().map(|node| {
            let (lab, pods) = (&lab, &self.pods);
            move || pods.iter().try_for_each(|pod| lab.add_pod(node, pod).map(drop))
        }))?;
        Ok(lab)
    }
}

impl Lab {
    /// A lab of one node; see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Router, client and nodes.
    fn wire(&self, bridge_netfilter: bool) -> Result<()> {
        cgroup::make(&self.cgroup.join("setup"))?;
        fs::create_dir(self.manifests())
            .with_context(|| format!("make {}", self.manifests().display()))?;
        let node_names = self.nodes();
        let mut forwarding = node_names.clone();
        forwarding.push("router".into());
        let mut all = forwarding.clone();
        all.push("client".into());
        self.make_namespaces(&all, &forwarding)?;
        {
            let mut places = self.places();
            let mut add = |name: &str, addresses| {
                let place = Place::new(&self.names, &self.cgroup, name, addresses);
                places.insert(name.to_owned(), Arc::new(place));
            };
            add("router", layout::on_fabric(GATEWAY));
            add("client", layout::on_outside(layout::CLIENT));
            for (number, node) in (1..).zip(&node_names) {
                add(node, layout::node(number));
            }
        }
        self.ip(Some("router"), &nodes::router(&self.shape, &self.names, self.nodes))?;
        self.ip(Some("client"), &nodes::client())?;
        for (number, node) in (1..).zip(&node_names) {
            self.wire_node(number, node)?;
            self.make_node_dirs(node)?;
        }
        if netns::has_bridge_netfilter() {
            // The router's bridge stands for a switch.
            netns::sysctl(&self.names.netns_path("router"), settings::bridge_netfilter(false))?;
            for node in &node_names {
                let settings = settings::bridge_netfilter(bridge_netfilter);
                netns::sysctl(&self.names.netns_path(node), settings)?;
            }
        }
        Ok(())
    }

    fn wire_node(&self, number: u8, node: &str) -> Result<()> {
        netns::sysctl(&self.names.netns_path(node), &settings::rp_filter(&self.shape))?;
        self.ip(Some(node), &nodes::node(&self.shape, number, self.nodes))?;
        if self.shape.network == Network::Vxlan {
            let forwarding = overlay::forwarding(number, self.nodes);
            self.batch("bridge", Some(node), &forwarding)?;
        }
        self.renew_rules(node)
    }
}

/// Runs jobs side by side; the first error, if any.
fn in_parallel<J: FnOnce() -> Result<()> + Send>(jobs: impl Iterator<Item = J>) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = jobs.map(|job| scope.spawn(job)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_panic| anyhow!("a thread that makes a lab panicked"))?
        })
    })
}
