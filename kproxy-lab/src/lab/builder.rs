//! Making a lab.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::lab::{Lab, Place, wiring};
use crate::layout::{self, GATEWAY};
use crate::watcher::Watcher;
use crate::{cgroup, netns, signals, state};

/// How a lab shall look.
#[derive(Clone, Debug)]
pub struct Builder {
    nodes: u8,
    pods: Vec<String>,
    bridge_netfilter: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self { nodes: 1, pods: vec!["a".into(), "b".into()], bridge_netfilter: true }
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
        if let Err(error) = state::clean_dead() {
            eprintln!("kproxy-lab: {error:#}");
        }
        let cgroup_root = cgroup::root()?;
        let names = state::claim()?;
        signals::remember(names.id());
        let lab = Lab {
            cgroup: cgroup_root.join(names.cgroup()),
            nodes: self.nodes,
            places: Mutex::new(BTreeMap::new()),
            proxies: Mutex::new(Vec::new()),
            control: OnceLock::new(),
            // From here on a failure drops the lab and so removes it.
            watcher: Some(Watcher::start(names.id()).inspect_err(|_failed| {
                let _nothing_but_a_folder = state::clean(names.id());
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
    /// Router, client and nodes.
    fn wire(&self, bridge_netfilter: bool) -> Result<()> {
        cgroup::make(&self.cgroup.join("setup"))?;
        fs::create_dir(self.manifests())
            .with_context(|| format!("make {}", self.manifests().display()))?;
        let nodes = self.nodes();
        let mut forwarding = nodes.clone();
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
            for (number, node) in (1..).zip(&nodes) {
                add(node, layout::node(number));
            }
        }
        self.ip(Some("router"), &wiring::router(&self.names, self.nodes))?;
        self.ip(Some("client"), &wiring::client())?;
        for (number, node) in (1..).zip(&nodes) {
            self.ip(Some(node), &wiring::node(number, self.nodes))?;
            self.make_node_dirs(node)?;
        }
        if netns::has_bridge_netfilter() {
            // The router's bridge stands for a switch.
            netns::sysctl(&self.names.netns_path("router"), wiring::bridge_netfilter(false))?;
            for node in &nodes {
                let settings = wiring::bridge_netfilter(bridge_netfilter);
                netns::sysctl(&self.names.netns_path(node), settings)?;
            }
        }
        Ok(())
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
