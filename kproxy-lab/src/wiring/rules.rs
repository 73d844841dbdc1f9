//! The nftables rules of a node that a CNI or an administrator would make.

use std::fmt::Write as _;

use super::shape::{Feature, Network, Shape};
use crate::layout::{self, Family};

/// All of them as `nft` reads them, in place of those that are there; `None`: there are none.
pub(crate) fn of_node(shape: &Shape, node: u8) -> Option<String> {
    let mut rules = String::new();
    match shape.network {
        Network::Bridge => {}
        Network::Vxlan => Family::ALL.iter().for_each(|family| flannel(&mut rules, *family, node)),
        Network::Routed => Family::ALL.iter().for_each(|family| calico(&mut rules, *family)),
    }
    if shape.has(Feature::ForwardDrop) {
        forward_drop(&mut rules, shape.network);
    }
    (!rules.is_empty()).then_some(rules)
}

/// nft's word for a family, the range of all pods, that of one node, and multicast.
fn ranges(family: Family, node: u8) -> (&'static str, &'static str, String, &'static str) {
    let pods = layout::on_node(node, 0).of(family);
    let (all_v4, all_v6) = layout::cluster_ranges();
    match family {
        Family::V4 => ("ip", all_v4, format!("{pods}/24"), "224.0.0.0/4"),
        Family::V6 => ("ip6", all_v6, format!("{pods}/64"), "ff00::/8"),
    }
}

/// `masqRules` and `masqIP6Rules` of Flannel's iptables manager, its default: what kube-proxy has
/// marked is left to it, pods keep their addresses among each other, and everything else that
/// leaves the pods' range or enters it from this node gets the node's address.
fn flannel(rules: &mut String, family: Family, node: u8) {
    let (ip, cluster, pods, multicast) = ranges(family, node);
    let _infallible = write!(
        rules,
        "table {ip} flannel
         delete table {ip} flannel
         table {ip} flannel {{
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             meta mark & 0x4000 == 0x4000 return
             {ip} saddr {pods} {ip} daddr {cluster} return
             {ip} saddr {cluster} {ip} daddr {pods} return
             {ip} saddr != {cluster} {ip} daddr {pods} return
             {ip} saddr {cluster} {ip} daddr != {multicast} masquerade fully-random
             {ip} saddr != {cluster} {ip} daddr {cluster} masquerade fully-random
           }}
         }}
"
    );
}

/// `NATOutgoingChain` of Calico for a pool with natOutgoing: pods that leave the pools.
fn calico(rules: &mut String, family: Family) {
    let (ip, cluster, _, _) = ranges(family, 1);
    let _infallible = write!(
        rules,
        "table {ip} calico
         delete table {ip} calico
         table {ip} calico {{
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             {ip} saddr {cluster} {ip} daddr != {cluster} masquerade fully-random
           }}
         }}
"
    );
}

/// A firewall with the rules of the CNI in front of its policy. Flannel's `forwardRules` accept the
/// pods' range in either direction (for host-gw too), Calico accepts at the pods' devices what the
/// policies allow.
fn forward_drop(rules: &mut String, network: Network) {
    let (v4, v6) = layout::cluster_ranges();
    let accepted = match network {
        Network::Bridge | Network::Vxlan => format!(
            "ip saddr {v4} accept
             ip daddr {v4} accept
             ip6 saddr {v6} accept
             ip6 daddr {v6} accept"
        ),
        Network::Routed => "iifname \"cali*\" accept\noifname \"cali*\" accept".to_owned(),
    };
    let _infallible = write!(
        rules,
        "table inet firewall
         delete table inet firewall
         table inet firewall {{
           chain forward {{
             type filter hook forward priority filter; policy drop;
             ct state invalid drop
             {accepted}
           }}
         }}
"
    );
}
