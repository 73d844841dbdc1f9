//! Which devices are uplinks: a pure decision over what rtnetlink says.
//!
//! The rule, by role instead of by name:
//! - a device that carries a default route is an uplink, whatever its kind;
//! - a physical device, bond, VLAN or macvlan that holds a global address is one;
//! - a tunnel or overlay device (VXLAN, Geneve, WireGuard, IPIP, …) that holds an address is one;
//! - a bridge that holds a global address is one when a wire or an overlay is among its ports: one
//!   with none but veths and taps serves pods or virtual machines;
//! - a veth is one only when it holds a global address with room for neighbours (CNIs that route
//!   veths give the host end no address or a /32) and its other end is in another namespace.
//!
//! Never: devices that are down, loopback, and ports of a bridge, bond, team or Open vSwitch (their
//! master sees the packets). Ports of a VRF are judged as themselves: what enters a VRF enters at
//! the port first. `--devices` replaces the rule by names.
//!
//! A device that has been an uplink stays one, down or without its address and route, until it is
//! gone or leads elsewhere: between "down" and "up" the node's stack would answer the packets of open
//! connections, with resets.
//!
//! Packets of a device must begin with an Ethernet or an IP header: others (IP over InfiniBand)
//! become a problem instead of an uplink.

use std::{collections::BTreeSet, net::IpAddr};

use wildmatch::WildMatch;

use super::device::Device;
use crate::model::Problem;

/// What a device is, as far as the rule needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// No kind: hardware (virtio, e1000, …). Also bond, team, VLAN, macvlan, ipvlan.
    Wire,
    /// VXLAN, Geneve, WireGuard, IPIP, SIT, GRE, tun.
    Overlay,
    /// tap: as a port a virtual machine's, by itself an overlay.
    Tap,
    /// Bridge.
    Bridge,
    /// veth or netkit: usually a pod's.
    Veth,
    /// VRF: leads nowhere itself, and its ports keep their roles.
    Vrf,
    /// dummy, ifb, nlmon: leads nowhere.
    Nowhere,
}

/// One device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    /// The device itself.
    pub device: Device,
    /// Kind.
    pub kind: Kind,
    /// Name of its link layer when packets begin with neither an Ethernet nor an IP header.
    pub other_header: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// The loopback device.
    pub loopback: bool,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// The other end of the pair is in this network namespace too (veth, netkit).
    pub peer_here: bool,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// A default route leads out of it.
    pub default_route: bool,
}

#[cfg(test)]
impl Link {
    /// A device that is up.
    pub(super) fn example(index: u32, name: &str, kind: Kind, addresses: &[(&str, u8)]) -> Self {
        Self {
            device: Device { name: name.into(), index, ethernet: true },
            kind,
            other_header: None,
            up: true,
            loopback: name == "lo",
            master: None,
            peer_here: false,
            addresses: addresses.iter().map(|(ip, len)| (ip.parse().unwrap(), *len)).collect(),
            default_route: false,
        }
    }
}

/// The devices that the rule chooses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Uplinks {
    /// Sorted by name.
    pub devices: Vec<Device>,
    /// Those that the programs cannot read.
    pub problems: Vec<Problem>,
    /// Names were given, and they leave out a device that the rule chooses.
    pub left_out: bool,
}

/// The uplinks among `links`. `names` replaces the rule when it is not empty. `before`: indices of
/// those that were uplinks.
pub(super) fn uplinks(links: &[Link], names: &[WildMatch], before: &BTreeSet<u32>) -> Uplinks {
    let chosen = |link: &&Link| {
        let was_one = before.contains(&link.device.index);
        if names.is_empty() {
            is_uplink(link, links) || was_one && stays_uplink(link, links)
        } else {
            (link.up || was_one) && names.iter().any(|name| name.matches(&link.device.name))
        }
    };
    let mut uplinks = Uplinks::default();
    for link in links.iter().filter(chosen) {
        match &link.other_header {
            None => uplinks.devices.push(link.device.clone()),
            Some(header) => uplinks.problems.push(Problem::new(
                format!("device {}", link.device.name),
                format!("its packets begin with the header of {header}, which kproxy cannot read"),
                "NodePorts do not answer on it: let traffic to Services come in by another device",
            )),
        }
    }
    uplinks.devices.sort();
    uplinks.left_out =
        links.iter().any(|link| is_uplink(link, links) && !uplinks.devices.contains(&link.device));
    uplinks
}

fn is_uplink(link: &Link, all: &[Link]) -> bool {
    if !link.up || link.loopback || is_left_to_master(link, all) {
        return false;
    }
    if link.default_route {
        return true;
    }
    let holds_global = || link.addresses.iter().any(|(ip, _)| is_global(ip));
    match link.kind {
        Kind::Wire => holds_global(),
        Kind::Overlay | Kind::Tap => !link.addresses.is_empty(),
        Kind::Bridge => holds_global() && leads_out(link, all),
        Kind::Veth => {
            let has_neighbours = |(ip, len): &(IpAddr, u8)| {
                is_global(ip) && *len < if ip.is_ipv4() { 32 } else { 128 }
            };
            !link.peer_here && link.addresses.iter().any(has_neighbours)
        }
        Kind::Vrf | Kind::Nowhere => false,
    }
}

/// Whether a wire or an overlay is among the ports of a bridge.
fn leads_out(bridge: &Link, all: &[Link]) -> bool {
    let mut ports = all.iter().filter(|port| port.master == Some(bridge.device.index));
    ports.any(|port| matches!(port.kind, Kind::Wire | Kind::Overlay))
}

/// Whether a device that was an uplink lacks no more than what comes back: being up, its address, its
/// default route.
fn stays_uplink(link: &Link, all: &[Link]) -> bool {
    let kind_fits = match link.kind {
        Kind::Wire | Kind::Overlay | Kind::Tap => true,
        Kind::Bridge => leads_out(link, all),
        Kind::Veth => !link.peer_here,
        Kind::Vrf | Kind::Nowhere => false,
    };
    // A route that goes with the device comes back with it, whatever the kind.
    (kind_fits || !link.up) && !is_left_to_master(link, all)
}

/// Whether the packets of a port are seen at its master.
fn is_left_to_master(link: &Link, all: &[Link]) -> bool {
    let Some(master) = link.master else { return false };
    !all.iter().any(|other| other.device.index == master && other.kind == Kind::Vrf)
}

/// Whether an address can be dialled from other machines.
pub(super) fn is_global(ip: &IpAddr) -> bool {
    !ip.is_multicast()
        && match ip {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(index: u32, name: &str, kind: Kind, master: u32) -> Link {
        Link { master: Some(master), ..Link::example(index, name, kind, &[]) }
    }

    fn names(links: &[Link], globs: &[&str]) -> Vec<String> {
        let globs: Vec<_> = globs.iter().map(|glob| WildMatch::new(glob)).collect();
        let uplinks = uplinks(links, &globs, &BTreeSet::new());
        uplinks.devices.into_iter().map(|device| device.name).collect()
    }

    /// A Flannel node: eth0, cni0 with pod veths, flannel.1.
    fn flannel() -> Vec<Link> {
        let mut eth0 = Link::example(2, "eth0", Kind::Wire, &[("192.0.2.1", 24)]);
        eth0.default_route = true;
        let mut veth = Link::example(5, "veth1234", Kind::Veth, &[("fe80::1", 64)]);
        veth.master = Some(4);
        vec![
            Link::example(1, "lo", Kind::Wire, &[("127.0.0.1", 8)]),
            eth0,
            Link::example(3, "flannel.1", Kind::Overlay, &[("10.244.1.0", 32)]),
            Link::example(4, "cni0", Kind::Bridge, &[("10.244.1.1", 24)]),
            veth,
            Link::example(6, "kube-ipvs0", Kind::Nowhere, &[("10.96.0.1", 32)]),
        ]
    }

    #[test]
    fn flannel_has_its_wire_and_its_overlay() {
        assert_eq!(names(&flannel(), &[]), ["eth0", "flannel.1"]);
    }

    #[test]
    fn names_replace_the_rule() {
        assert_eq!(names(&flannel(), &["eth*", "cni0"]), ["cni0", "eth0"]);
        let left_out = |globs: &[WildMatch]| uplinks(&flannel(), globs, &BTreeSet::new()).left_out;
        assert!(left_out(&[WildMatch::new("eth*")]) && !left_out(&[WildMatch::new("*")]));
        assert!(!left_out(&[]));
    }

    #[test]
    fn calico_pod_ends_are_no_uplinks() {
        let links = [
            Link::example(2, "ens3", Kind::Wire, &[("192.0.2.1", 24)]),
            Link::example(3, "cali1", Kind::Veth, &[("fe80::1", 64)]),
            Link::example(4, "ptp1", Kind::Veth, &[("10.244.1.1", 32)]),
        ];
        assert_eq!(names(&links, &[]), ["ens3"]);
    }

    #[test]
    fn a_bridge_is_what_its_ports_make_it() {
        let bridge = |addresses| Link::example(3, "br0", Kind::Bridge, addresses);
        let global: &[(&str, u8)] = &[("192.0.2.1", 24)];
        for (what, ports, addresses, wanted) in [
            ("a wire", &[Kind::Wire][..], global, true),
            ("a wire beside pods", &[Kind::Veth, Kind::Wire], global, true),
            ("an overlay", &[Kind::Overlay], global, true),
            ("pods", &[Kind::Veth, Kind::Veth], global, false),
            ("virtual machines", &[Kind::Tap], global, false),
            ("virtual machines and pods", &[Kind::Tap, Kind::Veth], global, false),
            ("a dummy that keeps it up", &[Kind::Nowhere], global, false),
            ("nothing yet", &[], global, false),
            ("a wire, no address", &[Kind::Wire], &[("fe80::1", 64)], false),
        ] {
            let mut links = vec![bridge(addresses)];
            for (index, kind) in (4..).zip(ports) {
                links.push(port(index, &format!("port{index}"), *kind, 3));
            }
            let expected: &[&str] = if wanted { &["br0"] } else { &[] };
            assert_eq!(names(&links, &[]), expected, "{what}");
            links[0].default_route = true;
            assert_eq!(names(&links, &[]), ["br0"], "{what}, with the default route");
        }
    }

    #[test]
    fn ports_are_left_to_their_master_unless_that_is_a_vrf() {
        for (master, wanted) in [
            (Kind::Bridge, "master"),
            (Kind::Wire, "master"), // bond, team, Open vSwitch
            (Kind::Vrf, "eth0"),
        ] {
            let mut wire = Link::example(2, "eth0", Kind::Wire, &[("198.51.100.1", 24)]);
            wire.master = Some(3);
            let master = Link::example(3, "master", master, &[("192.0.2.1", 24)]);
            assert_eq!(names(&[wire.clone(), master], &[]), [wanted]);
            wire.default_route = true;
            assert_eq!(names(&[wire], &[]), Vec::<String>::new(), "a master of another kind");
        }
    }

    #[test]
    fn a_veth_with_a_network_is_the_uplink_of_a_nested_node() {
        let mut veth = Link::example(2, "eth0", Kind::Veth, &[("172.18.0.2", 24)]);
        assert_eq!(names(std::slice::from_ref(&veth), &[]), ["eth0"]);
        veth.peer_here = true;
        assert_eq!(names(std::slice::from_ref(&veth), &[]), Vec::<String>::new(), "a pair here");
        veth.default_route = true;
        assert_eq!(names(std::slice::from_ref(&veth), &[]), ["eth0"], "a pair that leads out");
        veth.up = false;
        assert_eq!(names(&[veth], &[]), Vec::<String>::new());
    }

    #[test]
    fn what_was_an_uplink_stays_one_until_it_leads_elsewhere() {
        const GLOBAL: &[(&str, u8)] = &[("192.0.2.1", 24)];
        let stays = |links: &[Link], globs: &[&str]| {
            let globs: Vec<_> = globs.iter().map(|glob| WildMatch::new(glob)).collect();
            !uplinks(links, &globs, &[2].into()).devices.is_empty()
        };
        for kind in [Kind::Wire, Kind::Overlay, Kind::Tap, Kind::Veth] {
            let bare = Link::example(2, "eth0", kind, &[]);
            let down = Link { up: false, ..bare.clone() };
            let mut enslaved = port(2, "eth0", kind, 3);
            let bond = Link::example(3, "bond0", Kind::Wire, GLOBAL);
            assert!(stays(&[bare], &[]) && stays(std::slice::from_ref(&down), &[]), "{kind:?}");
            assert!(stays(std::slice::from_ref(&down), &["eth*"]), "{kind:?}");
            assert!(!stays(&[down], &["ens*"]), "{kind:?}");
            let after = uplinks(&[enslaved.clone(), bond.clone()], &[], &[2].into());
            assert_eq!(after.devices, std::slice::from_ref(&bond.device), "{kind:?}");
            enslaved.up = false;
            let after = uplinks(&[enslaved, bond.clone()], &[], &[2].into());
            assert_eq!(after.devices, [bond.device], "{kind:?}");
        }
        let bridge = |up| Link { up, ..Link::example(2, "br0", Kind::Bridge, &[]) };
        assert!(stays(&[bridge(true), port(4, "eth0", Kind::Wire, 2)], &[]));
        assert!(!stays(&[bridge(true), port(4, "veth0", Kind::Veth, 2)], &[]));
        assert!(!stays(&[Link::example(2, "dummy0", Kind::Nowhere, GLOBAL)], &[]));
        let mut pair = Link::example(2, "eth0", Kind::Veth, GLOBAL);
        pair.peer_here = true;
        assert!(!stays(&[pair], &[]), "its other end has moved here");
    }

    #[test]
    fn a_wire_without_a_global_address_leads_nowhere() {
        let links = [Link::example(2, "eth1", Kind::Wire, &[("fe80::1", 64), ("169.254.0.1", 16)])];
        assert_eq!(names(&links, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_header_that_cannot_be_read_is_a_problem_of_uplinks_only() {
        let mut ib0 = Link::example(2, "ib0", Kind::Wire, &[("192.0.2.1", 24)]);
        ib0.other_header = Some("INFINIBAND".into());
        let mut idle = ib0.clone();
        (idle.device.name, idle.addresses) = ("ib1".into(), Vec::new());
        let links = [ib0, idle, Link::example(3, "eth0", Kind::Wire, &[("198.51.100.1", 24)])];
        for (globs, problems) in [(&[][..], 1), (&["ib*"], 2), (&["eth0"], 0)] {
            let globs: Vec<_> = globs.iter().map(|glob| WildMatch::new(glob)).collect();
            let uplinks = uplinks(&links, &globs, &BTreeSet::new());
            assert_eq!(uplinks.problems.len(), problems, "{uplinks:?}");
            assert!(uplinks.devices.iter().all(|device| device.name == "eth0"), "{uplinks:?}");
        }
        let problem = &uplinks(&links, &[], &BTreeSet::new()).problems[0];
        assert!(problem.object.contains("ib0") && problem.what.contains("INFINIBAND"));
    }
}
