//! A cluster with kproxy on every node, fed from manifests, and one Service to dial.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aya::util::KernelVersion;
use kproxy_lab::manifest::{Service, Slice, slices, yaml};
use kproxy_lab::{
    Family, Lab, Outcome, Place, Probe, Proxy, ProxySpec, Source, Transport, poll_until,
};
use serde_json::{Value, json};

/// Long enough for any change to arrive, also after the longest pause (30 s) of a watch of the API server that has
/// failed a few times; a passing test never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before looking again.
const PAUSE: Duration = Duration::from_millis(20);
/// How long silence is listened to where nothing must come.
pub(crate) const SILENCE: Duration = Duration::from_millis(800);

/// ClusterIPs of the Service `web`.
pub(crate) const VIPS: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
/// TCP and UDP port of `web`.
pub(crate) const PORT: u16 = 80;
/// NodePort of `web`.
pub(crate) const NODE_PORT: u16 = 30080;
/// Port that the pods listen on.
pub(crate) const TARGET: u16 = kproxy_lab::POD_PORT;

/// Every way to ask.
pub(crate) const TRANSPORTS: [Transport; 3] =
    [Transport::Tcp, Transport::UdpConnected, Transport::UdpUnconnected];

/// A lab of two nodes with two pods each.
pub(crate) struct Cluster {
    pub(crate) lab: Lab,
    pub(crate) proxies: Vec<Arc<Proxy>>,
}

impl Cluster {
    /// With the Service `web` on these pods (`n1/a`, …).
    pub(crate) fn new(pods: &[&str]) -> Self {
        Self::with(pods, json!({}))
    }

    /// With further fields in the Service's `spec`.
    pub(crate) fn with(pods: &[&str], spec: Value) -> Self {
        Self::with_arguments(pods, spec, &[])
    }

    /// With further arguments for kproxy.
    pub(crate) fn with_arguments(pods: &[&str], spec: Value, arguments: &[&str]) -> Self {
        Self::in_lab(Lab::builder().nodes(2).build().unwrap(), pods, spec, arguments)
    }

    /// In any lab.
    pub(crate) fn in_lab(lab: Lab, pods: &[&str], spec: Value, arguments: &[&str]) -> Self {
        let cluster = Self { lab, proxies: Vec::new() };
        cluster.web(pods, spec);
        let kproxy = ProxySpec::kproxy(Source::Manifests).args(arguments);
        let proxies = cluster.lab.start_proxies(kproxy).unwrap();
        Self { proxies, ..cluster }
    }

    /// Writes the Service `web` and its slices. Pods whose name begins with `~` are terminating and
    /// still serve.
    pub(crate) fn web(&self, pods: &[&str], spec: Value) {
        self.write_web(pods, spec, json!({}));
    }

    /// As [`Self::web`], with metadata of the Service.
    pub(crate) fn annotated(&self, pods: &[&str], metadata: Value) {
        self.write_web(pods, json!({}), metadata);
    }

    /// Writes any objects into a file of their own.
    pub(crate) fn write(&self, name: &str, objects: impl IntoIterator<Item = Value>) {
        self.lab.write_manifest(name, &yaml(objects).unwrap()).unwrap();
    }

    fn write_web(&self, pods: &[&str], spec: Value, metadata: Value) {
        let service = Service::new("web")
            .cluster_ips(VIPS[0], VIPS[1])
            .of_type("NodePort")
            .port("tcp", "TCP", PORT, TARGET)
            .node_port(NODE_PORT)
            .port("udp", "UDP", PORT, TARGET)
            .node_port(NODE_PORT)
            .spec(spec)
            .metadata(metadata);
        let place = |name: &&str| self.lab.place(name.trim_start_matches('~')).unwrap();
        let places: Vec<_> = pods.iter().map(|name| (place(name), name.starts_with('~'))).collect();
        let mut objects = vec![Value::from(service)];
        objects.extend(Family::ALL.map(|family| {
            let slice =
                Slice::of("web", family).port("tcp", "TCP", TARGET).port("udp", "UDP", TARGET);
            Value::from(places.iter().fold(slice, |slice, (place, terminating)| {
                let (ready, terminating) = (!terminating, *terminating);
                let conditions = json!({
                    "ready": ready, "serving": true, "terminating": terminating,
                });
                slice.pod_with(place, conditions)
            }))
        }));
        self.lab.write_manifest("web.yaml", &yaml(objects).unwrap()).unwrap();
    }

    /// A second Service with one TCP port 80 on these pods.
    pub(crate) fn other(&self, name: &str, v4: &str, v6: &str, pods: &[&str]) {
        let places: Vec<_> = pods.iter().map(|name| self.lab.place(name).unwrap()).collect();
        let places: Vec<&Place> = places.iter().map(|place| &**place).collect();
        let service = Service::new(name).cluster_ips(v4, v6).port("tcp", "TCP", PORT, TARGET);
        let [a, b] = slices(name, "tcp", "TCP", TARGET, &places);
        let text = yaml([Value::from(service), a.into(), b.into()]).unwrap();
        self.lab.write_manifest(&format!("{name}.yaml"), &text).unwrap();
    }

    /// Asks until the outcome is as wanted; the last outcome is the failure's text.
    pub(crate) fn eventually(
        &self,
        what: &str,
        from: &Place,
        probe: &Probe,
        wanted: impl Fn(&Outcome) -> bool,
    ) -> Outcome {
        let ask = || from.probe(probe.clone());
        let outcome = poll_until(PATIENCE, PAUSE, ask, &wanted).unwrap();
        assert!(wanted(&outcome), "{what}: {} sees {outcome}\n{}", from.name(), self.logs());
        outcome
    }

    /// Waits until a condition holds.
    pub(crate) fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        wait_until(condition, || format!("{what}: waited in vain\n{}", self.logs()));
    }

    /// Runs a kproxy command on a node's pins and returns its standard output.
    pub(crate) fn kproxy(&self, node: &str, words: &[&str]) -> String {
        let output = self.try_kproxy(node, words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "kproxy {words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// As [`Self::kproxy`], whatever comes of it.
    pub(crate) fn try_kproxy(&self, node: &str, words: &[&str]) -> std::process::Output {
        let mut command = self.lab.kproxy_command(node, words[0]).unwrap();
        command.args(&words[1..]).output().unwrap()
    }

    /// A dump as JSON.
    pub(crate) fn dump(&self, node: &str, table: &str) -> Value {
        serde_json::from_str(&self.kproxy(node, &["dump", table, "-o", "json"])).unwrap()
    }

    pub(crate) fn logs(&self) -> String {
        self.proxies.iter().map(|proxy| format!("{}:\n{}\n", proxy.node(), proxy.log())).collect()
    }
}

/// Waits until a condition holds; `why_not` says what is the case instead.
pub(crate) fn wait_until(condition: impl Fn() -> bool, why_not: impl FnOnce() -> String) {
    let holds = poll_until(PATIENCE, PAUSE, || Ok(condition()), |holds| *holds).unwrap();
    assert!(holds, "{}", why_not());
}

/// Whether the kernel has MPTCP sockets whose memory the programs find.
pub(crate) fn has_mptcp() -> bool {
    let is_there = std::path::Path::new("/proc/sys/net/mptcp").exists()
        && KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 19, 0));
    if !is_there {
        println!("MPTCP not tried: the kernel has no such sockets, or no helper for them (5.19)");
    }
    is_there
}

/// The ClusterIP frontends of `web`.
pub(crate) fn vips() -> [SocketAddr; 2] {
    VIPS.map(|ip| SocketAddr::new(ip.parse().unwrap(), PORT))
}

/// An address and port.
pub(crate) fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}
