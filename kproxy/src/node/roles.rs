//! Which devices are uplinks: a pure decision over what rtnetlink says.
//!
//! The rule, by role instead of by name:
//! - a device that carries a default route is an uplink, whatever its kind;
//! - a physical device, bond, VLAN or macvlan that holds a global address is one;
//! - a tunnel or overlay device (VXLAN, Geneve, WireGuard, IPIP, …) that holds an address is one;
//! - a bridge is one only when a device that is no pod's is among its ports;
//! - a veth is one only when it holds a global address with room for neighbours (CNIs that route
//!   veths give the host end no address or a /32).
//!
//! Never: devices that are down, loopback, and ports of a bridge, bond or VRF (their master sees
//! the packets). `--devices` replaces the rule by names.

use std::net::IpAddr;

use wildmatch::WildMatch;

use super::Device;

/// What a device is, as far as the rule needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// No kind: hardware (virtio, e1000, …). Also bond, team, VLAN, macvlan, ipvlan.
    Wire,
    /// VXLAN, Geneve, WireGuard, IPIP, SIT, GRE, tun.
    Overlay,
    /// Bridge.
    Bridge,
    /// veth or netkit: usually a pod's.
    Veth,
    /// dummy, ifb, nlmon, VRF: leads nowhere.
    Nowhere,
}

/// One device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The device itself.
    pub device: Device,
    /// Kind.
    pub kind: Kind,
    /// Administratively up.
    pub up: bool,
    /// The loopback device.
    pub loopback: bool,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// A default route leads out of it.
    pub default_route: bool,
}

/// The uplinks among `links`, sorted by name. `names` replaces the rule when it is not empty.
pub fn uplinks(links: &[Link], names: &[WildMatch]) -> Vec<Device> {
    let chosen = |link: &&Link| {
        if names.is_empty() {
            is_uplink(link, links)
        } else {
            link.up && names.iter().any(|name| name.matches(&link.device.name))
        }
    };
    let mut devices: Vec<_> = links.iter().filter(chosen).map(|link| link.device.clone()).collect();
    devices.sort();
    devices
}

fn is_uplink(link: &Link, all: &[Link]) -> bool {
    if !link.up || link.loopback || link.master.is_some() {
        return false;
    }
    if link.default_route {
        return true;
    }
    match link.kind {
        Kind::Wire => link.addresses.iter().any(|(ip, _)| is_global(ip)),
        Kind::Overlay => !link.addresses.is_empty(),
        Kind::Bridge => {
            all.iter().any(|port| port.master == Some(link.device.index) && port.kind != Kind::Veth)
        }
        Kind::Veth => link.addresses.iter().any(|(ip, len)| {
            let host = if ip.is_ipv4() { 32 } else { 128 };
            is_global(ip) && *len < host
        }),
        Kind::Nowhere => false,
    }
}

/// Whether an address can be dialled from other machines.
pub fn is_global(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Kind, addresses: &[(&str, u8)]) -> Link {
        Link {
            device: Device { name: name.into(), index, ethernet: true },
            kind,
            up: true,
            loopback: name == "lo",
            master: None,
            addresses: addresses.iter().map(|(ip, len)| (ip.parse().unwrap(), *len)).collect(),
            default_route: false,
        }
    }

    fn names(links: &[Link], globs: &[&str]) -> Vec<String> {
        let globs: Vec<_> = globs.iter().map(|glob| WildMatch::new(glob)).collect();
        uplinks(links, &globs).into_iter().map(|device| device.name).collect()
    }

    /// A Flannel node: eth0, cni0 with pod veths, flannel.1.
    fn flannel() -> Vec<Link> {
        let mut eth0 = link(2, "eth0", Kind::Wire, &[("192.0.2.1", 24)]);
        eth0.default_route = true;
        let mut veth = link(5, "veth1234", Kind::Veth, &[("fe80::1", 64)]);
        veth.master = Some(4);
        vec![
            link(1, "lo", Kind::Wire, &[("127.0.0.1", 8)]),
            eth0,
            link(3, "flannel.1", Kind::Overlay, &[("10.244.1.0", 32)]),
            link(4, "cni0", Kind::Bridge, &[("10.244.1.1", 24)]),
            veth,
            link(6, "kube-ipvs0", Kind::Nowhere, &[("10.96.0.1", 32)]),
        ]
    }

    #[test]
    fn flannel_has_its_wire_and_its_overlay() {
        assert_eq!(names(&flannel(), &[]), ["eth0", "flannel.1"]);
    }

    #[test]
    fn names_replace_the_rule() {
        assert_eq!(names(&flannel(), &["eth*", "cni0"]), ["cni0", "eth0"]);
    }

    #[test]
    fn calico_pod_ends_are_no_uplinks() {
        let links = [
            link(2, "ens3", Kind::Wire, &[("192.0.2.1", 24)]),
            link(3, "cali1", Kind::Veth, &[("fe80::1", 64)]),
            link(4, "ptp1", Kind::Veth, &[("10.244.1.1", 32)]),
        ];
        assert_eq!(names(&links, &[]), ["ens3"]);
    }

    #[test]
    fn a_wire_below_a_bridge_or_bond_leaves_it_to_its_master() {
        let mut wire = link(2, "eth0", Kind::Wire, &[]);
        wire.master = Some(3);
        let bridge = link(3, "br0", Kind::Bridge, &[("192.0.2.1", 24)]);
        assert_eq!(names(&[wire, bridge], &[]), ["br0"]);
    }

    #[test]
    fn a_veth_with_a_network_is_the_uplink_of_a_nested_node() {
        let mut veth = link(2, "eth0", Kind::Veth, &[("172.18.0.2", 24)]);
        assert_eq!(names(std::slice::from_ref(&veth), &[]), ["eth0"]);
        veth.up = false;
        assert_eq!(names(&[veth], &[]), Vec::<String>::new());
    }

    #[test]
    fn a_wire_without_a_global_address_leads_nowhere() {
        let links = [link(2, "eth1", Kind::Wire, &[("fe80::1", 64), ("169.254.0.1", 16)])];
        assert_eq!(names(&links, &[]), Vec::<String>::new());
    }
}
