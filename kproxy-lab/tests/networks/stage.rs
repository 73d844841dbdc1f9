//! A cluster on one network with kproxy on every node, and what a case needs of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::util::KernelVersion;
use kproxy_lab::manifest::{Service, Slice, yaml};
use kproxy_lab::{
    Family, Feature, Held, Hold, Lab, Network, Outcome, POD_PORT, Place, Probe, Proxy, ProxySpec,
    Source, Transport,
};
use serde_json::{Value, json};

use crate::case::Web;
use crate::cases::CASES;
use crate::other::Others;

/// Every way to ask.
pub(crate) const TRANSPORTS: [Transport; 3] =
    [Transport::Tcp, Transport::UdpConnected, Transport::UdpUnconnected];
/// How long silence is listened to where nothing must come.
pub(crate) const SILENCE: Duration = Duration::from_millis(600);

/// What a network has besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum With {
    Nothing,
    Feature(Feature),
    /// Netfilter masquerades what goes to backends elsewhere, beside the rules of the CNI.
    NetfilterSnat,
    /// Somebody else's tcx programs before and after kproxy's.
    OtherTcx,
}

/// A network with one thing besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) network: Network,
    pub(crate) with: With,
}

impl Row {
    /// Whether this kernel can make it.
    fn is_supported(&self) -> Result<()> {
        match self.with {
            With::Feature(feature) => feature.is_supported(),
            With::OtherTcx => {
                let has_tcx = KernelVersion::current()? >= KernelVersion::new(6, 6, 0);
                ensure!(has_tcx, "the kernel has no tcx: that came with 6.6");
                Ok(())
            }
            With::Nothing | With::NetfilterSnat => Ok(()),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.with {
            With::Feature(feature) => write!(f, "{} with {feature:?}", self.network),
            other => write!(f, "{} with {other:?}", self.network),
        }
    }
}

/// The cluster: two nodes with the pods `a` (behind Services), `b` (a client only) and `vm`, whose
/// sockets nobody on the node sees.
pub(crate) struct Stage {
    pub(crate) row: Row,
    pub(crate) lab: Lab,
    proxies: Vec<Arc<Proxy>>,
    others: Vec<Others>,
    /// The next source port for UDP. A client port that is used again, with another frontend or
    /// with the backend itself, is for tests of its own.
    port: AtomicU16,
}

/// Source ports for UDP: below those that kernels give out.
const FIRST_PORT: u16 = 1_024;

/// Plays all cases on one row.
pub(crate) fn play(row: &Row) {
    if let Err(reason) = row.is_supported() {
        // Nothing of it can be made here: docs/networks.md says on which kernels it was.
        eprintln!("{row}: not run: {reason}");
        return;
    }
    let stage = Stage::new(*row).unwrap_or_else(|error| panic!("{row}: {error:#}"));
    let mut failures = String::new();
    for (name, case) in CASES {
        if let Err(error) = case(&stage) {
            failures += &format!("\n{name}: {error:#}");
        }
    }
    assert!(failures.is_empty(), "{row}:{failures}\n{}", stage.logs());
}

impl Stage {
    pub(crate) fn new(row: Row) -> Result<Self> {
        let mut builder = Lab::builder().nodes(2).pods(&["a", "b", "vm"]).network(row.network);
        if let With::Feature(feature) = row.with {
            builder = builder.feature(feature);
        }
        let mut stage = Self {
            row,
            lab: builder.build()?,
            proxies: Vec::new(),
            others: Vec::new(),
            port: FIRST_PORT.into(),
        };
        stage.lab.route_services_via("n1")?;
        stage.lab.write_manifest("all.yaml", &stage.objects()?)?;
        let mut kproxy = ProxySpec::kproxy(Source::Manifests);
        if row.with == With::NetfilterSnat {
            kproxy = kproxy.args(["--snat", "netfilter"]);
        }
        stage.proxies = stage.lab.start_proxies(kproxy)?;
        if row.with == With::OtherTcx {
            for node in stage.lab.nodes() {
                let devices: &[&str] = match row.network {
                    Network::Vxlan => &["eth0", "flannel.1", "flannel-v6.1"],
                    Network::Bridge | Network::Routed => &["eth0"],
                };
                stage.others.push(Others::attach(&stage.lab.node(&node), devices)?);
            }
        }
        Ok(stage)
    }

    fn objects(&self) -> Result<String> {
        let mut objects = Vec::new();
        for web in Web::ALL {
            let [v4, v6] = web.cluster_ips();
            let service = Service::new(web.name())
                .cluster_ips(v4, v6)
                .of_type("NodePort")
                .port("tcp", "TCP", Web::PORT, POD_PORT)
                .node_port(web.node_port())
                .port("udp", "UDP", Web::PORT, POD_PORT)
                .node_port(web.node_port());
            let policy = if web == Web::Local { "Local" } else { "Cluster" };
            objects.push(Value::from(service.spec(json!({"externalTrafficPolicy": policy}))));
            for family in Family::ALL {
                let mut slice = Slice::of(web.name(), family)
                    .port("tcp", "TCP", POD_PORT)
                    .port("udp", "UDP", POD_PORT);
                for pod in web.pods() {
                    slice = slice.pod(&*self.lab.place(pod)?);
                }
                objects.push(slice.into());
            }
        }
        yaml(objects)
    }

    /// Asks, and expects an answer to everything by each of `servers`, from the address dialled.
    pub(crate) fn answered(&self, from: &Place, probe: Probe, servers: &[&str]) -> Result<Outcome> {
        let to = probe.to();
        let outcome = from.probe(self.with_new_ports(probe.clone()))?;
        let what = || format!("{} asks {to} ({probe:?}): {outcome}", from.name());
        ensure!(outcome.all_answered(), "{}", what());
        ensure!(outcome.server_set() == servers.iter().copied().collect(), "{}", what());
        for seen in outcome.peers().into_iter().chain(outcome.sources()) {
            ensure!(seen == to, "{}: told {seen} instead", what());
        }
        Ok(outcome)
    }

    fn with_new_ports(&self, probe: Probe) -> Probe {
        if probe.transport() == Transport::Tcp {
            return probe;
        }
        let ports = u16::try_from(probe.requests()).unwrap_or(u16::MAX);
        let first = self.port.fetch_add(ports, Ordering::Relaxed);
        probe.ports(first)
    }

    /// A connection from a source port that nobody has used.
    pub(crate) fn held(&self, from: &Place, hold: Hold) -> Result<Held> {
        from.hold(hold.port(self.port.fetch_add(1, Ordering::Relaxed)))
    }

    /// Asks, and expects to hear nothing at all.
    pub(crate) fn silent(&self, from: &Place, probe: Probe) -> Result<()> {
        let outcome = from.probe(self.with_new_ports(probe.clone()).timeout(SILENCE))?;
        let all = outcome.attempts.len();
        ensure!(outcome.timeouts() == all, "{} asks {}: {outcome}", from.name(), probe.to());
        Ok(())
    }

    /// All addresses of a node but loopback ones: of its uplinks, of its end of an overlay, ….
    pub(crate) fn addresses(&self, node: &str) -> Result<BTreeSet<IpAddr>> {
        let text = self.lab.node(node).run("ip", &["-json", "address", "show"])?;
        let links: Value = serde_json::from_str(&text).context("read the output of ip")?;
        let infos = links.as_array().into_iter().flatten();
        let infos = infos.flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
        Ok(infos.filter_map(|info| info["local"].as_str()?.parse().ok()).collect())
    }

    /// Addresses of a node that clients outside dial.
    pub(crate) fn dialled(&self, node: &str) -> Result<Vec<IpAddr>> {
        let mut addresses: Vec<IpAddr> = self.lab.node(node).addresses().both().into();
        if self.row.with == With::Feature(Feature::SecondUplink) {
            addresses.extend(self.lab.second_addresses(node)?.both());
        }
        Ok(addresses)
    }

    /// Packets that programs of others have seen, the least of all places; `None`: there are none.
    pub(crate) fn seen_by_others(&self) -> Result<Option<u64>> {
        let counts: Vec<u64> = self.others.iter().map(Others::seen).collect::<Result<_>>()?;
        Ok(counts.into_iter().min())
    }

    /// What `kproxy status` says of a node.
    pub(crate) fn status(&self, node: &str) -> Result<Value> {
        let mut command = self.lab.kproxy_command(node, "status")?;
        let output = command.args(["-o", "json"]).output()?;
        serde_json::from_slice(&output.stdout).context("read the output of kproxy status")
    }

    fn logs(&self) -> String {
        self.proxies.iter().map(|proxy| format!("{}:\n{}\n", proxy.node(), proxy.log())).collect()
    }
}

/// An address and port.
pub(crate) fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}
