//! Names and addresses of a lab: the one place that decides them.
//!
//! Everything lives in namespaces of its own, so all labs use the same addresses; only names that
//! are visible on the machine (namespaces, cgroups, folders) carry the lab's id.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Port on which every pod answers, TCP and UDP.
pub const POD_PORT: u16 = 8080;
/// Ranges of all pods, as `--cluster-cidr` takes them.
pub const CLUSTER_CIDRS: &str = "10.244.0.0/16,fd00:10:244::/48";
/// Range of IPv4 ClusterIPs.
pub(crate) const SERVICE_CIDR_V4: &str = "10.96.0.0/16";
/// Range of IPv6 ClusterIPs.
pub(crate) const SERVICE_CIDR_V6: &str = "fd00:10:96::/112";

/// Folder with one subfolder a lab.
pub(crate) const STATE_ROOT: &str = "/run/kproxy-lab";
/// Folder of the named network namespaces (iproute2's own).
pub(crate) const NETNS_ROOT: &str = "/run/netns";

/// IP family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// An address of each family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// The address of one family.
    pub const fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }

    /// IPv4, then IPv6.
    pub const fn both(&self) -> [IpAddr; 2] {
        [IpAddr::V4(self.v4), IpAddr::V6(self.v6)]
    }
}

/// Host number as it reads in an address: 12 becomes `.12` and `::12`.
const fn digits(host: u8) -> u16 {
    (host / 100) as u16 * 0x100 + (host / 10 % 10) as u16 * 0x10 + (host % 10) as u16
}

/// An address on the subnet that the nodes share: 172.18.0.`host`, fd00:18::`host`.
pub(crate) const fn on_fabric(host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(172, 18, 0, host),
        v6: Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, digits(host)),
    }
}

/// An address on the client's subnet: 192.0.2.`host`, 2001:db8::`host`.
pub(crate) const fn on_outside(host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(192, 0, 2, host),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, digits(host)),
    }
}

/// An address in the pod range of a node: 10.244.`node`.`host`, fd00:10:244:`node`::`host`.
pub(crate) const fn on_node(node: u8, host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(10, 244, node, host),
        v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, digits(node), 0, 0, 0, digits(host)),
    }
}

/// Range of all pods of each family: the halves of [`CLUSTER_CIDRS`].
pub(crate) const fn cluster_ranges() -> (&'static str, &'static str) {
    ("10.244.0.0/16", "fd00:10:244::/48")
}

/// An address on the second subnet of the nodes: 172.19.0.`host`, fd00:19::`host`.
pub(crate) const fn on_second_fabric(host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(172, 19, 0, host),
        v6: Ipv6Addr::new(0xfd00, 0x19, 0, 0, 0, 0, 0, digits(host)),
    }
}

/// The router's host number on every subnet, and the bridge's in every pod range.
pub(crate) const GATEWAY: u8 = 1;
/// Host number of the control plane on the fabric.
pub(crate) const CONTROL: u8 = 2;
/// Host number of the outside client on its subnet.
pub(crate) const CLIENT: u8 = 2;

/// Address of node `n` (counted from 1) on the fabric.
pub(crate) const fn node(n: u8) -> Addresses {
    on_fabric(10 + n)
}

/// Address of node `n` on the second fabric.
pub(crate) const fn second(n: u8) -> Addresses {
    on_second_fabric(10 + n)
}

/// ClusterIPs of the API server: the first of each range.
pub(crate) const fn first_service_ips() -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 1)),
    ]
}

/// Names of one lab's things. A place is `n1` (a node), `n1/a` (a pod of it), `client`, `router`
/// or `control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    id: String,
}

impl Names {
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.to_owned() }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The lab's folder.
    pub(crate) fn dir(&self) -> PathBuf {
        Path::new(STATE_ROOT).join(&self.id)
    }

    /// Folder of a node inside the lab's folder.
    pub(crate) fn node_dir(&self, node: &str) -> PathBuf {
        self.dir().join(node)
    }

    /// The node's BPF file system.
    pub(crate) fn bpffs(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("bpf")
    }

    /// The node's run folder.
    pub(crate) fn run_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("run")
    }

    /// Folder of manifests that all nodes watch when they run without an API server.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.dir().join("manifests")
    }

    /// What the names of all namespaces of the lab start with.
    pub(crate) fn netns_prefix(&self) -> String {
        format!("kpl-{}-", self.id)
    }

    pub(crate) fn netns(&self, place: &str) -> String {
        self.netns_prefix() + &place.replace('/', "-")
    }

    pub(crate) fn netns_path(&self, place: &str) -> PathBuf {
        Path::new(NETNS_ROOT).join(self.netns(place))
    }

    /// The lab's cgroup, relative to the root of the cgroup v2 hierarchy.
    pub(crate) fn cgroup(&self) -> String {
        format!("kproxy-lab-{}", self.id)
    }

    /// Cgroup of a place's processes below [`Self::cgroup`]. A node's pods are beside its host
    /// processes, so that one cgroup holds all sockets of the node and nothing else. Virtual machines
    /// ([`VM`]) are outside of it: nobody on the node sees their sockets.
    pub(crate) fn place_cgroup(place: &str) -> String {
        match place.split_once('/') {
            Some((node, pod)) if pod.starts_with(VM) => format!("vms/{node}-{pod}"),
            Some((node, pod)) => format!("{node}/pod-{pod}"),
            None if is_node(place) => format!("{place}/host"),
            None => place.to_owned(),
        }
    }
}

/// Names of pods that stand for virtual machines begin with this.
pub(crate) const VM: &str = "vm";

/// Whether a place is a node: `n` and a number.
pub(crate) fn is_node(place: &str) -> bool {
    place.strip_prefix('n').is_some_and(|number| number.parse::<u8>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_decimal_host_numbers_in_both_families() {
        assert_eq!(node(2).v4.to_string(), "172.18.0.12");
        assert_eq!(node(2).v6.to_string(), "fd00:18::12");
        assert_eq!(on_node(12, 110).v6.to_string(), "fd00:10:244:12::110");
        assert_eq!(on_outside(CLIENT).v6.to_string(), "2001:db8::2");
    }

    #[test]
    fn the_ranges_of_pods_are_those_that_a_proxy_is_told() {
        let (v4, v6) = cluster_ranges();
        assert_eq!(format!("{v4},{v6}"), CLUSTER_CIDRS);
    }

    #[test]
    fn pods_share_their_node_s_cgroup() {
        assert_eq!(Names::place_cgroup("n1"), "n1/host");
        assert_eq!(Names::place_cgroup("n1/a"), "n1/pod-a");
        assert_eq!(Names::place_cgroup("client"), "client");
        assert_eq!(Names::new("x7k2q").netns("n1/a"), "kpl-x7k2q-n1-a");
    }
}
