//! Addresses of NodePorts (NP-02 to NP-08).

use super::*;
use crate::model::Node;
use crate::plan::NodePortAddresses;

const LOCAL: [&str; 6] =
    ["127.0.0.1", "::1", "192.0.2.1", "198.51.100.1", "2001:db8::1", "2001:db8::2"];

fn node(addresses: &[&str]) -> Node {
    Node { addresses: addresses.iter().map(|text| ip(text)).collect(), ..Node::default() }
}

fn chosen(setting: &NodePortAddresses, node: &Node) -> Vec<String> {
    let local = LOCAL.iter().map(|text| ip(text)).collect();
    setting.choose(&local, node).iter().map(ToString::to_string).collect()
}

fn ranges(texts: &[&str]) -> NodePortAddresses {
    let ranges = texts.iter().map(|text| text.parse().unwrap()).collect();
    NodePortAddresses { ranges, ..NodePortAddresses::default() }
}

fn primary() -> NodePortAddresses {
    NodePortAddresses { primary: true, ..NodePortAddresses::default() }
}

#[test]
fn np_02_np_06_np_08_ranges_choose_and_a_family_without_one_has_all() {
    let nowhere = Node::default();
    assert_eq!(chosen(&NodePortAddresses::default(), &nowhere).len(), LOCAL.len());
    for (texts, v4, v6) in [
        (&["192.0.2.0/24"][..], &["192.0.2.1"][..], &LOCAL_V6[..]),
        (&["192.0.2.0/24", "2001:db8::2/128"], &["192.0.2.1"], &["2001:db8::2"]),
        (&["127.0.0.0/8", "::1/128"], &["127.0.0.1"], &["::1"]),
        (&["203.0.113.0/24", "fd00::/8"], &[], &[]),
        (&["0.0.0.0/0", "fd00::/8"], &["127.0.0.1", "192.0.2.1", "198.51.100.1"], &[]),
    ] {
        let expected: Vec<_> = v4.iter().chain(v6).copied().collect();
        assert_eq!(chosen(&ranges(texts), &nowhere), expected, "{texts:?}");
    }
}

const LOCAL_V6: [&str; 3] = ["::1", "2001:db8::1", "2001:db8::2"];

#[test]
fn np_04_primary_is_the_nodes_own_address_and_never_everything() {
    let primary = primary();
    for (addresses, expected, problem) in [
        (&["192.0.2.1", "2001:db8::1"][..], &["192.0.2.1", "2001:db8::1"][..], false),
        (&["2001:db8::2"], &["2001:db8::2"], false),
        // Elsewhere (behind a NAT, or not there yet): nothing here.
        (&["203.0.113.1"], &[], false),
        // kube-proxy opens all addresses in these cases.
        (&[], &[], true),
        (&["127.0.0.1", "::1"], &[], true),
    ] {
        assert_eq!(chosen(&primary, &node(addresses)), expected, "{addresses:?}");
        assert_eq!(primary.problem(&node(addresses)).is_some(), problem, "{addresses:?}");
    }
    assert_eq!(NodePortAddresses::default().problem(&node(&[])), None);
}

#[test]
fn np_09_health_checks_listen_everywhere_only_where_nodeports_do() {
    for (setting, v4, v6) in [
        (NodePortAddresses::default(), true, true),
        (primary(), false, false),
        (ranges(&["192.0.2.0/24"]), false, true),
        (ranges(&["0.0.0.0/0", "fd00::/8"]), true, false),
    ] {
        let all = [Family::V4, Family::V6].map(|family| setting.takes_all(family));
        assert_eq!(all, [v4, v6], "{setting:?}");
    }
}

#[test]
fn np_07_primary_goes_with_ranges_and_loopback_can_be_left_out() {
    let node = node(&["192.0.2.1", "2001:db8::1"]);
    let with = |mut setting: NodePortAddresses, loopback| {
        setting.loopback = loopback;
        let all = [Family::V4, Family::V6].map(|family| setting.takes_all(family));
        (chosen(&setting, &node).join(" "), all)
    };
    let mixed = NodePortAddresses { primary: true, ..ranges(&["127.0.0.0/8", "::1/128"]) };
    let both = "127.0.0.1 192.0.2.1 ::1 2001:db8::1";
    assert_eq!(with(mixed.clone(), true), (both.to_owned(), [false; 2]));
    assert_eq!(with(mixed, false), ("192.0.2.1 2001:db8::1".to_owned(), [false; 2]));
    // One range, and primary for the other family.
    let mixed = NodePortAddresses { primary: true, ..ranges(&["198.51.100.0/24"]) };
    assert_eq!(with(mixed, true).0, "192.0.2.1 198.51.100.1 2001:db8::1");
    let all = "192.0.2.1 198.51.100.1 2001:db8::1 2001:db8::2";
    assert_eq!(with(NodePortAddresses::default(), false), (all.to_owned(), [false; 2]));
    assert_eq!(with(ranges(&["0.0.0.0/0", "::/0"]), false), (all.to_owned(), [false; 2]));
    assert_eq!(with(ranges(&["0.0.0.0/0", "::/0"]), true).1, [true; 2]);
}
