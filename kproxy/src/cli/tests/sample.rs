//! A node of a small dual-stack cluster.

use std::net::{IpAddr, SocketAddr};

use kproxy_common::drop_reason::DropReason;
use kproxy_common::flow::state::{TIMEOUTS, is_confirmed};
use kproxy_common::flow::{FlowState, flow_state};

use crate::cli::dump::tables::Tables;
use crate::dataplane::read::{
    AddressRow, AffinityClient, AffinityRow, BackendRow, CounterRow, DropRow, FlowHalves, FlowKind,
    FlowRow, FrontendRow, ServiceRow, SetRow,
};
use crate::plan::{
    Algorithm, EmptyVerdict, Family, FrontendKind, Protocol, Scope, ServicePortId, Sources,
};

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// `namespace/name:port`
fn id(text: &str, protocol: Protocol, family: Family) -> ServicePortId {
    let (namespace, rest) = text.split_once('/').unwrap();
    let (name, port) = rest.split_once(':').unwrap_or((rest, ""));
    ServicePortId {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port: port.to_owned(),
        protocol,
        family,
    }
}

/// The shop's endpoints are not equally fast.
fn algorithm_of(service: &ServicePortId) -> Algorithm {
    match service.name.as_str() {
        "shop-frontend" => Algorithm::LeastConnections,
        "kube-dns" => Algorithm::Random,
        _ => Algorithm::RoundRobin,
    }
}

/// Adds a service port: its number, its frontends, and the backends of its sets.
struct Builder {
    tables: Tables,
    next_slot: u32,
}

impl Builder {
    fn service(
        &mut self,
        service: &ServicePortId,
        frontends: &[(FrontendKind, &str, Scope)],
        backends: &[(&str, bool)],
    ) {
        let number = self.tables.services.len() as u32;
        let uses_local = frontends.iter().any(|(.., external)| *external == Scope::Local);
        let cluster = self.set(number * 2, backends.len(), EmptyVerdict::Reject);
        self.backends(number, service, Scope::Cluster, &cluster, backends);
        let local: Vec<_> = backends.iter().filter(|(_, local)| *local).copied().collect();
        let local = uses_local.then(|| {
            let set = self.set(number * 2 + 1, local.len(), EmptyVerdict::Drop);
            self.backends(number, service, Scope::Local, &set, &local);
            set
        });
        for (kind, address, external) in frontends {
            self.tables.frontends.push(FrontendRow {
                kinds: vec![*kind],
                addr: end(address).ip(),
                port: end(address).port(),
                protocol: Some(service.protocol),
                internal: Scope::Cluster,
                external: *external,
                sources: match kind {
                    FrontendKind::LoadBalancer => Sources::Ranges { node: false },
                    _ => Sources::All,
                },
                id: number,
                service: Some(service.clone()),
            });
        }
        let restricted = frontends.iter().any(|(kind, ..)| *kind == FrontendKind::LoadBalancer);
        let source_ranges = restricted.then(|| "203.0.113.0/24".to_owned()).into_iter().collect();
        let affinity_seconds = (service.name == "shop-frontend").then_some(10_800);
        let algorithm = algorithm_of(service);
        let service = Some(service.clone());
        self.tables.services.push(ServiceRow {
            id: number,
            service,
            affinity_seconds,
            algorithm,
            source_ranges,
            cluster,
            local,
        });
    }

    fn set(&mut self, index: u32, backends: usize, verdict: EmptyVerdict) -> SetRow {
        let first = self.next_slot;
        self.next_slot += backends as u32;
        SetRow {
            index,
            backends: backends as u16,
            first_slot: (backends > 0).then_some(first),
            generation: 1 + index as u16 % 3,
            empty: (backends == 0).then_some(verdict),
        }
    }

    fn backends(
        &mut self,
        id: u32,
        service: &ServicePortId,
        set: Scope,
        row: &SetRow,
        backends: &[(&str, bool)],
    ) {
        for ((address, local), slot) in backends.iter().zip(row.first_slot.unwrap_or(0)..) {
            self.tables.backends.push(BackendRow {
                id,
                service: Some(service.clone()),
                set,
                addr: end(address).ip(),
                port: end(address).port(),
                local: *local,
                connections: (algorithm_of(service) == Algorithm::LeastConnections)
                    .then_some(u64::from(slot)),
                slot,
            });
        }
    }

    fn remembered(&mut self, id: u32, client: AffinityClient, backend: &str, idle: u32) {
        let row = &self.tables.services[id as usize];
        self.tables.affinity.push(AffinityRow {
            client,
            addr: end(backend).ip(),
            port: end(backend).port(),
            idle_seconds: idle,
            expires_in_seconds: row.affinity_seconds.unwrap() - idle,
            id,
            service: row.service.clone(),
        });
    }

    fn count(&mut self, id: u32, connections: u64, packets: u64, bytes: u64) {
        let service = self.tables.services[id as usize].service.clone();
        let set = Scope::Cluster;
        self.tables.counters.push(CounterRow {
            id,
            service,
            set,
            connections,
            packets,
            bytes,
            failed: packets / 10_000,
        });
    }

    fn dropped(&mut self, id: Option<u32>, set: Option<Scope>, reason: DropReason, count: u64) {
        let service = id.and_then(|id| self.tables.services[id as usize].service.clone());
        let (reason_number, reason) = (reason as u32, Some(reason));
        self.tables.drops.push(DropRow { id, service, set, reason_number, reason, count });
    }

    fn flow(&mut self, id: u32, [client, frontend, backend]: [&str; 3], state: u8, idle: u32) {
        let service = self.tables.services[id as usize].service.clone();
        let protocol = service.as_ref().map(|service| service.protocol);
        self.tables.flows.push(FlowRow {
            protocol,
            client: end(client),
            frontend: end(frontend),
            backend: end(backend),
            state: FlowState::from_number(state),
            assured: is_confirmed(state),
            source: Some(if backend.contains("10.244.2.") {
                end("192.0.2.11:17203")
            } else {
                end(client)
            }),
            halves: FlowHalves::Both,
            idle_seconds: Some(idle),
            expires_in_seconds: TIMEOUTS[usize::from(state)].saturating_sub(idle),
            kind: FlowKind::Service,
            set: Some(Scope::Cluster),
            id: Some(id),
            service,
        });
    }
}

/// What the maps of the node hold.
pub(super) fn tables() -> Tables {
    use FrontendKind::{ClusterIp, LoadBalancer, NodePort};
    use Scope::{Cluster, Local};
    let mut b = Builder { tables: Tables::default(), next_slot: 0 };
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);

    let api = id("default/kubernetes:https", tcp, Family::V4);
    b.service(&api, &[(ClusterIp, "10.96.0.1:443", Cluster)], &[("192.0.2.10:6443", false)]);
    let web = id("default/web:http", tcp, Family::V4);
    let frontends = [(ClusterIp, "10.96.34.7:80", Cluster), (NodePort, "0.0.0.0:30080", Cluster)];
    let backends = [("10.244.1.5:8080", true), ("10.244.2.9:8080", false)];
    b.service(&web, &frontends, &backends);
    let web6 = id("default/web:http", tcp, Family::V6);
    let frontends =
        [(ClusterIp, "[fd00:10:96::22a7]:80", Cluster), (NodePort, "[::]:30080", Cluster)];
    let backends = [("[fd00:10:244:1::5]:8080", true), ("[fd00:10:244:2::9]:8080", false)];
    b.service(&web6, &frontends, &backends);
    let dns = id("kube-system/kube-dns:dns", udp, Family::V4);
    let backends = [("10.244.2.2:53", false), ("10.244.2.3:53", false)];
    b.service(&dns, &[(ClusterIp, "10.96.0.10:53", Cluster)], &backends);
    let dns6 = id("kube-system/kube-dns:dns", udp, Family::V6);
    let backends = [("[fd00:10:244:2::2]:53", false), ("[fd00:10:244:2::3]:53", false)];
    b.service(&dns6, &[(ClusterIp, "[fd00:10:96::a]:53", Cluster)], &backends);
    let old = id("legacy/reports", tcp, Family::V4);
    b.service(&old, &[(ClusterIp, "10.96.201.14:8443", Cluster)], &[]);
    let shop = id("shop/shop-frontend:https", tcp, Family::V4);
    let frontends = [
        (ClusterIp, "10.96.77.3:443", Cluster),
        (NodePort, "0.0.0.0:31443", Local),
        (LoadBalancer, "203.0.113.20:443", Local),
    ];
    b.service(&shop, &frontends, &[("10.244.2.14:8443", false), ("10.244.2.15:8443", false)]);

    for (id, connections, packets, bytes) in [
        (0, 312, 0, 0),
        (1, 52_190, 413_882, 1_288_490_188),
        (2, 1_204, 9_631, 7_340_032),
        (3, 98_213, 0, 0),
        (4, 4, 0, 0),
        (5, 0, 0, 0),
        (6, 7, 96, 61_440),
    ] {
        b.count(id, connections, packets, bytes);
    }
    b.dropped(Some(5), Some(Cluster), DropReason::NoBackend, 17);
    b.dropped(Some(6), Some(Local), DropReason::NoLocalBackend, 230);
    b.dropped(Some(6), Some(Local), DropReason::SourceNotAllowed, 3);
    b.dropped(None, None, DropReason::UnknownPort, 2);

    let to_web = ["198.51.100.7:51324", "192.0.2.11:30080", "10.244.1.5:8080"];
    b.flow(1, to_web, flow_state::ESTABLISHED, 3);
    let elsewhere = ["198.51.100.7:51330", "192.0.2.11:30080", "10.244.2.9:8080"];
    b.flow(1, elsewhere, flow_state::CLOSE_WAIT, 190);
    let six = ["[2001:db8:7::7]:40112", "[2001:db8:2::11]:30080", "[fd00:10:244:1::5]:8080"];
    b.flow(2, six, flow_state::OPENING, 1);

    b.remembered(6, AffinityClient::Node, "10.244.2.15:8443", 40);
    let client = AffinityClient::Address(ip("203.0.113.9"));
    b.remembered(6, client, "10.244.2.14:8443", 5_000);
    b.remembered(6, AffinityClient::Netns(4_127), "10.244.2.15:8443", 7);

    for (addr, node) in [
        ("127.0.0.1", true),
        ("192.0.2.11", true),
        ("::1", true),
        ("2001:db8:2::11", true),
        ("10.96.0.1", false),
        ("10.96.0.10", false),
        ("10.96.34.7", false),
        ("10.96.77.3", false),
        ("10.96.201.14", false),
        ("fd00:10:96::a", false),
        ("fd00:10:96::22a7", false),
    ] {
        b.tables.addresses.push(AddressRow { addr: ip(addr), node, service: !node });
    }
    b.tables
}
