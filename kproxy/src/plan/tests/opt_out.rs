//! Whom the socket path serves.

use std::collections::BTreeMap;

use super::*;
use crate::plan::{OptOut, SocketVerdict, SocketVerdicts, socket_verdicts};

fn opt_out(ranges: &[&str], namespaces: &[&str]) -> OptOut {
    OptOut {
        ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
        namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

/// Verdicts as a letter for each network namespace: served, opted out, or not decided.
fn letters(opt_out: &OptOut, pods: Option<&[&[&str]]>, seen: &[&[&str]], before: &str) -> String {
    let pods: Option<Vec<_>> = pods.map(|pods| pods.iter().map(|ips| addresses(ips)).collect());
    let seen: BTreeMap<u64, _> = (1..).zip(seen.iter().map(|texts| addresses(texts))).collect();
    let before: SocketVerdicts = (1..)
        .zip(before.chars())
        .filter_map(|(cookie, letter)| {
            let verdict = match letter {
                's' => SocketVerdict::Served,
                'o' => SocketVerdict::OptedOut,
                '?' => SocketVerdict::Undecided,
                _ => return None,
            };
            Some((cookie, verdict))
        })
        .collect();
    let now = socket_verdicts(opt_out, pods.as_deref(), &seen, &before);
    assert!(now.keys().eq(seen.keys()), "{now:?}");
    let letter = |verdict: &SocketVerdict| match verdict {
        SocketVerdict::Served => 's',
        SocketVerdict::OptedOut => 'o',
        SocketVerdict::Undecided => '?',
    };
    now.values().map(letter).collect()
}

#[test]
fn ranges_decide_by_any_address_of_a_pod() {
    let ranges = opt_out(&["10.244.1.0/24", "fd00:10:244:7::/64"], &[]);
    for (seen, expected) in [
        (&[&["10.244.1.5", "fd00:10:244:1::5"][..], &["10.244.2.5"]][..], "os"),
        (&[&["10.244.2.5", "fd00:10:244:7::5"]], "o"),
        // v4-mapped is no other address, and a pod without an address yet may become any.
        (&[&[], &["10.244.10.5"]], "?s"),
        (&[], ""),
    ] {
        assert_eq!(letters(&ranges, None, seen, ""), expected, "{seen:?}");
    }
    // What was decided stays while a pod loses its addresses, and changes with them.
    assert_eq!(letters(&ranges, None, &[&[], &[]], "so"), "so");
    assert_eq!(letters(&ranges, None, &[&["10.244.1.5"], &["10.244.2.5"]], "so"), "os");
    assert_eq!(
        letters(&opt_out(&["0.0.0.0/0"], &[]), None, &[&["10.0.0.1"], &["fd00::1"]], ""),
        "os"
    );
}

#[test]
fn namespaces_decide_by_the_addresses_of_their_pods() {
    let mesh = opt_out(&[], &["mesh"]);
    let seen: &[&[&str]] = &[&["10.244.1.5", "fd00::5"], &["10.244.1.6"]];
    for (what, pods, before, expected) in [
        ("nobody has told", None, "", "??"),
        ("nobody has told since a restart", None, "os", "os"),
        ("nobody has told yet", None, "?s", "?s"),
        ("no pod", Some(&[][..]), "", "ss"),
        ("by its first address", Some(&[&["10.244.1.5"][..]]), "", "os"),
        ("by its second", Some(&[&["fd00::5", "10.244.1.5"]]), "", "os"),
        ("one is being started", Some(&[&["10.244.1.5"], &[]]), "", "o?"),
        ("and it may be no old one", Some(&[&["10.244.1.5"], &[]]), "?s", "os"),
        // The address of a pod that is started anew: until it is told, it is the old one.
        ("one is not found", Some(&[&["10.244.1.9"]]), "", "??"),
        ("an address passes to another pod", Some(&[&["10.244.1.6"]]), "os", "so"),
        ("it has gone", Some(&[]), "os", "ss"),
    ] {
        assert_eq!(letters(&mesh, pods, seen, before), expected, "{what}");
    }
    // Ranges need nobody to tell.
    let both = opt_out(&["10.244.1.6/32"], &["mesh"]);
    assert_eq!(letters(&both, None, seen, ""), "?o");
}
