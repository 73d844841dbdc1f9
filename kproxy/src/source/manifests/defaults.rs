//! What the API server would have filled in, and a word on what only it can give.
//!
//! Follows kubernetes `pkg/apis/core/v1/defaults.go`, `pkg/apis/discovery/v1/defaults.go` and
//! `pkg/registry/core/service/storage/alloc.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::Problem;
use crate::source::convert::{PROXY_NAME_LABEL, service_key};
use crate::source::objects;

/// `metadata.namespace`.
pub(super) fn namespace(meta: &mut ObjectMeta) {
    if meta.namespace.as_deref().is_none_or(str::is_empty) {
        meta.namespace = Some("default".to_owned());
    }
}

/// Fills in a Service and reports what an API server would have allocated. Types, policies,
/// protocols and the affinity timeout need nothing here: the conversion takes what is missing for
/// what the API server would write.
pub(super) fn service(service: &mut objects::Service) -> Vec<Problem> {
    namespace(&mut service.metadata);
    let key = service_key(&service.metadata);
    let foreign =
        service.metadata.labels.as_ref().is_some_and(|l| l.contains_key(PROXY_NAME_LABEL));
    let Some(spec) = service.spec.as_mut() else { return Vec::new() };
    if foreign || spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    if spec.cluster_ip.as_deref().is_none_or(str::is_empty) {
        spec.cluster_ip = spec.cluster_ips.as_ref().and_then(|ips| ips.first()).cloned();
    }
    let problem = |what: &str, remedy: &str| Problem::new(format!("Service {key}"), what, remedy);
    let mut problems = Vec::new();
    match spec.cluster_ip.as_deref() {
        None | Some("") => problems.push(problem(
            "has no clusterIP, it is left out: a folder of manifests has nobody who gives one out",
            "write spec.clusterIP (\"None\" for a headless Service)",
        )),
        Some("None") => return Vec::new(),
        Some(_) => {}
    }
    if spec.ports.as_ref().is_none_or(Vec::is_empty) {
        problems.push(problem("has no ports, it is left out", "write spec.ports"));
    }
    let wants_node_ports = match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    };
    let without = |port: &&objects::ServicePort| port.node_port.unwrap_or(0) == 0;
    for port in spec.ports.iter().flatten().filter(|_| wants_node_ports).filter(without) {
        problems.push(problem(
            &format!(
                "port {} has no nodePort and is not served on the node's addresses: a folder of \
                 manifests has nobody who gives one out",
                port.port
            ),
            "write spec.ports[].nodePort",
        ));
    }
    problems
}

/// Fills in an EndpointSlice.
pub(super) fn slice(slice: &mut objects::EndpointSlice) {
    namespace(&mut slice.metadata);
    for port in slice.ports.iter_mut().flatten() {
        port.name.get_or_insert_default();
    }
}
