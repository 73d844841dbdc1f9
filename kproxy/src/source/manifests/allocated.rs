//! What the API server has given to a Service, and keeps when the Service is written again without it.
//!
//! Follows `patchAllocatedValues` in kubernetes `pkg/registry/core/service/storage/storage.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::model::{Protocol, Service};

/// What a Service has been given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Allocated {
    /// Cluster IPs.
    pub cluster_ips: Vec<IpAddr>,
    /// NodePorts, by protocol and port.
    pub node_ports: BTreeMap<(Protocol, u16), u16>,
    /// Load-balancer addresses: they are in the status, which nobody writes with the rest.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
    /// When it was made, in seconds since 1970.
    pub created: Option<i64>,
}

impl Allocated {
    /// What this Service has.
    pub(crate) fn of(service: &Service) -> Self {
        let node_port = |port: &crate::model::ServicePort| {
            Some(((port.protocol, port.port.get()), port.node_port?.get()))
        };
        Self {
            cluster_ips: service.cluster_ips.clone(),
            node_ports: service.ports.iter().filter_map(node_port).collect(),
            load_balancer_ips: service.load_balancer_ips.clone(),
            health_check_node_port: service.health_check_node_port.map(Into::into),
            created: service.created,
        }
    }

    /// Fills in what the object lacks of it.
    pub(super) fn fill(&self, object: &mut Value) {
        let is_empty = |value: Option<&Value>| match value {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Number(number)) => number.as_u64() == Some(0),
            Some(_) => false,
        };
        if let Some(at) = self.created.and_then(|at| Timestamp::from_second(at).ok())
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.entry("creationTimestamp").or_insert_with(|| json!(at.to_string()));
        }
        if !self.load_balancer_ips.is_empty()
            && is_empty(object.pointer("/status/loadBalancer/ingress"))
            && let Some(object) = object.as_object_mut()
        {
            let ingress: Vec<_> =
                self.load_balancer_ips.iter().map(|ip| json!({"ip": ip})).collect();
            object.insert("status".to_owned(), json!({"loadBalancer": {"ingress": ingress}}));
        }
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
        let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if kind == "ExternalName" {
            return;
        }
        if let Some(first) = self.cluster_ips.first() {
            if is_empty(spec.get("clusterIP")) && is_empty(spec.get("clusterIPs")) {
                spec.insert("clusterIP".to_owned(), json!(first));
            }
            if is_empty(spec.get("clusterIPs")) && spec.get("clusterIP") == Some(&json!(first)) {
                spec.insert("clusterIPs".to_owned(), json!(self.cluster_ips));
            }
        }
        if let Some(port) = self.health_check_node_port.filter(|_| kind == "LoadBalancer") {
            spec.entry("healthCheckNodePort").or_insert_with(|| json!(port));
        }
        let has_node_ports = kind == "NodePort"
            || kind == "LoadBalancer"
                && spec.get("allocateLoadBalancerNodePorts") != Some(&json!(false));
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        let ports = ports.into_iter().flatten().filter(|_| has_node_ports);
        for port in ports.filter_map(Value::as_object_mut) {
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
                .into_iter()
                .find(|of| of.name() == protocol);
            let number = port.get("port").and_then(Value::as_u64).and_then(|n| n.try_into().ok());
            let Some(key) = protocol.zip(number) else { continue };
            if let Some(node_port) = self.node_ports.get(&key)
                && is_empty(port.get("nodePort"))
            {
                port.insert("nodePort".to_owned(), json!(node_port));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_stays_and_what_is_written_counts() {
        let given = Allocated {
            cluster_ips: ["10.96.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()).into(),
            node_ports: [((Protocol::Tcp, 80), 30_080), ((Protocol::Udp, 53), 30_053)].into(),
            load_balancer_ips: vec!["192.0.2.1".parse().unwrap()],
            health_check_node_port: Some(31_000),
            created: Some(0),
        };
        let mut object = json!({"metadata": {}, "spec": {"type": "LoadBalancer", "ports": [
            {"port": 80}, {"port": 53, "protocol": "UDP", "nodePort": 30_099}, {"port": 81}]}});
        given.fill(&mut object);
        assert_eq!(
            object,
            json!({
                "metadata": {"creationTimestamp": "1970-01-01T00:00:00Z"},
                "spec": {
                    "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
                    "healthCheckNodePort": 31_000,
                    "ports": [{"port": 80, "nodePort": 30_080}, {"port": 53, "protocol": "UDP", "nodePort": 30_099}, {"port": 81}],
                },
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
            })
        );
        for spec in [
            json!({"clusterIP": "10.96.0.2", "ports": [{"port": 80}]}),
            json!({"clusterIP": "None", "type": "ClusterIP"}),
            json!({"type": "ExternalName"}),
        ] {
            let mut object = json!({"metadata": {}, "spec": spec});
            given.fill(&mut object);
            assert_eq!(object["spec"], spec);
        }
    }
}
