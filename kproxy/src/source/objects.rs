//! What kproxy reads of Kubernetes objects: the fields that it needs, named as in the API (k8s.io/api
//! `core/v1`, `discovery/v1`, `networking/v1`). Whatever else an object has is skipped unread: the API
//! server stores more than its own types allow (a condition without a time), and newer ones add fields.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Types of this module, with their fields: each may be missing or null.
macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(crate) struct $name {
            $($(#[$field_doc])* #[serde(deserialize_with = "or_default")] pub(crate) $field: $type,)*
        }
    )*};
}

/// Objects that are watched: the same with metadata, and the kind whose name and place they have.
macro_rules! watched {
    ($($(#[$doc:meta])* $name:ident of $of:ty { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(crate) struct $name {
            #[serde(deserialize_with = "metadata")]
            pub(crate) metadata: ObjectMeta,
            $(#[serde(deserialize_with = "or_default")] pub(crate) $field: $type,)*
        }

        impl Resource for $name {
            type DynamicType = ();
            type Scope = <$of as Resource>::Scope;

            fn kind((): &()) -> Cow<'_, str> {
                <$of>::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                <$of>::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                <$of>::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                <$of>::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    )*};
}

watched! {
    /// A Service.
    Service of core::Service { spec: Option<ServiceSpec>, status: Option<ServiceStatus>, }
    /// An EndpointSlice.
    EndpointSlice of discovery::EndpointSlice {
        address_type: String,
        endpoints: Option<Vec<Endpoint>>,
        ports: Option<Vec<EndpointPort>>,
    }
    /// A Node.
    Node of core::Node { spec: Option<NodeSpec>, status: Option<NodeStatus>, }
    /// A Pod.
    Pod of core::Pod { spec: Option<PodSpec>, status: Option<PodStatus>, }
    /// A ServiceCIDR.
    ServiceCIDR of networking::ServiceCIDR { spec: Option<ServiceCIDRSpec>, }
}

objects! {
    /// `spec` of a Service.
    ServiceSpec {
        allocate_load_balancer_node_ports: Option<bool>,
        #[serde(rename = "clusterIP")]
        cluster_ip: Option<String>,
        #[serde(rename = "clusterIPs")]
        cluster_ips: Option<Vec<String>>,
        #[serde(rename = "externalIPs")]
        external_ips: Option<Vec<String>>,
        external_traffic_policy: Option<String>,
        health_check_node_port: Option<i32>,
        internal_traffic_policy: Option<String>,
        load_balancer_source_ranges: Option<Vec<String>>,
        ports: Option<Vec<ServicePort>>,
        session_affinity: Option<String>,
        session_affinity_config: Option<SessionAffinityConfig>,
        #[serde(rename = "type")]
        type_: Option<String>,
    }
    /// A port of a Service.
    ServicePort {
        name: Option<String>,
        node_port: Option<i32>,
        port: i32,
        protocol: Option<String>,
    }
    /// How long clients stay with a backend.
    SessionAffinityConfig {
        #[serde(rename = "clientIP")]
        client_ip: Option<ClientIPConfig>,
    }
    /// The same for `ClientIP`.
    ClientIPConfig { timeout_seconds: Option<i32>, }
    /// `status` of a Service.
    ServiceStatus { load_balancer: Option<LoadBalancerStatus>, }
    /// Where a load balancer is to be found.
    LoadBalancerStatus { ingress: Option<Vec<LoadBalancerIngress>>, }
    /// One address of it.
    LoadBalancerIngress { ip: Option<String>, ip_mode: Option<String>, }
    /// An endpoint.
    Endpoint {
        addresses: Vec<String>,
        conditions: Option<EndpointConditions>,
        hints: Option<EndpointHints>,
        node_name: Option<String>,
    }
    /// What it is good for.
    EndpointConditions { ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>, }
    /// Whom it is meant for.
    EndpointHints { for_nodes: Option<Vec<Named>>, for_zones: Option<Vec<Named>>, }
    /// A node or zone.
    Named { name: String, }
    /// A port of an EndpointSlice.
    EndpointPort { name: Option<String>, port: Option<i32>, protocol: Option<String>, }
    /// `spec` of a Node.
    NodeSpec { taints: Option<Vec<Taint>>, }
    /// A mark that keeps pods away.
    Taint { key: String, }
    /// `status` of a Node.
    NodeStatus { addresses: Option<Vec<NodeAddress>>, }
    /// An address of a Node.
    NodeAddress {
        address: String,
        #[serde(rename = "type")]
        type_: String,
    }
    /// `spec` of a Pod.
    PodSpec { host_network: Option<bool>, node_name: Option<String>, }
    /// `status` of a Pod.
    PodStatus {
        phase: Option<String>,
        #[serde(rename = "podIP")]
        pod_ip: Option<String>,
        #[serde(rename = "podIPs")]
        pod_ips: Option<Vec<PodIP>>,
    }
    /// An address of a Pod.
    PodIP { ip: String, }
    /// `spec` of a ServiceCIDR.
    ServiceCIDRSpec { cidrs: Option<Vec<String>>, }
}

/// Null is as good as nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// What is needed of metadata; what the watch itself needs is the resource version.
fn metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Metadata {
        name: Option<String>,
        namespace: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        resource_version: Option<String>,
        /// Only settles who of two has a frontend: one that cannot be read counts as none.
        creation_timestamp: Option<Value>,
        /// Only whether there is one counts, for a Node.
        deletion_timestamp: Option<Value>,
    }
    let read = Option::<Metadata>::deserialize(from)?.unwrap_or_default();
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        labels: read.labels,
        annotations: read.annotations,
        resource_version: read.resource_version,
        creation_timestamp: read.creation_timestamp.and_then(|time| Time::deserialize(time).ok()),
        deletion_timestamp: read.deletion_timestamp.and_then(|time| Time::deserialize(time).ok()),
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_nobody_needs_never_matter() {
        let service: Service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "web", "namespace": null, "resourceVersion": "7", "generation": "many",
                "creationTimestamp": "yesterday", "managedFields": "none", "ownerReferences": {},
            },
            "spec": {
                "clusterIP": "10.96.0.1", "clusterIPs": null, "selector": 5, "newField": [{}],
                "ports": [{"port": 80, "targetPort": {}, "appProtocol": 1, "name": null}],
            },
            "status": {
                "conditions": [{"type": "Ready", "lastTransitionTime": null}],
                "loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ports": "all"}]},
            },
        }))
        .unwrap();
        assert_eq!(service.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(service.metadata.creation_timestamp, None);
        assert_eq!(service.spec.unwrap().ports.unwrap()[0].port, 80);
        assert!(service.status.unwrap().load_balancer.unwrap().ingress.is_some());

        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": null, "addressType": "IPv4", "ports": null,
            "endpoints": [{
                "addresses": null, "conditions": null, "targetRef": 1, "deprecatedTopology": "",
                "hints": {"forZones": null, "forNodes": [{"name": null}]}, "nodeName": null,
            }],
        }))
        .unwrap();
        assert_eq!(slice.endpoints.unwrap()[0].addresses, [""; 0]);

        let node = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "conditions": [{"lastHeartbeatTime": null}], "images": "none", "capacity": [],
        }});
        let node: Node = serde_json::from_value(node).unwrap();
        assert_eq!(node.status.unwrap().addresses.unwrap().len(), 1);
        let pod = json!({"spec": {"containers": 3}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
        serde_json::from_value::<Pod>(pod).unwrap();
    }

    #[test]
    fn fields_that_are_needed_must_be_what_they_say() {
        for spec in
            [json!({"ports": [{"port": "eighty"}]}), json!({"ports": 80}), json!({"clusterIP": 1})]
        {
            let object = json!({"metadata": {"name": "web"}, "spec": spec});
            assert!(serde_json::from_value::<Service>(object).is_err(), "{spec}");
        }
    }

    #[test]
    fn kinds_are_those_of_the_api() {
        assert_eq!(Service::api_version(&()), "v1");
        assert_eq!(
            EndpointSlice::url_path(&(), Some("a")),
            "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices"
        );
        assert_eq!(ServiceCIDR::url_path(&(), None), "/apis/networking.k8s.io/v1/servicecidrs");
    }
}
