//! Pods whose sockets nobody sees at the cgroup root (virtual machines, raw sockets): their packets
//! are translated at the node's end of their link.

use std::net::{IpAddr, SocketAddr};

use crate::common::{Cluster, NODE_PORT, SILENCE, TARGET, TRANSPORTS, at, vips};
use kproxy_lab::{Family, Hold, Lab, Place, Probe, Transport};
use serde_json::json;

const BACKENDS: [&str; 3] = ["n1/a", "n1/vm", "n2/a"];

/// Two nodes with a pod and a virtual machine each; bridged packets pass netfilter or do not.
fn cluster(bridge_netfilter: bool, arguments: &[&str]) -> Cluster {
    let lab = Lab::builder().nodes(2).pods(&["a", "vm"]).bridge_netfilter(bridge_netfilter);
    Cluster::in_lab(lab.build().unwrap(), &BACKENDS, json!({}), arguments)
}

/// Every backend answers at this address. `vm` is one of them and sees `own` as its client, or
/// another address than its own; the others see `vm`.
fn all_answer(cluster: &Cluster, vm: &Place, to: SocketAddr, own: Option<IpAddr>) {
    for transport in TRANSPORTS {
        let outcome = vm.probe(Probe::new(transport, to).count(12)).unwrap();
        let what = format!("{transport:?} {to}: {outcome}");
        assert!(outcome.all_answered(), "{what}\n{}", cluster.logs());
        assert_eq!(outcome.server_set(), BACKENDS.into(), "{what}");
        let address = vm.ip(Family::of(to.ip()));
        for answer in outcome.answers() {
            let client = answer.client.ip();
            let is_right = match own {
                _ if answer.server != vm.name() => client == address,
                Some(own) => client == own,
                None => client != address,
            };
            assert!(is_right, "{what}: {} sees {client}", answer.server);
        }
    }
}

#[test]
fn a_virtual_machine_reaches_pods_of_its_node_and_of_others_and_itself() {
    for bridge_netfilter in [false, true] {
        let cluster = cluster(bridge_netfilter, &[]);
        let vm = cluster.lab.pod("n1", "vm");
        for vip in vips() {
            all_answer(&cluster, &vm, vip, Some(vip.ip()));
        }
        let node = cluster.lab.node("n1");
        for ip in node.addresses().both() {
            all_answer(&cluster, &vm, at(ip, NODE_PORT), Some(ip));
        }
    }
}

#[test]
fn netfilter_takes_care_of_a_virtual_machine_that_dials_itself() {
    let cluster = cluster(true, &["--snat", "netfilter"]);
    let vm = cluster.lab.pod("n1", "vm");
    for vip in vips() {
        all_answer(&cluster, &vm, vip, None);
    }
}

#[test]
fn ver_01_a_virtual_machine_is_refused_at_once() {
    let cluster = cluster(false, &[]);
    let vm = cluster.lab.pod("n1", "vm");
    cluster.web(&[], json!({}));
    for vip in vips() {
        for transport in TRANSPORTS {
            let probe = Probe::new(transport, vip).timeout(SILENCE);
            cluster.eventually("refused", &vm, &probe, kproxy_lab::Outcome::all_refused);
        }
    }
    let drops = cluster.kproxy("n1", &["dump", "counters"]);
    assert!(drops.contains("no-backend"), "{drops}");
}

#[test]
fn flow_08_a_pod_answers_a_process_of_its_node_that_asks_from_a_nodeport() {
    for probe in [Probe::udp as fn(SocketAddr) -> Probe, Probe::udp_unconnected] {
        // The backend is elsewhere, and nothing has looked at what goes to pods so far.
        let lab = Lab::builder().nodes(2).pods(&["a", "vm"]).build().unwrap();
        let cluster = Cluster::in_lab(lab, &["n2/a"], json!({}), &[]);
        let node = cluster.lab.node("n1");
        for name in ["a", "vm", "a"] {
            let pod = cluster.lab.pod("n1", name);
            for ip in pod.addresses().both() {
                let outcome = node.probe(probe(at(ip, TARGET)).ports(NODE_PORT)).unwrap();
                assert_eq!(outcome.server_set(), [pod.name()].into(), "{ip} {outcome}");
            }
        }
        // What nobody has asked for is a request, as before.
        let vm = cluster.lab.pod("n1", "vm");
        for ip in node.addresses().both() {
            let to_service = Probe::udp(at(ip, NODE_PORT)).timeout(SILENCE);
            cluster.eventually("the Service", &vm, &to_service, |outcome| {
                outcome.server_set() == ["n2/a"].into()
            });
        }
    }
}

#[test]
fn a_pod_that_is_its_own_backend_answers_itself_on_both_paths() {
    let cluster = cluster(false, &[]);
    cluster.web(&["n1/a"], json!({}));
    let pod = cluster.lab.pod("n1", "a");
    for vip in vips() {
        for transport in TRANSPORTS {
            let probe = Probe::new(transport, vip).count(3);
            cluster.eventually("the socket path", &pod, &probe, |outcome| {
                outcome.all_answered() && outcome.server_set() == ["n1/a"].into()
            });
        }
    }
    cluster.web(&["n1/vm"], json!({}));
    let vm = cluster.lab.pod("n1", "vm");
    for vip in vips() {
        for transport in TRANSPORTS {
            let probe = Probe::new(transport, vip).count(3).padding(6000);
            cluster.eventually("the packet path", &vm, &probe, |outcome| {
                outcome.all_answered() && outcome.server_set() == ["n1/vm"].into()
            });
        }
    }
}

#[test]
fn with_socket_lb_host_a_pod_goes_on_seeing_the_clusterip_it_has_dialled() {
    let cluster = cluster(false, &["--socket-lb", "host"]);
    for name in ["n1/a", "n1/vm"] {
        let pod = cluster.lab.place(name).unwrap();
        for vip in vips() {
            for transport in TRANSPORTS {
                let outcome = pod.probe(Probe::new(transport, vip).count(12)).unwrap();
                let what = format!("{name} {transport:?} {vip}: {outcome}");
                assert!(outcome.all_answered(), "{what}\n{}", cluster.logs());
                assert_eq!(outcome.server_set(), BACKENDS.into(), "{what}");
            }
        }
    }
    // Each of the pods' connections is a flow; those of the node are none.
    let flows =
        || cluster.kproxy("n1", &["dump", "flows", "-o", "json"]).matches("frontend").count();
    let before = flows();
    assert!(before >= 12, "{before}");
    let host = cluster.lab.node("n1").probe(Probe::tcp(vips()[0]).count(6)).unwrap();
    assert!(host.all_answered(), "{host}");
    assert_eq!(flows(), before);
}

#[test]
fn answers_to_pods_are_looked_at_once_a_pod_needs_it() {
    let cluster = cluster(false, &[]);
    let attached =
        |program: &str| cluster.kproxy("n1", &["status", "-o", "json"]).matches(program).count();
    let pod = cluster.lab.pod("n1", "a").probe(Probe::tcp(vips()[0]).count(3)).unwrap();
    assert!(pod.all_answered(), "{pod}");
    assert_eq!((attached("kp_pod_ingress"), attached("kp_pod_egress")), (2, 0));
    // The connection's first packet is lost, and sent again after a second.
    let vm = cluster.lab.pod("n1", "vm").probe(Probe::tcp(vips()[0])).unwrap();
    assert!(vm.all_answered(), "{vm}");
    assert_eq!((attached("kp_pod_ingress"), attached("kp_pod_egress")), (2, 2));
    let drops = cluster.kproxy("n1", &["dump", "counters"]);
    assert!(drops.contains("answers-not-ready"), "{drops}");
    // From now on it stays attached, whoever runs.
    let held = cluster.lab.pod("n1", "vm").hold(Hold::new(Transport::Tcp, vips()[0])).unwrap();
    let proxy = &cluster.proxies[0];
    proxy.kill().unwrap();
    proxy.start().unwrap();
    assert_eq!((attached("kp_pod_ingress"), attached("kp_pod_egress")), (2, 2));
    let report = held.stop().unwrap();
    assert!(report.is_flawless(), "{report:?}");
}

#[test]
fn ports_follow_the_pods_that_come_and_go_and_none_are_served_when_told_so() {
    let cluster = cluster(false, &[]);
    let late = cluster.lab.add_pod("n1", "vm2").unwrap();
    let probe = Probe::tcp(vips()[0]).timeout(SILENCE);
    cluster.eventually("a new one", &late, &probe, kproxy_lab::Outcome::all_answered);
    let status = cluster.kproxy("n1", &["status"]);
    assert!(status.contains("Pods"), "{status}");

    let none = self::cluster(false, &["--pod-devices", "none"]);
    let vm = none.lab.pod("n1", "vm");
    assert_eq!(vm.probe(probe).unwrap().answered(), 0);
    let seen = none.lab.pod("n1", "a").probe(Probe::tcp(vips()[0])).unwrap();
    assert!(seen.all_answered(), "{seen}");
}
