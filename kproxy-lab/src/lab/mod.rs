//! A running lab.

mod agent;
mod builder;
mod network;
mod place;
mod rules;
mod wiring;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{fs, io};

use anyhow::{Context as _, Result, anyhow, bail};

pub use builder::Builder;
pub use network::{Feature, Network};
pub use place::{Held, Place};

use crate::control::ControlPlane;
use crate::lab::network::Shape;
use crate::layout::{self, Addresses, Names};
use crate::proxy::Proxy;
use crate::watcher::Watcher;
use crate::{mounts, netns, signals, state};

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
    /// A lab of one node; see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The lab's id: part of the name of everything it has on this machine.
    pub fn id(&self) -> &str {
        self.names.id()
    }

    /// The lab's folder: logs, manifests, state of the nodes. It goes with the lab.
    pub fn dir(&self) -> PathBuf {
        self.names.dir()
    }

    /// The lab's cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
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
        self.names.node_dir(node).join("bpf")
    }

    /// The node's run folder: kproxy's `--run-dir`.
    pub fn run_dir(&self, node: &str) -> PathBuf {
        self.names.node_dir(node).join("run")
    }

    /// Folder of manifests that all nodes watch when they run without an API server.
    pub fn manifests(&self) -> PathBuf {
        self.dir().join("manifests")
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

    /// Adds a pod to a node; it answers on [`layout::POD_PORT`].
    ///
    /// # Errors
    /// When there is no such node or the pod exists.
    pub fn add_pod(&self, node: &str, pod: &str) -> Result<Arc<Place>> {
        let place = format!("{node}/{pod}");
        let number = self.node_number(node)?;
        if pod.is_empty() || pod.len() > 9 || !pod.bytes().all(|b| b.is_ascii_alphanumeric()) {
            bail!("`{pod}` is no pod name here: one to nine letters and digits");
        }
        let pod_place = {
            let mut places = self.places();
            if places.contains_key(&place) {
                bail!("lab {} has a pod {place} already", self.id());
            }
            let taken: Vec<_> = places.values().map(|place| place.addresses().v4).collect();
            let addresses = (10..=u8::MAX)
                .map(|host| layout::on_node(number, host))
                .find(|addresses| !taken.contains(&addresses.v4))
                .with_context(|| format!("node {node} has no free pod address"))?;
            let new = Arc::new(Place::new(&self.names, &self.cgroup, &place, addresses));
            places.insert(place.clone(), Arc::clone(&new));
            new
        };
        self.make_namespaces(std::slice::from_ref(&place), &[])?;
        let addresses = pod_place.addresses();
        let shape = &self.shape;
        self.ip(Some(node), &wiring::pods::port(shape, &self.names, &place, pod, addresses))?;
        let settings = wiring::pods::port_settings(shape, pod);
        netns::sysctl(&self.names.netns_path(node), &settings)?;
        self.ip(Some(&place), &wiring::pods::pod(shape, number, addresses))?;
        pod_place.serve(layout::POD_PORT)?;
        Ok(pod_place)
    }

    /// Removes a pod: its processes, its namespace, its veth.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn remove_pod(&self, node: &str, pod: &str) -> Result<()> {
        let name = format!("{node}/{pod}");
        let place = self.place(&name)?;
        place.end();
        crate::cgroup::remove(place.cgroup())?;
        self.ip(Some(node), &wiring::pods::no_port(&self.shape, pod))?;
        netns::remove(&self.names.netns(&name))?;
        self.places().remove(&name);
        Ok(())
    }

    /// Lets the client reach ClusterIPs: the router sends them to a node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn route_services_via(&self, node: &str) -> Result<()> {
        self.ip(Some("router"), &wiring::service_routes(self.node_number(node)?))
    }

    /// Starts etcd and the real kube-apiserver, and writes the lab's Nodes. The first use on a
    /// machine builds the API server, which takes minutes.
    ///
    /// # Errors
    /// When it runs already, a program is missing, or the API server does not get ready.
    pub fn start_control_plane(&self) -> Result<&ControlPlane> {
        self.start_control_plane_with(&[])
    }

    /// As [`Self::start_control_plane`], with these arguments of the API server besides the lab's
    /// usual ones.
    ///
    /// # Errors
    /// As for [`Self::start_control_plane`].
    pub fn start_control_plane_with(&self, arguments: &[&str]) -> Result<&ControlPlane> {
        if self.control.get().is_some() {
            bail!("lab {} has a control plane already", self.id());
        }
        let control = ControlPlane::start(self, arguments)?;
        Ok(self.control.get_or_init(|| control))
    }

    /// The running control plane.
    ///
    /// # Errors
    /// Before [`Self::start_control_plane`].
    pub fn control(&self) -> Result<&ControlPlane> {
        self.control.get().with_context(|| {
            format!("lab {} has no API server; call start_control_plane() first", self.id())
        })
    }

    /// Makes the control plane's place.
    pub(crate) fn add_control_place(&self) -> Result<Arc<Place>> {
        let (name, host) = ("control".to_owned(), layout::CONTROL);
        self.make_namespaces(std::slice::from_ref(&name), &[])?;
        self.ip(Some("router"), &wiring::fabric_port_of(&self.names, &name))?;
        self.ip(Some(&name), &wiring::on_fabric(host))?;
        let place = Place::new(&self.names, &self.cgroup, &name, layout::on_fabric(host));
        let place = Arc::new(place);
        self.places().insert(name, Arc::clone(&place));
        Ok(place)
    }

    /// Leaves the lab running when this process ends; `kproxy-lab clean ID` removes it.
    ///
    /// # Errors
    /// When an agent does not answer; the lab is removed then.
    pub fn keep(mut self) -> Result<String> {
        for place in self.places().values() {
            place.detach()?;
        }
        state::keep(&self.names)?;
        if let Some(watcher) = self.watcher.take() {
            watcher.dismiss()?;
        }
        Ok(self.id().to_owned())
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn proxies(&self) -> MutexGuard<'_, Vec<Arc<Proxy>>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn node_number(&self, node: &str) -> Result<u8> {
        (1..=self.nodes)
            .find(|number| format!("n{number}") == node)
            .with_context(|| format!("no node `{node}` in lab {}", self.id()))
    }

    /// Runs `ip` commands in a place, or outside all of them.
    fn ip(&self, place: Option<&str>, script: &wiring::Script) -> Result<()> {
        self.batch("ip", place, script)
    }

    fn batch(&self, program: &str, place: Option<&str>, script: &wiring::Script) -> Result<()> {
        let netns = place.map(|place| self.names.netns(place));
        netns::batch(program, netns.as_deref(), script.as_str(), &self.cgroup.join("setup"))
    }

    /// Makes the namespaces and cgroups of places.
    fn make_namespaces(&self, places: &[String], forwarding: &[String]) -> Result<()> {
        self.ip(None, &wiring::namespaces(&self.names, places))?;
        for place in places {
            crate::cgroup::make(&self.cgroup.join(Names::place_cgroup(place)))?;
            netns::sysctl(&self.names.netns_path(place), wiring::SETTINGS)?;
        }
        for place in forwarding {
            netns::sysctl(&self.names.netns_path(place), wiring::FORWARDING)?;
        }
        Ok(())
    }

    /// Makes the folders of a node and mounts its BPF file system.
    fn make_node_dirs(&self, node: &str) -> Result<()> {
        for dir in [self.bpffs(node), self.run_dir(node)] {
            make_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        mounts::bpffs(&self.bpffs(node))
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.watcher.is_none() {
            return;
        }
        signals::wait_if_ending();
        for place in self.places().values() {
            place.end();
        }
        for proxy in self.proxies().iter() {
            proxy.end();
        }
        if let Some(control) = self.control.get() {
            control.end();
        }
        if let Err(error) = state::clean(self.id()) {
            // The watcher, which ends next, tries again; then `kproxy-lab clean` can.
            eprintln!("kproxy-lab: remove lab {}: {error:#}", self.id());
        }
        signals::forget(self.id());
    }
}
