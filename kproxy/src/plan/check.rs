//! What is wrong between a Service and its EndpointSlices.

use std::collections::BTreeSet;

use crate::model::{Problem, Service, ServicePort, Slice};

/// Problems that show only when a Service and its slices are seen together. They never stop the
/// plan.
pub(crate) fn check_service<'s>(
    service: &Service,
    slices: impl Iterator<Item = &'s Slice> + Clone,
) -> Vec<Problem> {
    let object = format!("Service {}", service.name);
    let mut problems = Vec::new();
    // A slice without endpoints has no ports either: the EndpointSlice controller keeps such a
    // placeholder while no pod matches.
    let used = slices.filter(|slice| !slice.endpoints.is_empty());
    if used.clone().next().is_some() {
        for port in &service.ports {
            let fits = |slice: &Slice| {
                slice.ports.iter().any(|p| p.name == port.name && p.protocol == port.protocol)
            };
            if !used.clone().any(fits) {
                problems.push(unmatched(&object, port, used.clone()));
            }
        }
    }
    problems
}

fn unmatched<'s>(
    object: &str,
    port: &ServicePort,
    slices: impl Iterator<Item = &'s Slice>,
) -> Problem {
    let quoted = |name: &str, protocol: crate::model::Protocol| {
        if name.is_empty() {
            format!("the unnamed port/{}", protocol.name())
        } else {
            format!("{name:?}/{}", protocol.name())
        }
    };
    let there: BTreeSet<_> = slices
        .flat_map(|slice| &slice.ports)
        .map(|port| quoted(&port.name, port.protocol))
        .collect();
    let there = if there.is_empty() {
        "no port at all".to_owned()
    } else {
        there.into_iter().collect::<Vec<_>>().join(", ")
    };
    Problem::new(
        object,
        format!(
            "port {} ({}) has no endpoints: none of its EndpointSlices has a port of that name \
             and protocol (they have {there})",
            port.port,
            quoted(&port.name, port.protocol),
        ),
        "give the Service port and the EndpointSlice port the same name and protocol",
    )
}
