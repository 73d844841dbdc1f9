//! Pods that are opted out of the socket path: their sockets lead to the ClusterIP that they dialled, and
//! their packets are translated.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use kproxy_lab::manifest::pod as pod_object;
use kproxy_lab::{
    Family, Hold, Lab, Network, Outcome, Place, Probe, Proxy, ProxySpec, Source, Transport,
};
use serde_json::{Value, json};

use crate::common::{Cluster, NODE_PORT, SILENCE, TRANSPORTS, at, vips};

const BACKENDS: [&str; 2] = ["n1/a", "n2/a"];
const RANGES: &str = "--socket-lb-skip-pod-cidrs";
const NAMESPACES: &str = "--socket-lb-skip-namespaces";

fn lab() -> Lab {
    Lab::builder().nodes(2).pods(&["a", "b", "c"]).build().unwrap()
}

/// Ranges that hold nobody but the pod.
fn only(pod: &Place) -> String {
    let [v4, v6] = pod.addresses().both();
    format!("{v4}/32,{v6}/128")
}

/// Where a connected socket of the pod leads, as the kernel has it: getpeername shows the ClusterIP in
/// any case.
pub(crate) fn leads_to(pod: &Place, transport: Transport, to: SocketAddr) -> SocketAddr {
    let held = pod.hold(Hold::new(transport, to)).unwrap();
    let kind = if transport == Transport::Tcp { "--tcp" } else { "--udp" };
    let sockets = pod.run("ss", &["-Hn", kind, "state", "established"]).unwrap();
    assert!(held.stop().unwrap().is_flawless());
    let mut peers = sockets.lines().map(|line| line.split_whitespace().last().unwrap());
    let peer = peers.next().unwrap_or_else(|| panic!("no socket"));
    assert_eq!(peers.next(), None, "one socket only: {sockets}");
    peer.parse().unwrap_or_else(|error| panic!("{peer}: {error}"))
}

/// Of each kind of new sockets of the pod and each ClusterIP whether they lead to it: connected ones by
/// themselves, unconnected ones by the flow that a datagram opens.
fn kinds(cluster: &Cluster, pod: &Place) -> Vec<bool> {
    let connected = vips().into_iter().flat_map(|vip| {
        [Transport::Tcp, Transport::UdpConnected].map(|kind| leads_to(pod, kind, vip) == vip)
    });
    let mut kinds: Vec<bool> = connected.collect();
    for vip in vips() {
        let probe = Probe::udp_unconnected(vip).from(at(pod.ip(Family::of(vip.ip())), 0));
        let local = pod.probe(probe).unwrap().attempts[0].local.unwrap().to_string();
        let flows = cluster.dump("n1", "flows");
        kinds.push(flows.as_array().unwrap().iter().any(|flow| flow["client"] == *local));
    }
    kinds
}

/// Every new socket of the pod leads to the ClusterIP that it dials.
fn is_left_alone(cluster: &Cluster, pod: &Place) -> bool {
    kinds(cluster, pod).into_iter().all(|leads_to_it| leads_to_it)
}

/// Every new socket of the pod leads to a backend.
fn is_translated(cluster: &Cluster, pod: &Place) -> bool {
    kinds(cluster, pod).into_iter().all(|leads_to_it| !leads_to_it)
}

/// Everything is answered, by every backend, and looks as if the ClusterIP itself did.
fn all_answered(cluster: &Cluster, pod: &Place) {
    let node = cluster.lab.node("n1");
    let node_ports = node.addresses().both().map(|ip| at(ip, NODE_PORT));
    for to in vips().into_iter().chain(node_ports) {
        for transport in TRANSPORTS {
            let outcome = pod.probe(Probe::new(transport, to).count(12)).unwrap();
            let what = format!("{} {transport:?} {to}: {outcome}", pod.name());
            assert!(outcome.all_answered(), "{what}\n{}", cluster.logs());
            assert_eq!(outcome.server_set(), BACKENDS.into(), "{what}");
            assert!(
                outcome.peers().into_iter().chain(outcome.sources()).all(|ip| ip == to),
                "{what}"
            );
            assert_eq!(outcome.clients(), [pod.ip(Family::of(to.ip()))].into(), "{what}");
        }
    }
}

fn status(cluster: &Cluster) -> Value {
    let output = cluster.try_kproxy("n1", &["status", "-o", "json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Starts n1's proxy anew with other arguments.
fn restart(cluster: &Cluster, proxy: &Proxy, arguments: &[&str]) -> Arc<Proxy> {
    proxy.stop().unwrap();
    let spec = ProxySpec::kproxy(Source::Manifests).args(arguments);
    cluster.lab.start_proxy("n1", spec).unwrap()
}

/// A new pod of n1 whose link has its programs.
fn add_pod(cluster: &Cluster, name: &str) -> Arc<Place> {
    let pod = cluster.lab.add_pod("n1", name).unwrap();
    for transport in TRANSPORTS {
        for vip in vips() {
            let probe = Probe::new(transport, vip).timeout(SILENCE);
            cluster.eventually("a new pod is served", &pod, &probe, Outcome::all_answered);
        }
    }
    pod
}

#[test]
fn a_pod_in_a_range_sees_the_clusterip_and_others_are_translated_at_the_socket() {
    let lab = lab();
    let (out, other, host) = (lab.pod("n1", "b"), lab.pod("n1", "c"), lab.node("n1"));
    let ranges = only(&out);
    let cluster = Cluster::in_lab(lab, &BACKENDS, json!({}), &[RANGES, &ranges]);
    // From its first socket on.
    assert!(is_left_alone(&cluster, &out));
    all_answered(&cluster, &out);
    cluster.wait("the other is served", || is_translated(&cluster, &other));
    all_answered(&cluster, &other);
    assert!(is_left_alone(&cluster, &out));
    assert_ne!(leads_to(&host, Transport::Tcp, vips()[0]), vips()[0]);

    let status = status(&cluster);
    assert_eq!(status["problems"], json!([]));
    let opt_out = &status["opt_out"];
    assert_eq!(opt_out["pod_cidrs"], json!(ranges.split(',').collect::<Vec<_>>()));
    assert_eq!(opt_out["namespaces"], json!([]));
    // Labs beside this one have the same addresses.
    let count = |key: &str| opt_out[key].as_u64().unwrap();
    assert!(count("opted_out") >= 1 && count("served") >= 2, "{opt_out}");
    assert!(cluster.kproxy("n1", &["status"]).contains("Opted out"));
}

#[test]
fn pods_with_routed_links_are_opted_out_too() {
    let lab = Lab::builder().nodes(2).pods(&["a", "b", "c"]).network(Network::Routed);
    let lab = lab.build().unwrap();
    let (out, other) = (lab.pod("n1", "b"), lab.pod("n1", "c"));
    let ranges = only(&out);
    let cluster = Cluster::in_lab(lab, &BACKENDS, json!({}), &[RANGES, &ranges]);
    assert!(is_left_alone(&cluster, &out));
    all_answered(&cluster, &out);
    cluster.wait("the other is served", || is_translated(&cluster, &other));
}

#[test]
fn an_opt_out_comes_and_goes_and_open_connections_go_on() {
    let cluster = Cluster::in_lab(lab(), &BACKENDS, json!({}), &[]);
    let pod = cluster.lab.pod("n1", "b");
    assert!(is_translated(&cluster, &pod));
    let hold = || {
        let pod = cluster.lab.pod("n1", "c");
        let held = TRANSPORTS
            .map(|transport| vips().map(|vip| pod.hold(Hold::new(transport, vip)).unwrap()));
        held.into_iter().flatten()
    };
    let translated = hold();
    // The range holds an address of the node, too: that of its bridge.
    let ranges = [RANGES, "10.244.0.0/16,fd00:10:244::/48"];
    let proxy = restart(&cluster, &cluster.proxies[0], &ranges);
    let host = cluster.lab.node("n1");
    assert!(
        is_left_alone(&cluster, &pod),
        "at once: a pod that is not looked at yet is left alone"
    );
    assert_ne!(
        leads_to(&host, Transport::Tcp, vips()[0]),
        vips()[0],
        "the node is never opted out"
    );
    let left_alone = hold();
    restart(&cluster, &proxy, &[]);
    assert!(is_translated(&cluster, &pod));
    assert_eq!(status(&cluster)["opt_out"], Value::Null);
    for held in translated.chain(left_alone) {
        let report = held.stop().unwrap();
        assert!(report.is_flawless(), "{report:?}\n{}", cluster.logs());
    }
}

#[test]
fn without_the_right_to_look_into_namespaces_every_pod_is_left_alone_and_served() {
    let lab = lab();
    let pods = ["b", "c"].map(|name| lab.pod("n1", name));
    let cluster = Cluster { lab, proxies: Vec::new() };
    cluster.web(&BACKENDS, json!({}));
    let spec = ProxySpec::kproxy(Source::Manifests).args([RANGES, &only(&pods[0])]);
    let proxy = cluster.lab.start_proxy("n1", spec.capabilities(&["bpf", "net_admin", "perfmon"]));
    proxy.unwrap();
    cluster.wait("it is told", || {
        status(&cluster)["problems"]
            .to_string()
            .contains("namespaces of pods cannot be looked into")
    });
    for pod in &pods {
        assert!(is_left_alone(&cluster, pod), "{}", pod.name());
        all_answered(&cluster, pod);
    }
}

#[test]
fn a_pod_that_is_made_later_is_never_translated_in_a_range_and_soon_outside() {
    let cluster = Cluster::in_lab(lab(), &BACKENDS, json!({}), &[RANGES, "10.244.1.0/28"]);
    let late = add_pod(&cluster, "late");
    assert_eq!(late.ip(Family::V4), "10.244.1.13".parse::<IpAddr>().unwrap());
    assert!(is_left_alone(&cluster, &late));
    all_answered(&cluster, &late);
    for number in 0..3 {
        let pod = add_pod(&cluster, &format!("late{number}"));
        if pod.ip(Family::V4) == "10.244.1.16".parse::<IpAddr>().unwrap() {
            cluster.wait("it is served", || is_translated(&cluster, &pod));
            assert!(is_left_alone(&cluster, &late));
            return;
        }
    }
    panic!("no pod outside the range");
}

#[test]
fn pods_of_a_namespace_are_opted_out_and_the_node_never_is() {
    let lab = lab();
    let (mesh, other, host) = (lab.pod("n1", "b"), lab.pod("n1", "c"), lab.node("n1"));
    // Its podIP is the node's address.
    let mut own = pod_object("mesh", &mesh);
    own["metadata"]["name"] = "host".into();
    own["spec"]["hostNetwork"] = true.into();
    own["status"]["podIP"] = host.ip(Family::V4).to_string().into();
    own["status"]["podIPs"] = json!([{"ip": host.ip(Family::V4).to_string()}]);
    lab.write_manifest("host.yaml", &kproxy_lab::manifest::yaml([own]).unwrap()).unwrap();
    let cluster = Cluster::in_lab(lab, &BACKENDS, json!({}), &[NAMESPACES, "mesh,unused"]);
    for pod in [&mesh, &other] {
        cluster.wait("nobody is opted out", || is_translated(&cluster, pod));
    }
    cluster.write("pods.yaml", [pod_object("mesh", &mesh), pod_object("default", &other)]);
    cluster.wait("its Pod is opted out", || is_left_alone(&cluster, &mesh));
    all_answered(&cluster, &mesh);
    assert!(is_translated(&cluster, &other));
    assert_ne!(
        leads_to(&host, Transport::Tcp, vips()[0]),
        vips()[0],
        "the node is never opted out"
    );
    assert_eq!(status(&cluster)["problems"], json!([]));

    // A Pod is being started: which of the new network namespaces is its own shows later.
    let mut starting = pod_object("mesh", &mesh);
    starting["metadata"]["name"] = "starting".into();
    starting["status"] = json!({"phase": "Pending"});
    cluster.write("starting.yaml", [starting]);
    // Of the same folder, and read together with it.
    cluster.other("api", "10.96.0.11", "fd00:10:96::b", &["n2/a"]);
    let api = at("10.96.0.11".parse::<IpAddr>().unwrap(), 80);
    cluster.eventually("it is read", &other, &Probe::tcp(api), Outcome::all_answered);
    let [late, stranger] = ["late", "stranger"].map(|name| add_pod(&cluster, name));
    let mut started = pod_object("mesh", &late);
    started["metadata"]["name"] = "starting".into();
    assert!(is_left_alone(&cluster, &late) && is_left_alone(&cluster, &stranger));
    cluster.wait("the daemon has looked at the new namespaces", || {
        status(&cluster)["opt_out"]["undecided"].as_u64().is_some_and(|number| number >= 2)
    });
    all_answered(&cluster, &stranger);
    cluster.write("starting.yaml", [started]);
    cluster.wait("the others are served", || is_translated(&cluster, &stranger));
    assert!(is_left_alone(&cluster, &late) && is_left_alone(&cluster, &mesh));
    assert!(is_translated(&cluster, &other));

    cluster.lab.remove_manifest("pods.yaml").unwrap();
    cluster.wait("the Pod has gone", || is_translated(&cluster, &mesh));
}
