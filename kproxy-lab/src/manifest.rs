//! Kubernetes objects for labs. There are no controllers in a lab: EndpointSlices and Nodes are
//! written like everything else.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use json_patch::merge;
use serde_json::{Value, json};

use crate::layout::Family;
use crate::place::Place;

/// Objects as one YAML text of several documents.
///
/// # Errors
/// When an object cannot be written as YAML.
pub fn yaml(objects: impl IntoIterator<Item = impl Into<Value>>) -> Result<String> {
    let mut text = String::new();
    for object in objects {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text += &serde_saphyr::to_string(&object.into()).context("write an object as YAML")?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// A Service in namespace `default`, dual stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service(Value);

impl Service {
    /// A Service of type ClusterIP without ports.
    pub fn new(name: &str) -> Self {
        Self(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "type": "ClusterIP",
                "ipFamilies": ["IPv4", "IPv6"],
                "ipFamilyPolicy": "RequireDualStack",
                "ports": [],
            },
        }))
    }

    /// The ClusterIPs, one a family. Needed without an API server, which gives them out otherwise.
    #[must_use]
    pub fn cluster_ips(self, v4: &str, v6: &str) -> Self {
        self.spec(json!({"clusterIP": v4, "clusterIPs": [v4, v6]}))
    }

    /// Type NodePort, LoadBalancer, ….
    #[must_use]
    pub fn of_type(self, kind: &str) -> Self {
        self.spec(json!({"type": kind}))
    }

    /// Adds a port; `protocol` is TCP, UDP or SCTP. Endpoints are found by the port's name.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: &str, port: u16, target: u16) -> Self {
        let port = json!({"name": name, "protocol": protocol, "port": port, "targetPort": target});
        self.ports().push(port);
        self
    }

    /// Gives the port added last a NodePort.
    #[must_use]
    pub fn node_port(mut self, node_port: u16) -> Self {
        if let Some(port) = self.ports().last_mut() {
            port["nodePort"] = node_port.into();
        }
        self
    }

    /// Adds fields to the spec, or replaces them (JSON merge patch, RFC 7396).
    #[must_use]
    pub fn spec(mut self, fields: Value) -> Self {
        merge(&mut self.0["spec"], &fields);
        self
    }

    /// Adds labels, annotations or other metadata, or replaces them (JSON merge patch).
    #[must_use]
    pub fn metadata(mut self, fields: Value) -> Self {
        merge(&mut self.0["metadata"], &fields);
        self
    }

    fn ports(&mut self) -> &mut Vec<Value> {
        array(&mut self.0["spec"]["ports"])
    }
}

impl From<Service> for Value {
    fn from(service: Service) -> Self {
        service.0
    }
}

/// An EndpointSlice in namespace `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice(Value);

impl Slice {
    /// The slice of a Service for one family, without ports and endpoints. It is called
    /// `SERVICE-v4` or `SERVICE-v6`.
    pub fn of(service: &str, family: Family) -> Self {
        let (suffix, kind) = match family {
            Family::V4 => ("v4", "IPv4"),
            Family::V6 => ("v6", "IPv6"),
        };
        Self(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{suffix}"),
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": kind,
            "ports": [],
            "endpoints": [],
        }))
    }

    /// Adds a port of the endpoints; its name is that of the Service's port.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: &str, port: u16) -> Self {
        let port = json!({"name": name, "protocol": protocol, "port": port});
        array(&mut self.0["ports"]).push(port);
        self
    }

    /// Adds a ready endpoint: a pod of the lab, or the host of a node.
    #[must_use]
    pub fn pod(self, place: &Place) -> Self {
        self.pod_with(place, json!({"ready": true, "serving": true, "terminating": false}))
    }

    /// Adds an endpoint with conditions of its own.
    #[must_use]
    pub fn pod_with(self, place: &Place, conditions: Value) -> Self {
        let v6 = self.0["addressType"] == "IPv6";
        let ip = place.ip(if v6 { Family::V6 } else { Family::V4 });
        let node = place.name().split('/').next().unwrap_or_default().to_owned();
        self.endpoint(ip, &node, conditions)
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn endpoint(mut self, ip: IpAddr, node: &str, conditions: Value) -> Self {
        let endpoint =
            json!({"addresses": [ip.to_string()], "nodeName": node, "conditions": conditions});
        array(&mut self.0["endpoints"]).push(endpoint);
        self
    }

    /// Adds labels, annotations or other metadata, or replaces them (JSON merge patch).
    #[must_use]
    pub fn metadata(mut self, fields: Value) -> Self {
        merge(&mut self.0["metadata"], &fields);
        self
    }
}

impl From<Slice> for Value {
    fn from(slice: Slice) -> Self {
        slice.0
    }
}

/// The slices of a Service for both families with the same pods, ready, on one port.
pub fn slices(
    service: &str,
    port_name: &str,
    protocol: &str,
    port: u16,
    pods: &[&Place],
) -> [Slice; 2] {
    Family::ALL.map(|family| {
        let slice = Slice::of(service, family).port(port_name, protocol, port);
        pods.iter().fold(slice, |slice, pod| slice.pod(pod))
    })
}

/// The Node object of a lab's node, with its addresses and pod ranges.
pub fn node(place: &Place) -> Value {
    let addresses: Vec<Value> = place
        .addresses()
        .both()
        .iter()
        .map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}))
        .chain([json!({"type": "Hostname", "address": place.name()})])
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": place.name(),
            "labels": {"kubernetes.io/hostname": place.name()},
        },
        "status": {"addresses": addresses},
    })
}

/// The Pod object of a lab's pod, running, with its addresses.
pub fn pod(namespace: &str, place: &Place) -> Value {
    let (node, name) = place.name().split_once('/').unwrap_or(("", place.name()));
    let ips: Vec<Value> =
        place.addresses().both().iter().map(|ip| json!({"ip": ip.to_string()})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": format!("{node}-{name}")},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "agent", "image": "agent"}],
        },
        "status": {"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips},
    })
}

fn array(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(array) => array,
        _ => unreachable!("made an array above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_written_as_yaml_and_read_again() {
        let service = Service::new("web")
            .cluster_ips("10.96.0.10", "fd00:10:96::10")
            .of_type("NodePort")
            .port("http", "TCP", 80, 8080)
            .node_port(30_080)
            .spec(json!({"externalTrafficPolicy": "Local"}))
            .metadata(json!({"annotations": {"a": "b"}}));
        let text = yaml([service.clone().into(), Slice::of("web", Family::V6).0]).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(documents[0], service.0);
        assert_eq!(documents[0]["spec"]["ports"][0]["nodePort"], 30_080);
        assert_eq!(documents[0]["metadata"]["name"], "web");
        assert_eq!(documents[1]["metadata"]["labels"]["kubernetes.io/service-name"], "web");
    }
}
