//! What is told, and what the page says of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use kproxy_common::drop_reason::DropReason;
use prometheus::proto::{MetricFamily, MetricType};

use super::traffic::MOST_SERVICES;
use super::*;
use crate::dataplane::read::{CounterRow, DropRow};
use crate::dataplane::{Fill, PortPool, PortUse, Sizes, SweepReport, Usage};
use crate::model::Family;
use crate::plan::{Policy, Protocol, Scope, ServicePortId};

/// Value of a series, written as it is told.
pub(crate) fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.text().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|number| number.parse().unwrap())
}

fn port(name: &str) -> ServicePortId {
    ServicePortId {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        port: "web".to_owned(),
        protocol: Protocol::Tcp,
        family: Family::V4,
    }
}

fn counters(id: u32, name: &str, connections: u64) -> CounterRow {
    CounterRow {
        id,
        service: Some(port(name)),
        set: Scope::Cluster,
        connections,
        packets: connections * 10,
        bytes: connections * 1000,
        failed: connections,
    }
}

fn drops(id: Option<u32>, name: &str, count: u64) -> DropRow {
    DropRow {
        id,
        service: id.map(|_| port(name)),
        set: id.map(|_| Scope::Cluster),
        reason_number: DropReason::NoBackend as u32,
        reason: Some(DropReason::NoBackend),
        count,
    }
}

const WEB: &str = "{ip_family=\"IPv4\",namespace=\"default\",port=\"web\",protocol=\"TCP\",\
                   service=\"web\"}";

/// Everything has happened once.
fn lively() -> Metrics {
    let metrics = Metrics::new().unwrap();
    let backend = "10.244.1.5:8080".parse().unwrap();
    let fullest = PortUse { backend, protocol: Some("TCP"), used: 7, assured: 5 };
    let report = SweepReport {
        removed: 3,
        left_v4: 1,
        assured: 4,
        unassured: 6,
        ports: Some(PortPool { size: 28_976, fullest: Some(fullest) }),
        ..SweepReport::default()
    };
    metrics.sweep.swept(&report, Duration::from_millis(3));
    metrics.sweep.closed(2);
    metrics.health.told_healthz("200");
    metrics.health.told_livez("503");
    let fill = Fill { used: 3, capacity: 64 };
    let most = Sizes { services: 128, slots: 256, frontends: 512 };
    let usage = Usage { frontends: fill, services: fill, slots: fill, flows: fill, most };
    metrics.sweep.set_usage(&usage);
    metrics.traffic.set(vec![counters(0, "web", 5)], vec![drops(Some(0), "web", 2)]);
    metrics
}

#[test]
fn ct_10_sweeps_are_told_by_family() {
    let metrics = lively();
    let of = |name: &str, family: &str| {
        let series = format!("kubeproxy_conntrack_reconciler_{name}{{ip_family=\"{family}\"}}");
        value(&metrics, &series).unwrap()
    };
    assert_eq!(of("deleted_entries_total", "IPv4"), 1.0);
    assert_eq!(of("deleted_entries_total", "IPv6"), 0.0);
    assert_eq!(of("sync_duration_seconds_count", "IPv4"), 1.0);
    assert_eq!(of("sync_duration_seconds_count", "IPv6"), 1.0);
    assert_eq!(of("sync_duration_seconds_sum", "IPv6"), 0.003);
    assert_eq!(value(&metrics, "kproxy_flow_entries_swept_total"), Some(3.0));
    assert_eq!(value(&metrics, "kproxy_map_max_entries{map=\"KP_SLOTS\"}"), Some(64.0));
    assert_eq!(value(&metrics, "kproxy_map_limit_entries{map=\"KP_SLOTS\"}"), Some(256.0));
}

#[test]
fn flows_and_source_ports_are_told_by_whether_they_give_way() {
    let metrics = lively();
    for (series, wanted) in [
        ("kproxy_flows{assured=\"true\"}", 4.0),
        ("kproxy_flows{assured=\"false\"}", 6.0),
        ("kproxy_source_ports", 28_976.0),
        ("kproxy_source_ports_used{assured=\"true\"}", 5.0),
        ("kproxy_source_ports_used{assured=\"false\"}", 2.0),
    ] {
        assert_eq!(value(&metrics, series), Some(wanted), "{series}");
    }
}

#[test]
fn buckets_are_kube_proxys() {
    let text = lively().text().unwrap();
    let bounds = |name: &str| -> Vec<f64> {
        let start = format!("kubeproxy_{name}_bucket{{ip_family=\"IPv4\",le=\"");
        let bounds = text.lines().filter_map(|line| line.strip_prefix(&start)?.split('"').next());
        bounds.map(|bound| bound.parse().unwrap()).collect()
    };
    let passes = bounds("sync_proxy_rules_duration_seconds");
    assert_eq!((passes[0], passes[14], passes.len()), (0.001, 16.384, 16));
    let programming = bounds("network_programming_duration_seconds");
    assert_eq!((programming.len(), programming[0]), (82, 0.0));
    assert!(
        [0.25, 0.5, 1.0, 59.0, 60.0, 115.0, 120.0, 300.0].iter().all(|b| programming.contains(b))
    );
}

#[test]
fn pending_changes_are_over_after_a_pass() {
    let metrics = Metrics::new().unwrap();
    let of = |name: &str| value(&metrics, &format!("kubeproxy_sync_proxy_rules_{name}")).unwrap();
    metrics.control.changed(Change::Service, 2);
    metrics.control.changed(Change::Endpoints, 3);
    assert_eq!((of("service_changes_pending"), of("endpoint_changes_pending")), (2.0, 3.0));
    metrics.control.synced(Pass::Partial, Duration::from_millis(1));
    assert_eq!((of("service_changes_pending"), of("endpoint_changes_pending")), (0.0, 0.0));
    assert_eq!((of("service_changes_total"), of("endpoint_changes_total")), (2.0, 3.0));
    metrics.control.set_no_local_endpoints(Policy::External, Family::V6, 4);
    let series = "no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"external\"}";
    assert_eq!(of(series), 4.0);
}

#[test]
fn both_sets_of_a_service_port_add_up() {
    let metrics = Metrics::new().unwrap();
    let local = CounterRow { set: Scope::Local, ..counters(7, "web", 2) };
    let none = drops(None, "", 9);
    metrics.traffic.set(vec![counters(7, "web", 5), local], vec![drops(Some(7), "web", 3), none]);
    assert_eq!(value(&metrics, &format!("kproxy_service_connections_total{WEB}")), Some(7.0));
    assert_eq!(value(&metrics, &format!("kproxy_service_bytes_total{WEB}")), Some(7000.0));
    let failed = "kproxy_service_failed_connections_total";
    assert_eq!(value(&metrics, &format!("{failed}{WEB}")), Some(7.0));
    assert_eq!(value(&metrics, "kproxy_packets_total"), Some(70.0));
    assert_eq!(value(&metrics, "kproxy_drops_total{reason=\"no-backend\"}"), Some(12.0));
    assert_eq!(value(&metrics, "kproxy_drops_total{reason=\"bad-map\"}"), Some(0.0));
    let dropped = WEB.replace(",service", ",reason=\"no-backend\",service");
    assert_eq!(value(&metrics, &format!("kproxy_service_drops_total{dropped}")), Some(3.0));
}

#[test]
fn sums_never_shrink() {
    let metrics = Metrics::new().unwrap();
    let sums = |counters, drops| {
        metrics.traffic.set(counters, drops);
        let of = |series| value(&metrics, series).unwrap();
        (of("kproxy_connections_total"), of("kproxy_drops_total{reason=\"no-backend\"}"))
    };
    let web = |connections| vec![counters(0, "web", connections)];
    assert_eq!(sums(web(5), vec![drops(Some(0), "web", 1)]), (5.0, 1.0));
    assert_eq!(sums(web(6), vec![drops(Some(0), "web", 1)]), (6.0, 1.0));
    // The Service is gone, then another one has its number.
    assert_eq!(sums(vec![], vec![]), (6.0, 1.0));
    assert_eq!(sums(vec![counters(0, "api", 4)], vec![]), (10.0, 1.0));
    assert_eq!(sums(vec![counters(0, "dns", 1)], vec![]), (11.0, 1.0));
}

#[test]
fn a_service_without_traffic_and_those_beyond_the_limit_are_left_out() {
    let metrics = Metrics::new().unwrap();
    let told = || {
        let text = metrics.text().unwrap();
        let all = text.lines().filter(|line| line.starts_with("kproxy_service_connections_total{"));
        (all.count(), value(&metrics, "kproxy_services_left_out").unwrap())
    };
    let count = u32::try_from(MOST_SERVICES).unwrap() + 3;
    metrics.traffic.set((0..count).map(|id| counters(id, &format!("s{id}"), 1)).collect(), vec![]);
    assert_eq!(told(), (MOST_SERVICES, 3.0));
    metrics.traffic.set(vec![counters(0, "web", 0), counters(1, "api", 1)], vec![]);
    assert_eq!(told(), (1, 0.0));
    let gone = CounterRow { service: None, ..counters(2, "", 5) };
    metrics.traffic.set(vec![gone], vec![drops(None, "", 1)]);
    assert_eq!(told(), (0, 0.0));
}

#[test]
fn odd_names_do_not_break_the_format() {
    let metrics = Metrics::new().unwrap();
    metrics.traffic.set(vec![counters(0, "a\"b\\c\nd", 1)], vec![]);
    assert!(metrics.text().unwrap().contains("service=\"a\\\"b\\\\c\\nd\""));
}

/// The unit, as the name says it.
fn unit(name: &str) -> &'static str {
    match name.trim_end_matches("_total") {
        base if base.ends_with("_timestamp_seconds") => "seconds since 1970",
        base if base.ends_with("start_time_seconds") => "seconds since 1970",
        base if base.ends_with("_seconds") => "seconds",
        base if base.ends_with("_bytes") => "bytes",
        _ => "1",
    }
}

fn table(families: &[MetricFamily], prefix: &str) -> String {
    let mut text = "| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n".to_owned();
    for family in families.iter().filter(|family| family.name().starts_with(prefix)) {
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            other => panic!("{other:?}"),
        };
        let labels: Vec<_> =
            family.get_metric()[0].get_label().iter().map(|l| format!("`{}`", l.name())).collect();
        let (name, help, labels) = (family.name(), family.help(), labels.join(" "));
        writeln!(text, "| `{name}` | {kind} | {} | {labels} | {help} |", unit(name)).unwrap();
    }
    text
}

#[test]
fn the_page_lists_every_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let families = lively().registry.gather();
    let prefixes = ["kubeproxy_", "kproxy_", "process_"];
    for family in &families {
        let of = prefixes.iter().filter(|prefix| family.name().starts_with(**prefix));
        assert_eq!(of.count(), 1, "{}", family.name());
        assert!(family.help().len() > 10, "{} says nothing", family.name());
    }
    let mut wanted = String::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        writeln!(wanted, "{line}").unwrap();
        let Some(rest) = line.strip_prefix("<!-- metrics: ") else { continue };
        wanted += &table(&families, rest.trim_end_matches(" -->"));
        while lines.next_if(|line| line.starts_with('|')).is_some() {}
    }
    if std::env::var_os("KPROXY_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
        return;
    }
    assert!(page == wanted, "docs/metrics.md is stale: run this test with KPROXY_UPDATE_DOCS=1");
}

/// The metrics that every mode of kube-proxy 1.36.3 has (`pkg/proxy/metrics/metrics.go`), and their
/// labels.
#[test]
fn names_and_labels_are_kube_proxys() {
    let families = lively().registry.gather();
    let told: BTreeMap<&str, Vec<&str>> = families
        .iter()
        .filter(|family| family.name().starts_with("kubeproxy_"))
        .map(|family| {
            let labels = family.get_metric()[0].get_label().iter().map(|label| label.name());
            (family.name().trim_start_matches("kubeproxy_"), labels.collect())
        })
        .collect();
    let family = || vec!["ip_family"];
    let wanted = BTreeMap::from([
        ("conntrack_reconciler_deleted_entries_total", family()),
        ("conntrack_reconciler_sync_duration_seconds", family()),
        ("network_programming_duration_seconds", family()),
        ("proxy_healthz_total", vec!["code"]),
        ("proxy_livez_total", vec!["code"]),
        ("sync_full_proxy_rules_duration_seconds", family()),
        ("sync_partial_proxy_rules_duration_seconds", family()),
        ("sync_proxy_rules_duration_seconds", family()),
        ("sync_proxy_rules_endpoint_changes_pending", vec![]),
        ("sync_proxy_rules_endpoint_changes_total", vec![]),
        ("sync_proxy_rules_last_queued_timestamp_seconds", family()),
        ("sync_proxy_rules_last_timestamp_seconds", family()),
        ("sync_proxy_rules_no_local_endpoints_total", vec!["ip_family", "traffic_policy"]),
        ("sync_proxy_rules_service_changes_pending", vec![]),
        ("sync_proxy_rules_service_changes_total", vec![]),
    ]);
    assert_eq!(told, wanted);
}
