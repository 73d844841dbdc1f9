//! Which address of this node a backend elsewhere sees as its client.
//!
//! As the kernel chooses for a masqueraded connection: the first address of the device that the
//! packet leaves by, and for a device without one (an unnumbered link) an address of another.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    device::Device,
    roles::{Kind, Link, is_global},
};

/// What the programs know of an uplink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// IPv4, if the node has any.
    pub v4: Option<Ipv4Addr>,
    /// IPv6, if the node has any.
    pub v6: Option<Ipv6Addr>,
    /// A tunnel, whose outer packets may be fragmented.
    pub overlay: bool,
}

impl Sources {
    fn of(link: &Link) -> Self {
        let mut sources = Self { overlay: link.kind == Kind::Overlay, ..Self::default() };
        for (ip, _) in link.addresses.iter().filter(|(ip, _)| is_global(ip)) {
            match ip {
                IpAddr::V4(v4) => sources.v4 = sources.v4.or(Some(*v4)),
                IpAddr::V6(v6) => sources.v6 = sources.v6.or(Some(*v6)),
            }
        }
        sources
    }

    fn or(self, other: Self) -> Self {
        Self { v4: self.v4.or(other.v4), v6: self.v6.or(other.v6), ..self }
    }
}

/// The sources on these devices. Those without an Ethernet header are left out: the kernel cannot
/// redirect what comes in there.
pub(super) fn sources(links: &[Link], devices: &[Device]) -> BTreeMap<u32, Sources> {
    let of = |index: u32| {
        links.iter().find(|link| link.device.index == index).map(Sources::of).unwrap_or_default()
    };
    // The loopback device last: addresses that are announced by a routing daemon live there.
    let mut others: Vec<&Link> = links.iter().collect();
    others.sort_by_key(|link| (link.loopback, !link.default_route, link.device.index));
    let is_candidate = |link: &&&Link| link.loopback || devices.contains(&link.device);
    let fallback = others
        .iter()
        .filter(is_candidate)
        .fold(Sources::default(), |found, link| found.or(Sources::of(link)));
    devices
        .iter()
        .filter(|device| device.ethernet)
        .map(|device| (device.index, of(device.index).or(fallback)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, addresses: &[&str]) -> Link {
        let addresses: Vec<_> = addresses.iter().map(|ip| (*ip, 24)).collect();
        let mut link = Link::example(index, name, Kind::Wire, &addresses);
        link.device.ethernet = !name.starts_with("wg");
        link.default_route = name == "eth1";
        link
    }

    #[test]
    fn each_uplink_has_its_first_address_or_one_of_another() {
        let links = [
            link(1, "lo", &["127.0.0.1", "::1", "192.0.2.200"]),
            link(2, "eth0", &["169.254.1.1", "192.0.2.1", "192.0.2.2"]),
            link(3, "eth1", &["fe80::1", "2001:db8::1", "198.51.100.1"]),
            link(4, "wg0", &["10.0.0.1"]),
            link(5, "cni0", &["10.244.1.1", "fd00:10:244:1::1"]),
        ];
        let devices = [1, 2, 3].map(|i| links[i].device.clone());
        let sources = sources(&links, &devices);
        let of = |index| {
            let Sources { v4, v6, .. } = sources[&index];
            (v4.map(|ip| ip.to_string()), v6.map(|ip| ip.to_string()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of(2), (some("192.0.2.1"), some("2001:db8::1")));
        assert_eq!(of(3), (some("198.51.100.1"), some("2001:db8::1")));
        assert!(!sources.contains_key(&4) && !sources.contains_key(&5));
    }

    #[test]
    fn an_unnumbered_uplink_takes_the_address_on_loopback() {
        let links = [link(1, "lo", &["127.0.0.1", "192.0.2.200"]), link(2, "eth0", &["fe80::1"])];
        let sources = sources(&links, &[links[1].device.clone()]);
        assert_eq!(sources[&2], Sources { v4: "192.0.2.200".parse().ok(), ..Sources::default() });
    }
}
