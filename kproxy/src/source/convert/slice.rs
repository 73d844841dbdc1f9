//! EndpointSlices.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use super::{ObjectProblems, has_label, parse_ip, port_number, protocol, slice_key, unusable};
use crate::model::{Endpoint, Family, Slice, SlicePort};
use crate::source::{Parsed, Verdict, objects};

/// Names the Service of a slice (EPS-01).
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Slices of headless Services carry it (SEL-04).
pub(crate) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// When the pods last changed of which a slice tells (EPS-20).
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Converts an EndpointSlice.
pub(crate) fn slice(object: &objects::EndpointSlice) -> Parsed<Slice> {
    let key = slice_key(&object.metadata);
    let mut problems = ObjectProblems::new(format!("EndpointSlice {key}"));
    let labels = object.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get(SERVICE_LABEL)).filter(|s| !s.is_empty());
    let family = match object.address_type.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    };
    let verdict = if has_label(&object.metadata, HEADLESS_LABEL) {
        Verdict::Ignore
    } else if let (Some(service), Some(family)) = (service, family) {
        Verdict::Use(Slice {
            name: key.clone(),
            service: service.clone(),
            family,
            ports: ports(object.ports.as_deref().unwrap_or_default(), &mut problems),
            endpoints: endpoints(
                object.endpoints.as_deref().unwrap_or_default(),
                family,
                &mut problems,
            ),
            triggered: triggered(&object.metadata, &mut problems),
        })
    } else {
        // Without a Service it is another controller's business (EPS-01).
        if service.is_some() {
            problems.add(
                format!("has the addressType {:?}, it is left out", object.address_type),
                "use IPv4 or IPv6",
            );
        }
        Verdict::Ignore
    };
    Parsed { key, verdict, problems: problems.list }
}

fn triggered(metadata: &ObjectMeta, problems: &mut ObjectProblems) -> Option<i64> {
    let text = metadata.annotations.as_ref()?.get(TRIGGER_ANNOTATION)?;
    let time = text.parse::<Timestamp>();
    if time.is_err() {
        problems.add(
            format!(
                "annotation {TRIGGER_ANNOTATION} is {text:?}, which is no time; it is not counted"
            ),
            "write a time like 2026-01-31T12:00:00.5Z",
        );
    }
    time.ok().map(Timestamp::as_microsecond)
}

fn ports(ports: &[objects::EndpointPort], problems: &mut ObjectProblems) -> Vec<SlicePort> {
    let mut good = Vec::new();
    for port in ports {
        let Some(name) = port.name.clone() else {
            problems
                .add("has a port without a name, it is left out", "name it as the Service does");
            continue;
        };
        let Some(number) = port.port.and_then(port_number) else {
            let number =
                port.port.map_or_else(|| "no number".to_owned(), |n| format!("number {n}"));
            problems.add(
                format!("port {name:?} has {number}, it is left out"),
                "use a port from 1 to 65535",
            );
            continue;
        };
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            problems.add(
                format!(
                    "port {name:?} has the unknown protocol {:?}, it is left out",
                    port.protocol.as_deref().unwrap_or_default()
                ),
                "use TCP, UDP or SCTP",
            );
            continue;
        };
        good.push(SlicePort { name, protocol, port: number });
    }
    good
}

fn endpoints(
    endpoints: &[objects::Endpoint],
    family: Family,
    problems: &mut ObjectProblems,
) -> Vec<Endpoint> {
    endpoints.iter().filter_map(|endpoint| convert_endpoint(endpoint, family, problems)).collect()
}

fn convert_endpoint(
    endpoint: &objects::Endpoint,
    family: Family,
    problems: &mut ObjectProblems,
) -> Option<Endpoint> {
    let Some(text) = endpoint.addresses.first() else {
        problems.add("has an endpoint without an address, it is left out", "give it an address");
        return None;
    };
    let Some(addr) = parse_ip(text) else {
        problems.add(
            format!("endpoint {text:?} is no IP address, it is left out"),
            "write an IPv4 or IPv6 address",
        );
        return None;
    };
    if Family::of(&addr) != family {
        problems.add(
            format!("endpoint {text} is no IPv{} address, it is left out", family.number()),
            "keep the families in slices of their own, as addressType says",
        );
        return None;
    }
    if let Some(why) = unusable(&addr) {
        problems.add(
            format!("endpoint {text} {why}, it is left out"),
            "use the address of a pod or a node",
        );
        return None;
    }
    let conditions = endpoint.conditions.as_ref();
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
    Some(Endpoint {
        addr,
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        node: endpoint.node_name.as_deref().map(Box::from),
        zone_hints: zones.iter().map(|zone| Box::from(zone.name.as_str())).collect(),
        node_hints: nodes.iter().map(|node| Box::from(node.name.as_str())).collect(),
    })
}
