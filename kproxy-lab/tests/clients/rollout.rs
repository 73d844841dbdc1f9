//! A Service whose pods are replaced one after the other, with the conditions that the
//! EndpointSlice controller writes on the way.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kproxy_lab::manifest::{Service, Slice, yaml};
use kproxy_lab::{Api, Family, Lab, Place, Proxy, ProxySpec, Source, poll_until};
use serde_json::{Value, json};

/// Long enough for any change to arrive; a passing test never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// ClusterIPs of the Service `web`.
const VIPS: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
/// TCP and UDP port of `web`, unless a test wants another.
const PORT: u16 = 80;
/// NodePort of `web`.
const NODE_PORT: u16 = 30080;

/// Where a pod is in its life, as far as its endpoints tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// Started, its readiness probe not passed yet.
    Starting,
    /// Its readiness probe passes.
    Ready,
    /// Being deleted; its readiness probe still passes.
    Terminating,
    /// Being deleted; its readiness probe fails.
    Ended,
}

impl Life {
    /// A terminating endpoint is never ready, whatever its probe says.
    fn conditions(self) -> Value {
        let serving = matches!(self, Self::Ready | Self::Terminating);
        let terminating = matches!(self, Self::Terminating | Self::Ended);
        json!({"ready": serving && !terminating, "serving": serving, "terminating": terminating})
    }
}

/// A lab of two nodes with the Service `web`, dual stack, TCP and UDP, with a NodePort.
pub(crate) struct Rollout {
    pub(crate) lab: Lab,
    pub(crate) proxies: Vec<Arc<Proxy>>,
    source: Source,
    spec: Value,
    port: u16,
    target: u16,
    pods: BTreeMap<String, Life>,
}

impl Rollout {
    /// `web` on `n1/a` and `n2/a`, which listen on `target`; with further fields in its `spec`.
    pub(crate) fn new(source: Source, target: u16, spec: Value) -> Self {
        Self::on_port(PORT, source, target, spec)
    }

    /// As [`Self::new`], with another port of `web`.
    pub(crate) fn on_port(port: u16, source: Source, target: u16, spec: Value) -> Self {
        let lab = Lab::builder().nodes(2).build().unwrap();
        if source == Source::Api {
            lab.start_control_plane().unwrap();
        }
        let pods = ["n1/a", "n2/a"].map(|pod| (pod.to_owned(), Life::Ready)).into();
        let mut rollout = Self { lab, proxies: Vec::new(), source, spec, port, target, pods };
        rollout.publish();
        rollout.proxies = rollout.lab.start_proxies(ProxySpec::kproxy(source)).unwrap();
        rollout
    }

    /// Writes a pod's new state.
    pub(crate) fn set(&mut self, pod: &str, life: Life) {
        self.pods.insert(pod.to_owned(), life);
        self.publish();
    }

    /// The pod is gone.
    pub(crate) fn remove(&mut self, pod: &str) {
        self.pods.remove(pod);
        self.publish();
    }

    fn publish(&self) {
        let service = Service::new("web")
            .cluster_ips(VIPS[0], VIPS[1])
            .of_type("NodePort")
            .port("tcp", "TCP", self.port, self.target)
            .node_port(NODE_PORT)
            .port("udp", "UDP", self.port, self.target)
            .node_port(NODE_PORT)
            .spec(self.spec.clone());
        let mut objects = vec![Value::from(service)];
        for family in Family::ALL {
            let mut slice = Slice::of("web", family).port("tcp", "TCP", self.target).port(
                "udp",
                "UDP",
                self.target,
            );
            for (pod, life) in &self.pods {
                slice = slice.pod_with(&self.lab.place(pod).unwrap(), life.conditions());
            }
            objects.push(slice.into());
        }
        let text = yaml(objects).unwrap();
        match self.source {
            Source::Manifests => self.lab.write_manifest("web.yaml", &text).unwrap(),
            Source::Api => drop(self.api().apply(&text).unwrap()),
        }
    }

    fn api(&self) -> &Api {
        self.lab.control().unwrap().api()
    }

    /// Waits until every node sends connections to the pod.
    pub(crate) fn wait_used(&self, pod: &str) {
        self.wait(pod, |node| {
            // Both families and both protocols; once more where the node's own pods are preferred.
            let is_local = pod.starts_with(&format!("{node}/"));
            4 * (1 + usize::from(is_local && self.has_local_policy()))
        });
    }

    /// Waits until no node sends new connections to the pod.
    pub(crate) fn wait_unused(&self, pod: &str) {
        self.wait(pod, |_node| 0);
    }

    fn has_local_policy(&self) -> bool {
        self.spec.as_object().is_some_and(|fields| fields.values().any(|value| value == "Local"))
    }

    /// Waits until no UDP flow leads to the pod: they stay as long as it serves (CT-05).
    pub(crate) fn wait_left(&self, pod: &str) {
        self.wait_for(pod, |node, place| self.flows_to(node, place), |_node| 0);
    }

    /// Waits until the maps of every node hold the pod so many times.
    fn wait(&self, pod: &str, wanted: impl Fn(&str) -> usize) {
        self.wait_for(pod, |node, place| self.backends(node, place), wanted);
    }

    /// Waits until every node has so many of these rows of the pod.
    fn wait_for(
        &self,
        pod: &str,
        rows: impl Fn(&str, &Place) -> Vec<Value>,
        wanted: impl Fn(&str) -> usize,
    ) {
        let place = self.lab.place(pod).unwrap();
        for node in self.lab.nodes() {
            let (pause, wanted) = (Duration::from_millis(10), wanted(&node));
            let look = || Ok(rows(&node, &place));
            let held = poll_until(PATIENCE, pause, look, |held| held.len() == wanted).unwrap();
            assert!(
                held.len() == wanted,
                "{node} holds {pod} {} times, not {wanted}: {held:?}\n{}",
                held.len(),
                self.logs()
            );
        }
    }

    /// Entries of a pod in the maps of a node.
    fn backends(&self, node: &str, pod: &Place) -> Vec<Value> {
        let addresses = pod.addresses().both().map(|ip| ip.to_string());
        let mut rows = self.dump(node, &["backends", "--service", "web"]);
        rows.retain(|row| addresses.iter().any(|address| row["addr"] == *address));
        rows
    }

    /// UDP flows of a node whose next datagram goes to a pod.
    fn flows_to(&self, node: &str, pod: &Place) -> Vec<Value> {
        let of = |ip: IpAddr| self.dump(node, &["flows", "--address", &ip.to_string()]);
        let mut rows = pod.addresses().both().map(of).concat();
        rows.retain(|row| row["protocol"] == "UDP" && row["halves"] != "reverse-only");
        rows
    }

    fn dump(&self, node: &str, words: &[&str]) -> Vec<Value> {
        let mut command = self.lab.kproxy_command(node, "dump").unwrap();
        let output = command.args(words).args(["-o", "json"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "dump {words:?} of {node}: {text}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The ClusterIP frontend of one family.
    pub(crate) fn vip(&self, family: Family) -> SocketAddr {
        let ip = if family == Family::V4 { VIPS[0] } else { VIPS[1] };
        SocketAddr::new(ip.parse().unwrap(), self.port)
    }

    /// The NodePort on an address of a node.
    pub(crate) fn node_port(&self, node: &str, family: Family) -> SocketAddr {
        self.lab.node(node).at(family, NODE_PORT)
    }

    pub(crate) fn logs(&self) -> String {
        self.proxies.iter().map(|proxy| format!("{}:\n{}\n", proxy.node(), proxy.log())).collect()
    }
}
