//! Labs of every network and feature, without any proxy: that each is what it says.

use std::time::Duration;

use kproxy_lab::{Family, Feature, Lab, Network, Outcome, POD_PORT, Place, Probe};

/// Long enough for an answer that comes, short enough for silence.
const SILENCE: Duration = Duration::from_millis(600);

fn lab(network: Network, features: &[Feature]) -> Lab {
    let builder = Lab::builder().nodes(2).network(network);
    features.iter().fold(builder, |builder, feature| builder.feature(*feature)).build().unwrap()
}

fn ask(from: &Place, to: &Place, family: Family) -> Outcome {
    from.probe(Probe::tcp(to.at(family, POD_PORT)).timeout(SILENCE)).unwrap()
}

#[test]
fn pods_and_hosts_reach_pods_on_every_network() {
    for network in Network::ALL {
        let lab = lab(network, &[]);
        for from in [lab.pod("n1", "a"), lab.node("n1")] {
            for to in ["n1/b", "n2/a"] {
                let to = lab.place(to).unwrap();
                for family in Family::ALL {
                    let outcome = ask(&from, &to, family);
                    let what = format!("{network}: {} asks {}: {outcome}", from.name(), to.name());
                    assert_eq!(outcome.servers(), [(to.name(), 1)].into(), "{what}");
                    if from.name().contains('/') {
                        assert_eq!(outcome.clients(), [from.ip(family)].into(), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_overlay_hides_the_pods_from_the_wire() {
    let lab = lab(Network::Vxlan, &[]);
    let packets = |name: &str| -> u64 {
        let text = lab.node("n1").run("ip", &["-json", "-stats", "link", "show", name]).unwrap();
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        links[0]["stats64"]["tx"]["packets"].as_u64().unwrap_or_else(|| panic!("{links}"))
    };
    for (family, device) in [(Family::V4, "flannel.1"), (Family::V6, "flannel-v6.1")] {
        let before = packets(device);
        assert!(ask(&lab.pod("n1", "a"), &lab.pod("n2", "a"), family).all_answered());
        assert!(packets(device) > before, "{device}");
        let outcome = ask(&lab.client(), &lab.pod("n2", "a"), family);
        assert_eq!(outcome.answered(), 0, "the router has no way to pods: {outcome}");
    }
    let link = lab.node("n1").run("ip", &["-d", "link", "show", "flannel.1"]).unwrap();
    for word in ["vxlan id 1", "dstport 8472", "nolearning", "mtu 1450"] {
        assert!(link.contains(word), "{word} in {link}");
    }
}

#[test]
fn routed_pods_have_no_bridge_and_a_gateway_that_nobody_has() {
    let lab = lab(Network::Routed, &[]);
    let links = lab.node("n1").run("ip", &["-o", "link"]).unwrap();
    assert!(links.contains("calia@") && !links.contains("cni0"), "{links}");
    let pod = lab.pod("n1", "a");
    assert!(ask(&pod, &lab.pod("n2", "a"), Family::V4).all_answered());
    let neighbour = pod.run("ip", &["neigh", "show", "169.254.1.1"]).unwrap();
    assert!(neighbour.contains("ee:ee:ee:ee:ee:ee"), "{neighbour}");
    lab.remove_pod("n1", "a").unwrap();
    lab.add_pod("n1", "a").unwrap();
}

#[test]
fn a_strict_filter_drops_what_comes_in_by_the_wrong_device() {
    for (features, drops) in [(&[][..], false), (&[Feature::RpFilter], true)] {
        let lab = lab(Network::Bridge, features);
        // The node would answer this client by another device than it asks by.
        lab.node("n1").run("ip", &["route", "add", "192.0.2.2/32", "dev", "cni0"]).unwrap();
        let before = filtered(&lab.node("n1"));
        ask(&lab.client(), &lab.pod("n1", "a"), Family::V4);
        assert_eq!(filtered(&lab.node("n1")) > before, drops, "{features:?}");
    }
}

/// IPReversePathFilter of /proc/net/netstat.
fn filtered(node: &Place) -> u64 {
    let text = node.run("cat", &["/proc/net/netstat"]).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "IPReversePathFilter").unwrap();
    value.parse().unwrap()
}

#[test]
fn a_firewall_forwards_only_what_the_cni_accepts() {
    for network in Network::ALL {
        for (features, answered) in [(&[][..], 1), (&[Feature::ForwardDrop], 0)] {
            let lab = lab(network, features);
            // Through the node to somebody who is no pod: to the other node.
            let (node, client) = (lab.node("n1"), lab.client());
            for (to, via) in [("172.18.0.12/32", "172.18.0.11"), ("fd00:18::12/128", "fd00:18::11")]
            {
                lab.router().run("ip", &["route", "add", to, "via", via]).unwrap();
            }
            lab.node("n2").serve(9_000).unwrap();
            for family in Family::ALL {
                let to = lab.node("n2").at(family, 9_000);
                let outcome = client.probe(Probe::tcp(to).timeout(SILENCE)).unwrap();
                assert_eq!(outcome.answered(), answered, "{network} {features:?}: {outcome}");
                let outcome = ask(&lab.pod("n1", "a"), &lab.pod("n2", "a"), family);
                assert!(outcome.all_answered(), "{network} {features:?}: {outcome}");
            }
            let rules = node.run("nft", &["list", "ruleset"]).unwrap();
            assert_eq!(rules.contains("policy drop"), answered == 0, "{rules}");
        }
    }
}

#[test]
fn answers_leave_by_the_second_uplink() {
    let lab = lab(Network::Routed, &[Feature::SecondUplink]);
    let node = lab.node("n1");
    let way = |to: &str| node.run("ip", &["route", "get", to]).unwrap();
    assert!(way("192.0.2.2").contains("dev eth1"), "{}", way("192.0.2.2"));
    assert!(way("2001:db8::2").contains("dev eth1"), "{}", way("2001:db8::2"));
    assert!(way("172.18.0.12").contains("dev eth0"), "{}", way("172.18.0.12"));
    let answers = lab.node("n2").run("ip", &["route", "get", "172.18.0.11"]).unwrap();
    assert!(answers.contains("dev eth1"), "{answers}");
    node.serve(9_000).unwrap();
    for family in Family::ALL {
        let outcome = lab.client().probe(Probe::tcp(node.at(family, 9_000))).unwrap();
        assert!(outcome.all_answered(), "{outcome}");
    }
    assert!(lab.second_addresses("n1").is_ok() && lab.second_addresses("n9").is_err());
}

#[test]
fn the_way_between_nodes_is_narrower_than_their_pods() {
    for network in Network::ALL {
        let lab = lab(network, &[Feature::SmallMtu]);
        let (from, to) = (lab.pod("n1", "a"), lab.pod("n2", "a"));
        for family in Family::ALL {
            let large = Probe::tcp(to.at(family, POD_PORT)).padding(200_000);
            let outcome = from.probe(large).unwrap();
            assert!(outcome.all_answered(), "{network}: {outcome}");
            let learnt = from.run("ip", &["route", "get", &to.ip(family).to_string()]).unwrap();
            assert!(learnt.contains("mtu 1300"), "{network}: {learnt}");
        }
    }
}

#[test]
fn a_vlan_is_the_uplink_or_the_kernel_is_named() {
    match Feature::VlanUplink.is_supported() {
        Ok(()) => {
            let lab = lab(Network::Bridge, &[Feature::VlanUplink]);
            let way = lab.node("n1").run("ip", &["route", "get", "192.0.2.2"]).unwrap();
            assert!(way.contains("dev eth0.10"), "{way}");
        }
        Err(reason) => {
            let error = Lab::builder().feature(Feature::VlanUplink).build().unwrap_err();
            assert_eq!(error.to_string(), reason.to_string());
        }
    }
}
