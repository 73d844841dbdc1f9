//! Lookups as glibc makes them, one by one and watched closely: the questions for the IPv4 and the
//! IPv6 addresses leave one socket back to back, before the first answer. Netfilter's DNAT loses
//! one of the two now and then (two packets race for one new conntrack entry).

mod cluster;
mod lookups;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;

use kproxy_lab::Family::{V4, V6};
use kproxy_lab::{Family, Place, Process, Source, kubernetes};
use serde_json::json;

use crate::load::{Asking, while_asked};
use crate::peer::{self, Role};
use crate::rollout::{Life, Rollout};
pub(crate) use lookups::Lookups;
use lookups::{Seen, WAYS, Way};

/// Port of the DNS.
const PORT: u16 = 53;
/// Where CoreDNS tells whether it is ready.
const READY: u16 = 8181;

/// Starts CoreDNS in a place; `number` is the last byte of its answers for `self.lab`. With
/// further plugins.
fn start(place: &Place, number: u8, plugins: &str) -> Process {
    let corefile = format!(
        ".:{PORT} {{
            errors
            ready :{READY}
            hosts {{
                192.0.2.{number} {name}
                2001:db8::{number:x} {name}
                fallthrough
            }}
            {plugins}
            prometheus :9153
            cache 30
            loadbalance
        }}",
        name = lookups::NAME,
    );
    let mut command = place.command(kubernetes::coredns().unwrap()).unwrap();
    let file = place.dir().unwrap().join("Corefile");
    fs::write(&file, corefile).unwrap();
    command.arg("-conf").arg(&file);
    let server = place.process("coredns", command).unwrap();
    server.launch().unwrap();
    let ready = (place.ip(V4), READY);
    // Its plugins are ready some time before its sockets are bound; then it tells its version.
    server
        .wait_until("readiness", || {
            Ok(place.http_get(ready, "/ready").is_ok() && server.log().contains("CoreDNS-"))
        })
        .unwrap();
    server
}

/// Runs lookups in a place.
fn look_up(from: &Place, lookups: Lookups) -> Seen {
    let output = peer::command(from, &Role::Resolver(lookups)).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    peer::reported(&text)
}

/// `web` is a DNS with CoreDNS on `n1/a` (number 101) and `n2/a` (102).
fn coredns() -> (Rollout, Vec<Process>) {
    let rollout = Rollout::on_port(PORT, Source::Manifests, PORT, json!({}));
    let servers = [("n1", 101), ("n2", 102)]
        .map(|(node, number)| start(&rollout.lab.pod(node, "a"), number, ""))
        .into();
    (rollout, servers)
}

#[test]
fn coredns_answers_a_and_aaaa_asked_at_once_from_one_socket() {
    let (rollout, _servers) = coredns();
    let lab = &rollout.lab;
    for from in [lab.pod("n1", "b"), lab.pod("n2", "b"), lab.node("n1")] {
        for family in Family::ALL {
            let to = rollout.vip(family);
            let mut servers = BTreeSet::new();
            for way in WAYS {
                let seen = look_up(&from, Lookups::new(to, way, 200));
                let what = format!("{} {way:?} {to}: {seen:?}", from.name());
                assert!(seen.is_flawless() && seen.answered == 200, "{what}\n{}", rollout.logs());
                // One socket, one backend.
                assert_eq!(seen.torn, 0, "{what}");
                assert!(way != Way::Kept || seen.servers.len() == 1, "{what}");
                servers.extend(seen.servers.into_keys());
            }
            assert_eq!(servers, [101, 102].into(), "{} {to}", from.name());
        }
    }
    // From outside through the NodePort, too.
    for (node, family) in [("n1", V4), ("n2", V6)] {
        let to = rollout.node_port(node, family);
        for way in WAYS {
            let seen = look_up(&lab.client(), Lookups::new(to, way, 100));
            assert!(seen.is_flawless() && seen.torn == 0, "{way:?} {to}: {seen:?}");
        }
    }
}

/// Someone who makes lookups all the time.
struct Resolver<'a> {
    from: &'a Place,
    lookups: Lookups,
    seen: Mutex<Vec<Seen>>,
}

impl Asking for Resolver<'_> {
    fn batch(&self) {
        let seen = look_up(self.from, self.lookups);
        self.seen.lock().unwrap().push(seen);
    }

    fn batches(&self) -> u64 {
        self.seen.lock().unwrap().len() as u64
    }

    fn lost(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| !seen.is_flawless()).map(|seen| format!("{seen:?}")).collect()
    }

    fn name(&self) -> String {
        format!("{} {:?}", self.from.name(), self.lookups)
    }
}

#[test]
fn a_rolling_update_of_coredns_loses_no_lookup() {
    let (mut rollout, mut servers) = coredns();
    let (near, far) = (rollout.lab.pod("n1", "b"), rollout.lab.pod("n2", "b"));
    let (host, outside) = (rollout.lab.node("n1"), rollout.lab.client());
    let resolver = |from, to, way| Resolver {
        from,
        lookups: Lookups::new(to, way, 50),
        seen: Mutex::default(),
    };
    let resolvers = [
        resolver(&near, rollout.vip(V4), Way::Connected),
        resolver(&far, rollout.vip(V6), Way::Unconnected),
        resolver(&host, rollout.vip(V4), Way::Tcp),
        resolver(&outside, rollout.node_port("n1", V4), Way::Connected),
    ];
    while_asked(&resolvers, |asked| {
        for (node, number) in [("n1", 103), ("n2", 104)] {
            let (was, is) = (format!("{node}/a"), format!("{node}/c"));
            let coming = rollout.lab.add_pod(node, "c").unwrap();
            rollout.set(&is, Life::Starting);
            servers.push(start(&coming, number, ""));
            rollout.set(&is, Life::Ready);
            rollout.wait_used(&is);
            rollout.set(&was, Life::Terminating);
            rollout.wait_unused(&was);
            asked.go_on();
            rollout.set(&was, Life::Ended);
            asked.go_on();
            servers.remove(0).stop().unwrap();
            rollout.remove(&was);
            rollout.lab.remove_pod(node, "a").unwrap();
            asked.go_on();
        }
    });
    for resolver in &resolvers {
        let seen = resolver.seen.lock().unwrap();
        let servers: BTreeSet<u8> =
            seen.iter().flat_map(|seen| seen.servers.keys().copied()).collect();
        assert_eq!(servers, [101, 102, 103, 104].into(), "{}", resolver.name());
    }
}
