//! Plays one case: makes its objects, asks, and removes what it has made.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kproxy_lab::{Family, Held, Transport, manifest::Slice};
use serde_json::{Value, json};

use super::{
    case::{self, Case, Endpoint, EndpointWith, Over, Step, Who},
    look::Sight,
    names::Names,
    world::World,
};

/// Where the cases' objects are.
const NAMESPACE: &str = "default";
/// How long a change may need to show.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same in a case that has failed.
const LITTLE_PATIENCE: Duration = Duration::from_secs(2);
/// Pause before looking again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// One case on the lab.
pub(super) struct Stage<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) names: Names,
    /// Objects of the case as they are now, by kind and name.
    objects: BTreeMap<(String, String), Value>,
    /// Connections, by the words of their `hold`.
    pub(super) held: Vec<(String, Held)>,
    servers: Vec<(String, u16)>,
    undo: Vec<Undo>,
    /// How long a change may need to show.
    pub(super) patience: Duration,
}

/// What takes a change back.
enum Undo {
    Command { on: String, words: String },
    Patch { kind: String, name: String, fields: Value },
}

impl<'a> Stage<'a> {
    pub(super) fn new(world: &'a World<'a>) -> Self {
        Self {
            world,
            names: world.names.clone(),
            objects: BTreeMap::new(),
            held: Vec::new(),
            servers: Vec::new(),
            undo: Vec::new(),
            patience: PATIENCE,
        }
    }

    /// Plays a case, and removes what it has made. A step that fails is seen like anything else.
    pub(super) fn play(mut self, case: &Case) -> Vec<Sight> {
        let mut sights = Vec::new();
        for step in &case.steps {
            match self.step(step) {
                Ok(sight) => {
                    if sight.as_ref().is_some_and(|sight| !sight.is_expected()) {
                        self.patience = LITTLE_PATIENCE;
                    }
                    sights.extend(sight);
                }
                Err(error) => {
                    sights.push(Sight::failure("a step", &format!("{error:#}")));
                    break;
                }
            }
        }
        if let Err(error) = self.clear() {
            sights.push(Sight::failure("clearing up", &format!("{error:#}")));
        }
        sights
    }

    fn clear(mut self) -> Result<()> {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            match undo {
                Undo::Command { on, words } => self.run(&on, &words)?,
                Undo::Patch { kind, name, fields } => {
                    self.patch(&kind, &name, &fields)?;
                }
            }
        }
        for (_, held) in std::mem::take(&mut self.held) {
            held.stop()?;
        }
        let objects: Vec<(String, String)> = self.objects.keys().cloned().collect();
        for (kind, name) in objects {
            self.delete(&kind, &name)?;
        }
        for (place, port) in &self.servers {
            self.world.lab.place(place)?.stop_serving(*port)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<Option<Sight>> {
        match step {
            Step::Service(service) => self.service(service)?,
            Step::Endpoints(endpoints) => self.endpoints(endpoints)?,
            Step::Apply(apply) => self.apply(apply)?,
            Step::Patch(patch) => {
                let (kind, name) = (&patch.patch, &patch.name);
                self.patch(kind, name, &patch.fields)?;
                self.undo.extend(patch.undo.iter().map(|fields| Undo::Patch {
                    kind: kind.clone(),
                    name: name.clone(),
                    fields: fields.clone(),
                }));
            }
            Step::Delete(delete) => {
                for name in &delete.names {
                    self.delete(&delete.delete, name)?;
                }
            }
            Step::Probe(probe) => return self.probe(probe).map(Some),
            Step::Http(http) => return self.http(http).map(Some),
            Step::Hold(hold) => self.hold(hold)?,
            Step::Held(held) => return self.look_at_held(held).map(Some),
            Step::Remember(remember) => self.remember(remember)?,
            Step::Serve(serve) => {
                let place = self.world.lab.place(&serve.serve)?;
                if serve.addresses.is_empty() {
                    place.serve(serve.port)?;
                } else {
                    place.serve_at(&serve.addresses, serve.port, None)?;
                }
                self.servers.push((serve.serve.clone(), serve.port));
            }
            Step::Run(run) => {
                self.run(&run.on, &run.run)?;
                let undo = run.undo.iter().cloned();
                self.undo.extend(undo.map(|words| Undo::Command { on: run.on.clone(), words }));
            }
            Step::Wait(wait) => match wait.wait {
                Some(seconds) => sleep(Duration::from_secs_f32(seconds)),
                None => self.settle()?,
            },
            Step::Restart => {
                for proxy in &self.world.proxies {
                    proxy.kill()?;
                    proxy.start()?;
                }
            }
        }
        Ok(None)
    }

    fn patch(&self, kind: &str, name: &str, fields: &Value) -> Result<()> {
        let api = self.world.lab.control()?.api();
        let namespace = if kind == "Node" { "" } else { NAMESPACE };
        match fields.get("status") {
            Some(status) => api.patch_status(kind, namespace, name, status),
            None => api.patch(kind, namespace, name, fields.clone()),
        }
        .map(drop)
    }

    fn run(&self, on: &str, words: &str) -> Result<()> {
        let words: Vec<&str> = words.split(' ').collect();
        let (program, arguments) = words.split_first().context("an empty command")?;
        self.world.lab.place(on)?.run(program, arguments).map(drop)
    }

    /// Waits until every change has been seen. For looks at what must stay as it is: too short a
    /// wait would miss a wrong change, never a right one.
    fn settle(&self) -> Result<()> {
        sleep(Duration::from_millis(500));
        if self.world.who != Who::Kproxy {
            self.world.proxies.iter().try_for_each(|proxy| proxy.wait_ready())?;
        }
        Ok(())
    }

    fn service(&mut self, service: &case::Service) -> Result<()> {
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

    fn endpoints(&mut self, endpoints: &case::Endpoints) -> Result<()> {
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

    fn apply(&mut self, apply: &case::Apply) -> Result<()> {
        for object in &apply.apply {
            let mut object = object.clone();
            self.names.fill_in_all(&mut object)?;
            let part = |pointer: &str| {
                let text = object.pointer(pointer).and_then(Value::as_str);
                text.map(str::to_owned).with_context(|| format!("no {pointer} in {object}"))
            };
            let kind = format!("{}/{}", part("/apiVersion")?, part("/kind")?);
            let name = part("/metadata/name")?;
            self.world.lab.control()?.api().apply_object(object.clone())?;
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
        merge(object, &given);
        self.world.lab.control()?.api().apply_object(object.clone())
    }

    fn delete(&mut self, kind: &str, name: &str) -> Result<()> {
        let known = self.objects.remove(&(kind.to_owned(), name.to_owned()));
        let object = known.with_context(|| format!("the case has no {kind} {name}"))?;
        // Objects of the cluster have no namespace.
        let cluster = kind.ends_with("/ServiceCIDR");
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
        let namespace = if cluster { "" } else { namespace };
        self.world.lab.control()?.api().delete(kind, namespace, name)
    }

    fn hold(&mut self, hold: &case::Hold) -> Result<()> {
        for from in &hold.from {
            for to in hold.to.iter().map(|to| self.names.destinations(to)) {
                for (to, over) in
                    to?.into_iter().flat_map(|to| hold.over.iter().map(move |over| (to, over)))
                {
                    let mut connection = kproxy_lab::Hold::new(transport(*over), to).pause(PAUSE);
                    if *over != Over::Tcp {
                        connection = connection.timeout(PAUSE * 5);
                    }
                    if hold.unanswered {
                        connection = connection.even_unanswered();
                    }
                    let held = self.world.lab.place(from)?.hold(connection);
                    let held = held.with_context(|| hold.hold.clone())?;
                    self.held.push((hold.hold.clone(), held));
                }
            }
        }
        Ok(())
    }

    fn remember(&mut self, remember: &case::Remember) -> Result<()> {
        let to = self.names.destinations(&remember.to)?;
        let to = *to.first().context("nothing to ask")?;
        let place = self.world.lab.place(&remember.from)?;
        let start = Instant::now();
        loop {
            let over = transport(remember.over.unwrap_or(Over::Tcp));
            let outcome = place.probe(kproxy_lab::Probe::new(over, to))?;
            if let Some(answer) = outcome.answers().next() {
                self.names.remember(&remember.remember, &answer.server);
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "nobody answers at {to}: {outcome}");
            sleep(PAUSE);
        }
    }
}

/// The lab's word for a kind of socket.
pub(super) const fn transport(over: Over) -> Transport {
    match over {
        Over::Tcp => Transport::Tcp,
        Over::Udp => Transport::UdpConnected,
        Over::UdpUnconnected => Transport::UdpUnconnected,
    }
}

/// Merges JSON as a merge patch does (RFC 7396): null removes, arrays are replaced.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        into.clone_from(patch);
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    let Value::Object(object) = into else { return };
    for (name, value) in fields {
        if value.is_null() {
            object.remove(name);
        } else {
            merge(object.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_merge_and_remove() {
        let mut object = json!({"a": {"b": 1, "c": 2}});
        merge(&mut object, &json!({"a": {"b": null, "d": [3]}}));
        assert_eq!(object, json!({"a": {"c": 2, "d": [3]}}));
    }
}
