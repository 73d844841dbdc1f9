//! The objects that a case makes, changes and deletes.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kproxy_lab::{Family, manifest::Slice, poll_until};
use serde_json::{Value, json};

use super::{
    stage::Stage,
    step::{self, Endpoint, EndpointWith},
};

/// How long another case may hold a NodePort.
const NODE_PORT_PATIENCE: Duration = Duration::from_secs(60);

/// Where the cases' objects are.
const NAMESPACE: &str = "default";

impl Stage<'_> {
    pub(super) fn service(&mut self, service: &step::Service) -> Result<()> {
        let name = &service.service;
        let base = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "ipFamilyPolicy": "RequireDualStack",
                "ipFamilies": ["IPv4", "IPv6"],
                "ports": [{"name": "web", "port": 80}],
            },
        });
        let patch = json!({
            "spec": service.spec, "metadata": service.metadata, "status": service.status,
        });
        let made = self.change("Service", name, base, patch)?;
        let ips = made["spec"]["clusterIPs"].as_array().into_iter().flatten();
        let ips = ips.filter_map(|ip| ip.as_str()?.parse().ok()).collect::<Vec<_>>();
        self.names.set(name, ips);
        Ok(())
    }

    pub(super) fn endpoints(&mut self, endpoints: &step::Endpoints) -> Result<()> {
        let service = &endpoints.endpoints;
        let part = endpoints.slice.as_ref().map(|part| format!("-{part}")).unwrap_or_default();
        let left_out = match &endpoints.except {
            Some(name) => Some(self.names.remembered(name)?.to_owned()),
            None => None,
        };
        let ports = match &endpoints.ports {
            Some(ports) => ports.clone(),
            None => self.ports_of(service)?,
        };
        for (family, suffix) in [(Family::V4, "v4"), (Family::V6, "v6")] {
            if endpoints.family.as_ref().is_some_and(|only| only != suffix) {
                continue;
            }
            let mut slice = Slice::of(service, family);
            let mut all_hints = Vec::new();
            for endpoint in &endpoints.of {
                let (place, conditions, hints) = self.endpoint(endpoint)?;
                if left_out.as_ref() != Some(&place) {
                    slice = slice.pod_with(&*self.world.lab.place(&place)?, conditions);
                    all_hints.push(hints);
                }
            }
            let mut object = Value::from(slice);
            for (index, hints) in all_hints.into_iter().enumerate() {
                if !hints.is_null() {
                    object["endpoints"][index]["hints"] = hints;
                }
            }
            let name = format!("{service}{part}-{suffix}");
            object["metadata"]["name"] = name.clone().into();
            let patch = json!({
                "ports": ports,
                "endpoints": object["endpoints"],
                "metadata": endpoints.metadata,
            });
            self.change("EndpointSlice", &name, object, patch)?;
        }
        Ok(())
    }

    /// The Service's ports as its endpoints have them.
    fn ports_of(&self, service: &str) -> Result<Vec<Value>> {
        let key = ("Service".to_owned(), service.to_owned());
        let object = self.objects.get(&key).with_context(|| format!("no Service {service}"))?;
        let ports = object["spec"]["ports"].as_array().into_iter().flatten();
        let slice_port = |port: &Value| {
            let name = port["name"].as_str().unwrap_or_default();
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            json!({"name": name, "protocol": protocol, "port": kproxy_lab::POD_PORT})
        };
        Ok(ports.map(slice_port).collect())
    }

    /// An endpoint's place, conditions and hints.
    fn endpoint(&self, endpoint: &Endpoint) -> Result<(String, Value, Value)> {
        let plain;
        let with = match endpoint {
            Endpoint::With(with) => with,
            Endpoint::Place(place) => {
                let place = place.clone();
                let (for_nodes, for_zones) = (Vec::new(), Vec::new());
                plain = EndpointWith { place, conditions: None, for_nodes, for_zones };
                &plain
            }
        };
        let text = self.names.fill_in(&with.place)?;
        let (place, state) = text.split_once(' ').unwrap_or((&text, "ready"));
        let (ready, serving, terminating) = match state {
            "ready" => (true, true, false),
            "unready" => (false, false, false),
            "terminating" => (false, true, true),
            "ended" => (false, false, true),
            _ => bail!("no state of an endpoint: {state}"),
        };
        let usual = json!({"ready": ready, "serving": serving, "terminating": terminating});
        let conditions = with.conditions.clone().unwrap_or(usual);
        let mut hints = Value::Null;
        for (key, names) in [("forNodes", &with.for_nodes), ("forZones", &with.for_zones)] {
            if !names.is_empty() {
                let names = names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
                hints[key] = names.into();
            }
        }
        Ok((place.to_owned(), conditions, hints))
    }

    pub(super) fn apply(&mut self, apply: &step::Apply) -> Result<()> {
        for object in &apply.apply {
            let mut object = object.clone();
            self.names.fill_in_all(&mut object)?;
            let part = |pointer: &str| {
                let text = object.pointer(pointer).and_then(Value::as_str);
                text.map(str::to_owned).with_context(|| format!("no {pointer} in {object}"))
            };
            let kind = format!("{}/{}", part("/apiVersion")?, part("/kind")?);
            let name = part("/metadata/name")?;
            self.send(&object)?;
            self.objects.insert((kind, name), object);
        }
        Ok(())
    }

    /// Makes an object from `base` and `patch`, or changes the one that is there by `patch`.
    fn change(&mut self, kind: &str, name: &str, base: Value, patch: Value) -> Result<Value> {
        let object = self.objects.entry((kind.to_owned(), name.to_owned())).or_insert(base);
        // A part that a case does not give is null, which would remove it.
        let Value::Object(parts) = patch else { bail!("no object: {patch}") };
        let mut given: Value = parts.into_iter().filter(|(_, value)| !value.is_null()).collect();
        self.names.fill_in_all(&mut given)?;
        json_patch::merge(object, &given);
        let object = object.clone();
        self.send(&object)
    }

    /// Applies an object. A NodePort that the API server has drawn for another case meanwhile is free
    /// again when that case is over.
    fn send(&self, object: &Value) -> Result<Value> {
        let api = self.world.lab.control()?.api();
        let is_over = |sent: &Result<Value>| {
            let taken = "provided port is already allocated";
            !sent.as_ref().is_err_and(|error| format!("{error:#}").contains(taken))
        };
        let send = || Ok(api.apply_object(object.clone()));
        poll_until(NODE_PORT_PATIENCE, Duration::from_millis(500), send, is_over)?
    }

    pub(super) fn patch(&self, kind: &str, name: &str, fields: &Value) -> Result<()> {
        let api = self.world.lab.control()?.api();
        let namespace = if kind == "Node" { "" } else { NAMESPACE };
        match fields.get("status") {
            Some(status) => api.patch_status(kind, namespace, name, status),
            None => api.patch(kind, namespace, name, fields.clone()),
        }
        .map(drop)
    }

    pub(super) fn delete(&mut self, kind: &str, name: &str) -> Result<()> {
        let known = self.objects.remove(&(kind.to_owned(), name.to_owned()));
        let object = known.with_context(|| format!("the case has no {kind} {name}"))?;
        // Objects of the cluster have no namespace.
        let cluster = kind.ends_with("/ServiceCIDR");
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
        let namespace = if cluster { "" } else { namespace };
        self.world.lab.control()?.api().delete(kind, namespace, name)
    }
}
