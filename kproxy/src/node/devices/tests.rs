//! The rule, on made-up nodes.

use super::*;

fn link(name: &str, role: Role) -> Link {
    Link { name: name.into(), up: true, role, header: Header::Ethernet, port_of: None }
}

/// Names of the uplinks of a node with these links; `addresses` are (device, address/prefix).
fn uplinks(links: &[Link], addresses: &[(&str, &str)], default_routes: &[&str]) -> Vec<String> {
    let node = node(links, addresses, default_routes);
    node.state(&Selection::ByRole).devices.into_iter().map(|device| device.name).collect()
}

fn node(links: &[Link], addresses: &[(&str, &str)], default_routes: &[&str]) -> Snapshot {
    let index = |name: &str| 1 + links.iter().position(|link| link.name == name).unwrap() as u32;
    Snapshot {
        links: (1..).zip(links.iter().cloned()).collect(),
        addresses: addresses
            .iter()
            .map(|(device, text)| {
                let (addr, prefix) = text.split_once('/').unwrap();
                (index(device), addr.parse().unwrap(), prefix.parse().unwrap())
            })
            .collect(),
        default_routes: default_routes.iter().map(|name| index(name)).collect(),
    }
}

const AWAY: Role = Role::Pair { away: true };

#[test]
fn a_flannel_node() {
    let mut port = link("veth12", AWAY);
    port.port_of = Some(3);
    let links = [
        link("lo", Role::Loopback),
        link("ens3", Role::Ordinary),
        link("cni0", Role::Bridge),
        link("flannel.1", Role::Ordinary),
        port,
        link("docker0", Role::Bridge),
        link("kube-ipvs0", Role::Inside),
        link("ens4", Role::Ordinary),
    ];
    let addresses = [
        ("lo", "127.0.0.1/8"),
        ("ens3", "192.0.2.1/24"),
        ("cni0", "10.244.1.1/24"),
        ("flannel.1", "10.244.1.0/32"),
        ("docker0", "172.17.0.1/16"),
        ("kube-ipvs0", "10.96.0.1/32"),
    ];
    assert_eq!(uplinks(&links, &addresses, &["ens3"]), ["ens3", "flannel.1"]);
}

#[test]
fn a_calico_node_with_wireguard_and_a_bond() {
    let mut slave = link("eno1", Role::Ordinary);
    slave.port_of = Some(1);
    let mut wireguard = link("wg0", Role::Ordinary);
    wireguard.header = Header::Ip;
    let links = [link("bond0", Role::Ordinary), slave, wireguard, link("cali1", AWAY)];
    let addresses = [
        ("bond0", "2001:db8::1/64"),
        ("wg0", "10.9.0.1/32"),
        ("cali1", "169.254.1.1/32"),
        ("cali1", "fe80::1/64"),
    ];
    let node = node(&links, &addresses, &["bond0"]);
    let devices = node.state(&Selection::ByRole).devices;
    let found: Vec<_> =
        devices.iter().map(|device| (device.name.as_str(), device.ethernet)).collect();
    assert_eq!(found, [("bond0", true), ("wg0", false)]);
}

#[test]
fn a_node_that_is_a_container_and_its_ptp_pods() {
    let links =
        [link("eth0", AWAY), link("veth1", AWAY), link("inner", Role::Pair { away: false })];
    let addresses =
        [("eth0", "172.18.0.2/16"), ("veth1", "10.244.0.1/32"), ("inner", "10.1.0.1/24")];
    assert_eq!(uplinks(&links, &addresses, &["eth0"]), ["eth0"]);
    assert_eq!(uplinks(&links, &addresses, &[]), ["eth0"]);
    // Unnumbered, but the way out.
    assert_eq!(uplinks(&links[..1], &[], &["eth0"]), ["eth0"]);
}

#[test]
fn a_bridge_counts_when_a_port_leads_out() {
    let mut card = link("eth0", Role::Ordinary);
    card.port_of = Some(1);
    let mut machine = link("tap0", Role::Tun);
    machine.port_of = Some(1);
    let bridge = [link("br0", Role::Bridge), card, machine.clone()];
    let addresses = [("br0", "192.0.2.1/24")];
    assert_eq!(uplinks(&bridge, &addresses, &["br0"]), ["br0"]);
    let inner = [link("virbr0", Role::Bridge), machine];
    assert!(uplinks(&inner, &[("virbr0", "192.168.122.1/24")], &[]).is_empty());
}

#[test]
fn devices_that_are_down_or_unreadable_do_not_count_and_names_override_the_rule() {
    let mut down = link("eth1", Role::Ordinary);
    down.up = false;
    let mut infiniband = link("ib0", Role::Ordinary);
    infiniband.header = Header::Other;
    let links = [link("eth0", Role::Ordinary), down, infiniband, link("cali1", AWAY)];
    let addresses = [("eth0", "192.0.2.1/24"), ("eth1", "192.0.2.2/24"), ("ib0", "192.0.2.3/24")];
    assert_eq!(uplinks(&links, &addresses, &[]), ["eth0"]);
    let named = Selection::Named(vec!["eth?".into(), "ca*1".into()]);
    let devices = node(&links, &addresses, &[]).state(&named).devices;
    let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["cali1", "eth0"]);
}

#[test]
fn node_addresses_are_all_but_link_local_ipv6() {
    let links = [link("lo", Role::Loopback), link("eth0", Role::Ordinary)];
    let addresses = [
        ("lo", "127.0.0.1/8"),
        ("lo", "::1/128"),
        ("eth0", "fe80::1/64"),
        ("eth0", "192.0.2.1/24"),
    ];
    let found = node(&links, &addresses, &[]).state(&Selection::ByRole).addresses;
    let want: BTreeSet<IpAddr> =
        ["127.0.0.1", "::1", "192.0.2.1"].iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(found, want);
}

#[test]
fn patterns() {
    for (pattern, name, want) in [
        ("eth*", "eth0", true),
        ("*", "", true),
        ("e*0", "eth10", true),
        ("e*0", "eth1", false),
        ("eth?", "eth", false),
        ("eth0", "eth01", false),
    ] {
        assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
    }
}
