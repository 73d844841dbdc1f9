//! Services.

use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::{
    ObjectProblems, has_label, parse_cidr, parse_ip, port_number, protocol, service_key, unusable,
};
use crate::model::{Algorithm, Family, Service, ServicePort, ServiceType, TrafficPolicy};
use crate::source::{Parsed, Verdict, objects};

/// A Service with this label, whatever its value, belongs to another proxy (SEL-01).
pub(crate) const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` when not given (SVC-11).
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;
const MAX_AFFINITY_SECONDS: i32 = 86_400;

/// How backends are picked. Named after Cilium's `service.cilium.io/lb-algorithm`.
const ALGORITHM_ANNOTATION: &str = "kproxy.dev/lb-algorithm";

/// Whether kproxy has anything to do with a Service (SEL-01, SEL-02, SEL-05).
fn is_ours(service: &objects::Service, spec: &objects::ServiceSpec) -> bool {
    let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
    !has_label(&service.metadata, PROXY_NAME_LABEL)
        && spec.type_.as_deref() != Some("ExternalName")
        && !matches!(cluster_ip, "" | "None")
        && spec.ports.as_ref().is_some_and(|ports| !ports.is_empty())
}

/// Converts a Service.
pub(crate) fn service(object: &objects::Service) -> Parsed<Service> {
    let key = service_key(&object.metadata);
    let ignored = |problems| Parsed { key: key.clone(), verdict: Verdict::Ignore, problems };
    let Some(spec) = object.spec.as_ref().filter(|spec| is_ours(object, spec)) else {
        return ignored(Vec::new());
    };
    let mut problems = ObjectProblems::new(format!("Service {key}"));
    let cluster_ips = cluster_ips(spec, &mut problems);
    let ports = ports(spec.ports.as_deref().unwrap_or_default(), &mut problems);
    if cluster_ips.is_empty() || ports.is_empty() {
        return ignored(problems.list);
    }
    let mut load_balancer_ips =
        addresses(ingress_ips(object), "load-balancer ingress address", &mut problems);
    let (source_ranges, closed) = source_ranges(spec, &mut problems);
    load_balancer_ips.retain(|ip| !closed.contains(&Family::of(ip)));
    let service = Service {
        name: key.clone(),
        created: object.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        kind: kind(spec, &mut problems),
        cluster_ips,
        external_ips: addresses(spec.external_ips.iter().flatten(), "externalIP", &mut problems),
        load_balancer_ips,
        source_ranges,
        internal_policy: policy(
            spec.internal_traffic_policy.as_deref(),
            "internalTrafficPolicy",
            &mut problems,
        ),
        external_policy_written: policy(
            spec.external_traffic_policy.as_deref(),
            "externalTrafficPolicy",
            &mut problems,
        ),
        health_check_node_port: health_check_node_port(spec, &mut problems),
        affinity_seconds: affinity(spec, &mut problems),
        algorithm: algorithm(object, &mut problems),
        ports,
    };
    if service.has_health_check() && service.health_check_node_port.is_none() {
        problems.add(
            "has externalTrafficPolicy Local and no healthCheckNodePort, so load balancers cannot \
             ask this node whether it has endpoints",
            "write spec.healthCheckNodePort",
        );
    }
    Parsed { key, verdict: Verdict::Use(service), problems: problems.list }
}

/// The first address of each family (SEL-03). Old objects have only `clusterIP`.
fn cluster_ips(spec: &objects::ServiceSpec, problems: &mut ObjectProblems) -> Vec<IpAddr> {
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let texts = if listed.is_empty() { spec.cluster_ip.as_slice() } else { listed };
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in addresses(texts.iter(), "clusterIP", problems) {
        if !ips.iter().any(|other| Family::of(other) == Family::of(&ip)) {
            ips.push(ip);
        }
    }
    ips
}

/// SVC-07: `ipMode: Proxy` and entries with only a host name are not captured.
fn ingress_ips(service: &objects::Service) -> impl Iterator<Item = &String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status
        .and_then(|status| status.ingress.as_deref())
        .unwrap_or_default()
        .iter()
        .filter(|ingress| matches!(ingress.ip_mode.as_deref(), None | Some("VIP")))
        .filter_map(|ingress| ingress.ip.as_ref())
        .filter(|ip| !ip.is_empty())
}

fn addresses<'a>(
    texts: impl Iterator<Item = &'a String>,
    field: &str,
    problems: &mut ObjectProblems,
) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for text in texts {
        match parse_ip(text) {
            None => problems.add(
                format!("{field} {text:?} is no IP address, it is left out"),
                "write an IPv4 or IPv6 address",
            ),
            Some(ip) => match unusable(&ip) {
                Some(why) => problems.add(
                    format!("{field} {text} {why}, it is left out"),
                    "use an address that clients can reach",
                ),
                None => ips.push(ip),
            },
        }
    }
    ips
}

fn ports(ports: &[objects::ServicePort], problems: &mut ObjectProblems) -> Vec<ServicePort> {
    let mut good: Vec<ServicePort> = Vec::new();
    for port in ports {
        let name = port.name.clone().unwrap_or_default();
        let text = if name.is_empty() { port.port.to_string() } else { format!("{name:?}") };
        let Some(number) = port_number(port.port) else {
            problems.add(
                format!("port {text} has the number {}, it is left out", port.port),
                "use a port from 1 to 65535",
            );
            continue;
        };
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            problems.add(
                format!(
                    "port {text} has the unknown protocol {:?}, it is left out",
                    port.protocol.as_deref().unwrap_or_default()
                ),
                "use TCP, UDP or SCTP",
            );
            continue;
        };
        if good.iter().any(|other| other.name == name && other.protocol == protocol) {
            problems.add(
                format!("port {text}/{} is there twice, the first one counts", protocol.name()),
                "give each port a name of its own",
            );
            continue;
        }
        let written = port.node_port.unwrap_or(0);
        let node_port = port_number(written);
        if written != 0 && node_port.is_none() {
            problems.add(
                format!("port {text} has the nodePort {written}, the nodePort is left out"),
                "use a nodePort from 1 to 65535",
            );
        }
        good.push(ServicePort { name, protocol, port: number, node_port });
    }
    good
}

fn kind(spec: &objects::ServiceSpec, problems: &mut ObjectProblems) -> ServiceType {
    match spec.type_.as_deref() {
        None | Some("ClusterIP") => ServiceType::ClusterIp,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some(other) => {
            problems.add(
                format!("type {other:?} is unknown, it counts as ClusterIP"),
                "use ClusterIP, NodePort or LoadBalancer",
            );
            ServiceType::ClusterIp
        }
    }
}

fn policy(text: Option<&str>, field: &str, problems: &mut ObjectProblems) -> TrafficPolicy {
    match text {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            problems.add(
                format!("{field} {other:?} is unknown, it counts as Cluster"),
                "use Cluster or Local",
            );
            TrafficPolicy::Cluster
        }
    }
}

/// The readable ranges, and the families of which ranges are written and none can be read: opening
/// those to everybody is not what the Service's owner asked for.
fn source_ranges(
    spec: &objects::ServiceSpec,
    problems: &mut ObjectProblems,
) -> (Vec<IpNet>, Vec<Family>) {
    let (mut ranges, mut unreadable) = (Vec::new(), Vec::new());
    for text in spec.load_balancer_source_ranges.iter().flatten() {
        if let Some(range) = parse_cidr(text) {
            ranges.push(range);
            continue;
        }
        problems.add(
            format!("loadBalancerSourceRanges entry {text:?} is no range, it is left out"),
            "write address/length, e.g. 192.0.2.0/24",
        );
        unreadable.push(if text.contains(':') { Family::V6 } else { Family::V4 });
    }
    unreadable.retain(|family| ranges.iter().all(|net| Family::of(&net.addr()) != *family));
    (ranges, unreadable)
}

fn health_check_node_port(
    spec: &objects::ServiceSpec,
    problems: &mut ObjectProblems,
) -> Option<NonZeroU16> {
    let written = spec.health_check_node_port.filter(|port| *port != 0)?;
    let port = port_number(written);
    if port.is_none() {
        problems.add(
            format!("healthCheckNodePort {written} is left out"),
            "use a port from 1 to 65535",
        );
    }
    port
}

fn algorithm(service: &objects::Service, problems: &mut ObjectProblems) -> Option<Algorithm> {
    let written = service.metadata.annotations.as_ref()?.get(ALGORITHM_ANNOTATION)?;
    let algorithm = Algorithm::from_name(written);
    if algorithm.is_none() {
        problems.add(
            format!(
                "annotation {ALGORITHM_ANNOTATION} {written:?} is unknown, the default of this \
                 node counts"
            ),
            "use round-robin, random, least-connections or maglev",
        );
    }
    algorithm
}

fn affinity(spec: &objects::ServiceSpec, problems: &mut ObjectProblems) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            problems.add(
                format!("sessionAffinity {other:?} is unknown, it counts as None"),
                "use ClientIP or None",
            );
            return None;
        }
    }
    let client_ip = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let written = client_ip.and_then(|c| c.timeout_seconds).unwrap_or(DEFAULT_AFFINITY_SECONDS);
    let seconds = written.clamp(1, MAX_AFFINITY_SECONDS);
    if seconds != written {
        problems.add(
            format!("session affinity timeout {written} s is out of range, {seconds} s counts"),
            "use 1 to 86400 seconds",
        );
    }
    u32::try_from(seconds).ok()
}
