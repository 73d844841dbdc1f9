//! A running lab.

mod builder;
mod control;
mod namespaces;
mod pods;
mod proxies;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, anyhow, bail};
use parking_lot::{Mutex, MutexGuard};

pub use builder::Builder;

use crate::control::ControlPlane;
use crate::layout::{self, Addresses, Names};
use crate::lifetime::watcher::Watcher;
use crate::lifetime::{clean, owner, signals};
use crate::place::Place;
use crate::proxy::Proxy;
use crate::wiring::{Feature, Network, Shape};

/// A cluster made of network namespaces. Dropping it removes it; so does the end of this process,
/// whatever the cause.
#[derive(Debug)]
pub struct Lab {
    names: Names,
    cgroup: PathBuf,
    nodes: u8,
    shape: Shape,
    places: Mutex<BTreeMap<String, Arc<Place>>>,
    proxies: Mutex<Vec<Arc<Proxy>>>,
    control: OnceLock<ControlPlane>,
    /// `None` once the lab is kept.
    watcher: Option<Watcher>,
}

impl Lab {
    /// The lab's id: part of the name of everything it has on this machine.
    pub fn id(&self) -> &str {
        self.names.id()
    }

    /// The lab's folder: logs, manifests, state of the nodes. It goes with the lab.
    pub fn dir(&self) -> PathBuf {
        self.names.dir()
    }

    /// Names of the nodes: `n1`, `n2`, …
    pub fn nodes(&self) -> Vec<String> {
        (1..=self.nodes).map(|node| format!("n{node}")).collect()
    }

    /// How its nodes and pods are connected.
    pub const fn network(&self) -> Network {
        self.shape.network
    }

    /// A node's addresses on its second uplink ([`Feature::SecondUplink`]).
    ///
    /// # Errors
    /// When there is no such node, or no second uplink.
    pub fn second_addresses(&self, node: &str) -> Result<Addresses> {
        if !self.shape.has(Feature::SecondUplink) {
            bail!("the nodes of lab {} have one uplink", self.id());
        }
        Ok(layout::second(self.node_number(node)?))
    }

    /// Names of all places.
    pub fn place_names(&self) -> Vec<String> {
        self.places().keys().cloned().collect()
    }

    /// A place by its name: `n1`, `n1/a`, `client`, `router`, `control`.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn place(&self, name: &str) -> Result<Arc<Place>> {
        let places = self.places();
        places.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = places.keys().map(String::as_str).collect();
            anyhow!("no place `{name}` in lab {}; there are {}", self.id(), known.join(", "))
        })
    }

    /// The host of a node.
    ///
    /// # Panics
    /// When there is no such node: names of places are part of the caller's program.
    #[track_caller]
    pub fn node(&self, node: &str) -> Arc<Place> {
        self.known(node)
    }

    /// A pod.
    ///
    /// # Panics
    /// When there is no such pod.
    #[track_caller]
    pub fn pod(&self, node: &str, pod: &str) -> Arc<Place> {
        self.known(&format!("{node}/{pod}"))
    }

    /// The client outside the cluster.
    ///
    /// # Panics
    /// Never: every lab has one.
    #[track_caller]
    pub fn client(&self) -> Arc<Place> {
        self.known("client")
    }

    /// The router between the client and the nodes.
    ///
    /// # Panics
    /// Never: every lab has one.
    #[track_caller]
    pub fn router(&self) -> Arc<Place> {
        self.known("router")
    }

    #[track_caller]
    fn known(&self, name: &str) -> Arc<Place> {
        match self.place(name) {
            Ok(place) => place,
            Err(error) => panic!("{error}"),
        }
    }

    /// Cgroup that holds all sockets of a node, host and pods: kproxy's `--cgroup-root`.
    pub fn node_cgroup(&self, node: &str) -> PathBuf {
        self.cgroup.join(node)
    }

    /// The node's BPF file system: kproxy's `--bpffs-root`.
    pub fn bpffs(&self, node: &str) -> PathBuf {
        self.names.bpffs(node)
    }

    /// The node's run folder: kproxy's `--run-dir`.
    pub fn run_dir(&self, node: &str) -> PathBuf {
        self.names.run_dir(node)
    }

    /// Folder of manifests that all nodes watch when they run without an API server.
    pub fn manifests(&self) -> PathBuf {
        self.names.manifests()
    }

    /// Puts a file into [`Self::manifests`], or replaces it, in one step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_manifest(&self, file: &str, yaml: &str) -> Result<()> {
        // Written beside the folder: a watcher of it never sees half a file.
        let (draft, path) = (self.dir().join("draft.yaml"), self.manifests().join(file));
        fs::write(&draft, yaml)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    /// Removes a file from [`Self::manifests`].
    ///
    /// # Errors
    /// When there is no such file.
    pub fn remove_manifest(&self, file: &str) -> Result<()> {
        let path = self.manifests().join(file);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// Leaves the lab running when this process ends; `kproxy-lab clean ID` removes it.
    ///
    /// # Errors
    /// When an agent does not answer; the lab is removed then.
    pub fn keep(mut self) -> Result<String> {
        for place in self.places().values() {
            place.detach()?;
        }
        owner::keep(&self.names)?;
        if let Some(watcher) = self.watcher.take() {
            watcher.dismiss()?;
        }
        Ok(self.id().to_owned())
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Place>>> {
        self.places.lock()
    }

    fn proxies(&self) -> MutexGuard<'_, Vec<Arc<Proxy>>> {
        self.proxies.lock()
    }

    fn node_number(&self, node: &str) -> Result<u8> {
        (1..=self.nodes)
            .find(|number| format!("n{number}") == node)
            .with_context(|| format!("no node `{node}` in lab {}", self.id()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.watcher.is_none() {
            return;
        }
        signals::park_if_ending();
        for place in self.places().values() {
            place.end();
        }
        for proxy in self.proxies().iter() {
            proxy.end();
        }
        if let Some(control) = self.control.get() {
            control.end();
        }
        if let Err(error) = clean::clean(self.id()) {
            // The watcher, which ends next, tries again; then `kproxy-lab clean` can.
            eprintln!("kproxy-lab: remove lab {}: {error:#}", self.id());
        }
        signals::forget(self.id());
    }
}
