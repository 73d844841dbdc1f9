//! Which devices lead to pods of this node: a pure decision over what rtnetlink says.
//!
//! The rule: a veth whose other end is in another network namespace, that is no uplink, and that is
//! routed or a port of a bridge. Bridges of Docker, libvirt, LXC and Podman are left alone: what is
//! behind them is no pod. `--pod-devices` replaces the rule by names. As with uplinks, one that goes
//! down stays what it was.

use std::collections::BTreeSet;

use wildmatch::WildMatch;

use super::{
    device::Device,
    roles::{Kind, Link},
};

/// Bridges of others, by the names that they give them: Docker (its networks are `br-` and twelve
/// hexadecimal digits), libvirt, LXC, LXD and Incus, Podman.
const OTHERS: [&str; 8] = [
    "docker*",
    "br-????????????",
    "virbr*",
    "lxcbr*",
    "lxdbr*",
    "incusbr*",
    "podman*",
    "cni-podman*",
];

/// The devices among `links` that lead to pods. `names` replaces the rule when it is not empty.
/// `uplinks` are taken already. `before`: indices of those that led to pods.
pub(super) fn pods(
    links: &[Link],
    uplinks: &[Device],
    names: &[WildMatch],
    before: &BTreeSet<u32>,
) -> Vec<Device> {
    let chosen = |link: &&Link| {
        (link.up || before.contains(&link.device.index))
            && if names.is_empty() {
                leads_to_pod(link, links)
            } else {
                names.iter().any(|name| name.matches(&link.device.name))
            }
    };
    let is_free =
        |link: &&Link| link.device.ethernet && !link.loopback && !uplinks.contains(&link.device);
    let mut pods: Vec<Device> =
        links.iter().filter(chosen).filter(is_free).map(|link| link.device.clone()).collect();
    pods.sort();
    pods
}

fn leads_to_pod(link: &Link, all: &[Link]) -> bool {
    if link.kind != Kind::Veth || link.peer_here {
        return false;
    }
    let Some(master) = link.master else { return true };
    let master = all.iter().find(|other| other.device.index == master);
    master.is_some_and(|master| match master.kind {
        Kind::Bridge => {
            !OTHERS.iter().any(|name| WildMatch::new(name).matches(&master.device.name))
        }
        Kind::Vrf => true,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Kind, master: Option<u32>) -> Link {
        Link { master, ..Link::example(index, name, kind, &[]) }
    }

    fn names(links: &[Link], uplinks: &[&str], globs: &[&str]) -> Vec<String> {
        let uplinks: Vec<_> = links
            .iter()
            .filter(|link| uplinks.contains(&link.device.name.as_str()))
            .map(|link| link.device.clone())
            .collect();
        let globs: Vec<_> = globs.iter().map(|glob| WildMatch::new(glob)).collect();
        let pods = pods(links, &uplinks, &globs, &BTreeSet::new());
        pods.into_iter().map(|device| device.name).collect()
    }

    /// Flannel's bridge, a Calico pod, Docker beside it, and a nested node's uplink.
    fn node() -> Vec<Link> {
        let mut pair = link(20, "pair", Kind::Veth, None);
        pair.peer_here = true;
        let mut down = link(21, "down", Kind::Veth, None);
        down.up = false;
        vec![
            link(1, "lo", Kind::Wire, None),
            link(2, "eth0", Kind::Veth, None),
            link(3, "cni0", Kind::Bridge, None),
            link(4, "veth1", Kind::Veth, Some(3)),
            link(5, "cali1", Kind::Veth, None),
            link(6, "docker0", Kind::Bridge, None),
            link(7, "veth2", Kind::Veth, Some(6)),
            link(8, "br-0123456789ab", Kind::Bridge, None),
            link(9, "veth3", Kind::Veth, Some(8)),
            link(10, "bond0", Kind::Wire, None),
            link(11, "veth4", Kind::Veth, Some(10)),
            link(12, "vrf0", Kind::Vrf, None),
            link(13, "veth5", Kind::Veth, Some(12)),
            link(14, "tap0", Kind::Tap, Some(3)),
            pair,
            down,
        ]
    }

    #[test]
    fn pods_are_behind_veths_that_are_routed_or_on_a_bridge_of_ours() {
        assert_eq!(names(&node(), &["eth0"], &[]), ["cali1", "veth1", "veth5"]);
    }

    #[test]
    fn a_link_to_a_pod_that_goes_down_stays_one() {
        let found = |before: &[u32], names: &[WildMatch]| {
            let found = pods(&node(), &[], names, &before.iter().copied().collect());
            found.iter().any(|device| device.name == "down")
        };
        assert!(!found(&[], &[]) && found(&[21], &[]));
        assert!(found(&[21], &[WildMatch::new("d*")]) && !found(&[21], &[WildMatch::new("x*")]));
    }

    #[test]
    fn names_replace_the_rule_and_none_fits_nothing() {
        assert_eq!(
            names(&node(), &["eth0"], &["veth2", "tap*", "eth0", "down"]),
            ["tap0", "veth2"]
        );
        assert_eq!(names(&node(), &["eth0"], &["none"]), Vec::<String>::new());
    }
}
