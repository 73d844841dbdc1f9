//! The demo's Services: one of each kind.

use anyhow::Result;
use kproxy_lab::{
    Family, Lab, POD_PORT, Place,
    manifest::{Service, slices, yaml},
};
use serde_json::{Value, json};

use super::title::title;

/// File of the manifests.
pub(super) const FILE: &str = "demo.yaml";
/// Addresses from outside the cluster, and the ranges that they are in.
const OUTSIDE: [(&str, &str); 2] =
    [("203.0.113", "203.0.113.0/24"), ("2001:db8:113:", "2001:db8:113::/64")];

/// One Service of the demo.
pub(super) struct Example {
    /// Name of the Service.
    pub(super) name: &'static str,
    /// What kind it is, in words.
    pub(super) kind: &'static str,
    /// Last part of its ClusterIPs.
    host: u8,
    /// Its port.
    pub(super) port: u16,
    /// Its NodePort, if it has one.
    pub(super) node_port: Option<u16>,
    /// Last part of its address from outside, if it has one.
    outside: Option<u8>,
    /// TCP or UDP.
    pub(super) protocol: &'static str,
    /// The pods that answer.
    pub(super) pods: &'static [&'static str],
    /// Further fields of its spec.
    spec: fn() -> Value,
}

const ALL: &[&str] = &["n1/a", "n1/b", "n2/a", "n2/b"];

/// The Services.
pub(super) const EXAMPLES: [Example; 7] = [
    example("web", "ClusterIP", 10, ALL),
    Example {
        protocol: "UDP",
        port: 53,
        ..example("dns", "ClusterIP, UDP", 53, &["n1/a", "n2/a"])
    },
    Example {
        node_port: Some(30080),
        spec: || json!({"type": "NodePort"}),
        ..example("shop", "NodePort", 20, &["n1/a", "n2/a"])
    },
    Example {
        node_port: Some(30081),
        spec: || json!({"type": "NodePort", "externalTrafficPolicy": "Local"}),
        ..example("local", "NodePort, policy Local", 21, &["n1/a"])
    },
    Example {
        outside: Some(30),
        spec: || json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}),
        ..example("lb", "LoadBalancer", 30, &["n1/b", "n2/b"])
    },
    Example { outside: Some(40), ..example("old", "externalIPs", 40, &["n2/a"]) },
    Example {
        node_port: Some(30082),
        spec: || json!({"type": "NodePort"}),
        ..example("none", "no endpoints", 50, &[])
    },
];

const fn example(
    name: &'static str,
    kind: &'static str,
    host: u8,
    pods: &'static [&'static str],
) -> Example {
    let spec = || json!({"type": "ClusterIP"});
    let (port, protocol) = (80, "TCP");
    Example { name, kind, host, port, node_port: None, outside: None, protocol, pods, spec }
}

impl Example {
    /// The ClusterIP of a family.
    pub(super) fn cluster_ip(&self, family: Family) -> String {
        match family {
            Family::V4 => format!("10.96.0.{}", self.host),
            Family::V6 => format!("fd00:10:96::{}", self.host),
        }
    }

    /// The address from outside of a family.
    pub(super) fn outside(&self, family: Family) -> Option<String> {
        let host = self.outside?;
        Some(match family {
            Family::V4 => format!("{}.{host}", OUTSIDE[0].0),
            Family::V6 => format!("{}:{host}", OUTSIDE[1].0),
        })
    }

    /// The Service and its slices with these pods.
    fn objects(&self, lab: &Lab, pods: &[&str]) -> Result<Vec<Value>> {
        let [v4, v6] = Family::ALL.map(|family| self.cluster_ip(family));
        let mut service = Service::new(self.name)
            .cluster_ips(&v4, &v6)
            .port("main", self.protocol, self.port, POD_PORT)
            .spec((self.spec)());
        if let Some(port) = self.node_port {
            service = service.node_port(port);
        }
        let addresses: Vec<String> =
            Family::ALL.iter().filter_map(|&family| self.outside(family)).collect();
        if self.kind == "externalIPs" {
            service = service.spec(json!({"externalIPs": addresses}));
        }
        let mut service = Value::from(service);
        if self.kind == "LoadBalancer" {
            let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            service["status"] = json!({"loadBalancer": {"ingress": ingress}});
        }
        let places: Vec<_> = pods.iter().map(|name| lab.place(name)).collect::<Result<_>>()?;
        let places: Vec<&Place> = places.iter().map(AsRef::as_ref).collect();
        let slices = slices(self.name, "main", self.protocol, POD_PORT, &places);
        Ok([service].into_iter().chain(slices.into_iter().map(Value::from)).collect())
    }
}

/// A Service of the demo by its name.
pub(super) fn find(name: &str) -> &'static Example {
    // The names are constants of this module's callers; the first stands in for a wrong one.
    EXAMPLES.iter().find(|example| example.name == name).unwrap_or(&EXAMPLES[0])
}

/// Writes all manifests.
pub(super) fn write(lab: &Lab) -> Result<()> {
    write_scaled(lab, "", &[])
}

/// Writes all manifests, with these pods for one Service.
pub(super) fn write_scaled(lab: &Lab, name: &str, pods: &[&str]) -> Result<()> {
    let mut objects = Vec::new();
    for example in &EXAMPLES {
        let pods = if example.name == name { pods } else { example.pods };
        objects.extend(example.objects(lab, pods)?);
    }
    lab.write_manifest(FILE, &yaml(objects)?)
}

/// Sends the addresses from outside to n1, as a load balancer or a router of the site would.
pub(super) fn route_outside_addresses(lab: &Lab) -> Result<()> {
    for (family, (_, range)) in Family::ALL.iter().zip(OUTSIDE) {
        let via = lab.node("n1").ip(*family).to_string();
        lab.router().run("ip", &["route", "add", range, "via", &via])?;
    }
    Ok(())
}

/// Prints what was written.
pub(super) fn list(lab: &Lab) {
    title("A Service of each kind, from manifests");
    println!("{}\n", lab.manifests().join(FILE).display());
    println!("{:<7} {:<23} {:<19} ENDPOINTS", "NAME", "KIND", "DIAL");
    for example in &EXAMPLES {
        let dial = match (example.node_port, example.outside(Family::V4)) {
            (Some(port), _) => format!("<node>:{port}"),
            (None, Some(address)) => format!("{address}:{}", example.port),
            (None, None) => format!("{}:{}", example.cluster_ip(Family::V4), example.port),
        };
        let pods = if example.pods.is_empty() { "none".into() } else { example.pods.join(" ") };
        println!("{:<7} {:<23} {dial:<19} {pods}", example.name, example.kind);
    }
}
