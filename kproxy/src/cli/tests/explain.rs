//! `kproxy explain` on the sample node, without a kernel.

use kproxy_common::affinity::{AffinityKey, AffinityValue, client_kind, netns_client};
use kproxy_common::config::{Config, Range, Uplink};
use kproxy_common::net::{Addr, Port};
use kproxy_common::service::{
    FrontendKey, FrontendValue, Service, Slot, Word, cluster_index, empty_verdict, frontend_flags,
    local_index, service_flags, slot_flags,
};

use super::super::dump::tables::Tables;
use super::super::explain::answers::Answers;
use super::super::explain::print::print;
use super::super::explain::resolve::resolve;
use super::super::explain::state::State;
use super::super::render::{Look, json};
use super::{PLAIN, TERMINAL, sample};
use crate::dataplane::explain::{Run, Sender, View};
use crate::dataplane::read::{AffinityClient, SetRow};
use crate::plan::{Algorithm, EmptyVerdict, FrontendKind, Scope};

/// Cookie of the sample node's own network namespace.
const HOST: u64 = 1;

/// The maps that the sample tables are read from.
pub(super) fn view(tables: &Tables) -> View {
    let index = |id, scope| match scope {
        Scope::Cluster => cluster_index(id),
        Scope::Local => local_index(id),
    };
    let mut view = View {
        config: Config {
            host_netns: HOST,
            snat_first: 1024,
            snat_count: 28_976,
            ..Config::default()
        },
        has_sockets: true,
        has_pod_links: true,
        refuses_calls: true,
        now: 100_000_000_000_000,
        ..View::default()
    };
    view.config.service[0][0] = Range::new(sample::ip("10.96.0.0"), 16);
    let address = |text| Addr::from(sample::ip(text));
    let uplink = Uplink { v4: address("192.0.2.11"), v6: address("2001:db8:2::11"), flags: 0 };
    view.uplinks.insert(2, uplink);
    for row in &tables.frontends {
        let flags = row.kinds.iter().map(|kind| match kind {
            FrontendKind::ClusterIp => frontend_flags::CLUSTER_IP,
            FrontendKind::NodePort => frontend_flags::NODE_PORT,
            FrontendKind::ExternalIp => frontend_flags::EXTERNAL_IP,
            FrontendKind::LoadBalancer => {
                frontend_flags::LOAD_BALANCER | frontend_flags::SOURCE_RANGES
            }
        });
        let value = FrontendValue {
            internal: index(row.id, row.internal),
            external: index(row.id, row.external),
            flags: flags.fold(0, |all, flag| all | flag),
        };
        let proto = row.protocol.unwrap().number();
        let key = FrontendKey::new(row.addr.into(), Port::new(row.port), proto);
        view.frontends.insert(key, value);
    }
    for row in &tables.addresses {
        let flags =
            if row.node { frontend_flags::NODE_ADDRESS } else { frontend_flags::SERVICE_ADDRESS };
        let value = FrontendValue { flags, ..FrontendValue::default() };
        view.frontends.insert(FrontendKey::address(row.addr.into()), value);
    }
    for row in &tables.services {
        view.names.extend(row.service.clone().map(|name| (row.id, name)));
        view.ranges.extend(row.source_ranges.iter().map(|net| (row.id, net.parse().unwrap())));
        for (scope, set) in [(Scope::Cluster, Some(row.cluster)), (Scope::Local, row.local)] {
            let Some(set) = set else { continue };
            let backends = tables.backends.iter().filter(|of| (of.id, of.set) == (row.id, scope));
            let slots = backends.map(|of| Slot {
                addr: of.addr.into(),
                port: Port::new(of.port),
                flags: if of.local { slot_flags::LOCAL } else { 0 },
                extra: 0,
            });
            let service = Service {
                word: word(&set).pack(),
                flags: service_flags::IN_USE | algorithm(row.algorithm),
                affinity_seconds: row.affinity_seconds.unwrap_or(0),
            };
            view.runs.insert(index(row.id, scope), Run { service, slots: slots.collect() });
        }
    }
    for row in &tables.affinity {
        let (client, kind) = match row.client {
            AffinityClient::Node => (netns_client(HOST), client_kind::NETNS),
            AffinityClient::Netns(cookie) => (netns_client(cookie), client_kind::NETNS),
            AffinityClient::Address(addr) => (addr.into(), client_kind::ADDRESS),
        };
        let last = view.now - u64::from(row.idle_seconds) * 1_000_000_000;
        let value =
            AffinityValue { addr: row.addr.into(), last, port: Port::new(row.port), pad: [0; 3] };
        view.affinity.insert(AffinityKey::new(client, kind, cluster_index(row.id)), value);
    }
    view
}

const fn algorithm(algorithm: Algorithm) -> u32 {
    match algorithm {
        Algorithm::RoundRobin => 0,
        Algorithm::Random => service_flags::RANDOM,
        Algorithm::LeastConnections => service_flags::LEAST_CONNECTIONS,
        Algorithm::Maglev => service_flags::MAGLEV,
    }
}

fn word(set: &SetRow) -> Word {
    let first = match set.empty {
        Some(EmptyVerdict::Drop) => empty_verdict::DROP,
        Some(EmptyVerdict::Reject) => empty_verdict::REJECT,
        None => set.first_slot.unwrap(),
    };
    Word { first, count: set.backends, generation: set.generation }
}

/// A daemon that keeps the maps in step.
fn fresh() -> State {
    State { pid: Some(4711), last_heard: None, not_ready: None, problems: Vec::new() }
}

/// One that was killed.
fn dead() -> State {
    State { pid: None, last_heard: Some(1_767_225_600), not_ready: None, problems: Vec::new() }
}

const ANY: [Sender; 3] = [
    Sender::Node { source: None },
    Sender::Pod { address: None, netns: None },
    Sender::Outside { address: None },
];

fn answers(target: &str, senders: &[Sender], state: State) -> Answers {
    let view = view(&sample::tables());
    let dialled =
        resolve(&view, &target.parse().unwrap()).unwrap_or_else(|error| panic!("{error}"));
    Answers::of(&view, &dialled, senders, state)
}

fn printed(answers: &Answers, look: &Look, wide: bool) -> String {
    let mut out = Vec::new();
    print(&mut out, look, answers, wide).unwrap();
    String::from_utf8(out).unwrap()
}

/// The samples of the page.
pub(super) fn samples() -> Vec<(String, String)> {
    let client = [Sender::Outside { address: Some(sample::ip("203.0.113.9")) }];
    let mut samples = vec![
        (
            "explain 10.96.34.7:80".to_owned(),
            printed(&answers("10.96.34.7:80", &ANY, fresh()), &TERMINAL, false),
        ),
        (
            "explain 192.0.2.11:31443 --from 203.0.113.9".to_owned(),
            printed(&answers("192.0.2.11:31443", &client, dead()), &TERMINAL, false),
        ),
        (
            "explain reports".to_owned(),
            printed(&answers("reports", &ANY, fresh()), &TERMINAL, false),
        ),
    ];
    let mut text = Vec::new();
    json::write(&mut text, &answers("192.0.2.11:31443", &client, dead())).unwrap();
    let text = String::from_utf8(text).unwrap();
    samples.push(("explain 192.0.2.11:31443 --from 203.0.113.9 -o json".to_owned(), text));
    samples
}

/// What each target of the sample node ends in, of this node, a pod and a client outside.
#[test]
fn senders_fare_as_the_maps_say() {
    for (target, verdicts) in [
        ("10.96.34.7:80", "answered answered answered"),
        ("127.0.0.1:30080", "answered left-alone left-alone"),
        ("192.0.2.11:30080", "answered answered answered"),
        ("192.0.2.11:31443", "answered answered dropped"),
        ("192.0.2.11:31444", "left-alone left-alone left-alone"),
        ("10.96.201.14:8443", "refused refused refused"),
        ("10.96.201.14:8444", "refused refused refused"),
        ("10.96.0.10:53/udp", "answered answered answered"),
        ("10.96.0.10:53/tcp", "refused refused refused"),
        ("10.96.9.9:80", "dropped dropped dropped"),
        ("203.0.113.20:443", "dropped depends dropped"),
        ("198.51.100.1:80", "left-alone left-alone left-alone"),
    ] {
        let answers = answers(target, &ANY, fresh());
        let told: Vec<_> = answers.dialled[0]
            .answers
            .iter()
            .map(|answer| serde_json::to_value(answer.told.verdict).unwrap())
            .map(|verdict| verdict.as_str().unwrap().to_owned())
            .collect();
        assert_eq!(told.join(" "), verdicts, "{target}");
    }
}

#[test]
fn what_is_not_there_or_ambiguous_names_what_may_be_meant() {
    let view = view(&sample::tables());
    for (target, said) in [
        ("wbe", "no Service wbe in the maps; did you mean default/web?"),
        ("default/kube-dns", "did you mean kube-system/kube-dns"),
        ("web:https", "it has default/web:http/tcp"),
        ("10.96.0.11", "10.96.0.10:53/UDP kube-system/kube-dns:dns"),
        ("nothing-of-that-kind", "no Service nothing-of-that-kind in the maps"),
    ] {
        let error = resolve(&view, &target.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(said), "{target}: {error}");
    }
    let mut tables = sample::tables();
    tables.services[1].service.as_mut().unwrap().port = "other".to_owned();
    let view = self::view(&tables);
    let error = resolve(&view, &"web".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("any of default/web:http/tcp, default/web:other/tcp"), "{error}");
    // The same address under another protocol.
    let answers = answers("10.96.0.10:54", &ANY, fresh());
    assert_eq!(answers.dialled[0].nearest, ["10.96.0.10:53/UDP kube-system/kube-dns:dns"]);
}

#[test]
fn the_view_is_said_to_be_stale() {
    let text = printed(&answers("web", &ANY, dead()), &PLAIN, false);
    assert!(text.contains("last heard of at 2026-01-01T00:00:00Z"), "{text}");
    let text = printed(&answers("web", &ANY, fresh()), &PLAIN, false);
    assert!(!text.contains("stale"), "{text}");
    let why = Some("changes have waited for a minute".to_owned());
    let text = printed(&answers("web", &ANY, State { not_ready: why, ..fresh() }), &PLAIN, false);
    assert!(text.contains("(pid 4711) is not in step with the cluster: changes"), "{text}");
}

#[test]
fn nothing_is_wider_than_the_terminal_and_wide_shortens_nothing() {
    for target in ["10.96.34.7:80", "web", "reports", "192.0.2.11:31443", "10.96.9.9:80"] {
        let answers = answers(target, &ANY, dead());
        for width in [80, 200] {
            let look = Look { width: Some(width), color: false };
            for line in printed(&answers, &look, false).lines() {
                assert!(line.chars().count() <= width, "{line}");
                assert!(!line.ends_with(' '), "{line:?}");
            }
        }
        assert!(!printed(&answers, &TERMINAL, true).contains('…'));
    }
}
