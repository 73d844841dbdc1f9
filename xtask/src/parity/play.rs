//! Plays a case on the lab.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use kproxy_lab::{Family, Held, Lab, Outcome, Transport, manifest::Slice};
use serde_json::{Value, json};

use super::{
    case::{self, Case, Endpoint, Over, Step},
    seen::{self, Owners},
};

/// Where the cases' objects are.
const NAMESPACE: &str = "default";
/// How long a change may need to show: kube-proxy waits a second between two syncs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before looking again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long silence must last to count as dropped. A refusal that reaches a TCP socket while
/// connect() still holds its lock is noticed only when the SYN is sent again, after a second.
const SILENCE: Duration = Duration::from_millis(1500);

/// Which proxy a case is played on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    /// kproxy.
    Kproxy,
    /// The real kube-proxy, nftables mode.
    KubeProxy,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kproxy => "kproxy",
            Self::KubeProxy => "kube-proxy",
        })
    }
}

/// What one probe has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// The probe, in words.
    pub(super) probe: String,
    /// What had to be seen.
    pub(super) expected: String,
    /// What was seen.
    pub(super) seen: String,
}

impl Sight {
    /// What had to be seen was seen.
    pub(super) fn is_expected(&self) -> bool {
        self.expected == self.seen
    }
}

/// The lab while a case is played.
pub(super) struct Stage<'a> {
    lab: &'a Lab,
    who: Who,
    owners: Owners,
    names: BTreeMap<String, String>,
    /// Objects of the case as they are now, by kind and name.
    objects: BTreeMap<(String, String), Value>,
    held: Vec<Held>,
    servers: Vec<(String, u16)>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(lab: &'a Lab, who: Who) -> Result<Self> {
        let mut owners = Owners::default();
        let mut names = BTreeMap::new();
        for name in lab.place_names() {
            let place = lab.place(&name)?;
            for (family, suffix) in [(Family::V4, "v4"), (Family::V6, "v6")] {
                names.insert(format!("{name}.{suffix}"), place.ip(family).to_string());
            }
            // A node has more addresses than one: the bridge of its pods, for example.
            for address in addresses(&place.run("ip", &["-json", "address", "show"])?)? {
                if !address.is_loopback() {
                    owners.of.insert(address, name.clone());
                }
            }
        }
        let (objects, held, servers) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { lab, who, owners, names, objects, held, servers })
    }

    /// Plays a case, and removes what it has made.
    pub(super) fn play(mut self, case: &Case) -> Result<Vec<Sight>> {
        let mut sights = Vec::new();
        for step in &case.steps {
            sights.extend(self.step(step)?);
        }
        self.clear()?;
        Ok(sights)
    }

    fn clear(mut self) -> Result<()> {
        let objects: Vec<(String, String)> = self.objects.keys().cloned().collect();
        for (kind, name) in objects {
            self.delete(&kind, &name)?;
        }
        for held in self.held {
            held.stop()?;
        }
        for (place, port) in self.servers {
            self.lab.place(&place)?.stop_serving(port)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<Option<Sight>> {
        match step {
            Step::Service(service) => self.service(service)?,
            Step::Endpoints(endpoints) => self.endpoints(endpoints)?,
            Step::Delete(delete) => {
                for name in &delete.names {
                    self.delete(&delete.delete, name)?;
                }
            }
            Step::Probe(probe) => return self.probe(probe).map(Some),
            Step::Hold(hold) => {
                for (from, to) in self.pairs(&hold.from, &hold.to)? {
                    let connection = kproxy_lab::Hold::tcp(to).pause(PAUSE);
                    let held = self.lab.place(&from)?.hold(connection);
                    self.held.push(held.with_context(|| hold.hold.clone())?);
                }
            }
            Step::Held(held) => return self.look_at_held(held).map(Some),
            Step::Serve(serve) => {
                let place = self.lab.place(&serve.serve)?;
                if serve.addresses.is_empty() {
                    place.serve(serve.port)?;
                } else {
                    place.serve_at(&serve.addresses, serve.port, None)?;
                }
                self.servers.push((serve.serve.clone(), serve.port));
            }
            Step::Run(run) => {
                let words: Vec<&str> = run.run.split(' ').collect();
                let (program, arguments) = words.split_first().context("an empty command")?;
                self.lab.place(&run.on)?.run(program, arguments)?;
            }
            Step::Route(route) if route.route == "services" => {
                self.lab.route_services_via(&route.via)?;
            }
            Step::Route(route) => bail!("no route for `{}`", route.route),
        }
        Ok(None)
    }

    fn service(&mut self, service: &case::Service) -> Result<()> {
        let mut base = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": service.service, "namespace": NAMESPACE},
            "spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]},
        });
        if let Some(first) = service.spec.pointer("/clusterIPs/0") {
            base["spec"]["clusterIP"] = first.clone();
        }
        let patch = json!({
            "spec": service.spec, "metadata": service.metadata, "status": service.status,
        });
        self.change("Service", &service.service, base, &patch)
    }

    fn endpoints(&mut self, endpoints: &case::Endpoints) -> Result<()> {
        let service = &endpoints.endpoints;
        for (family, suffix) in [(Family::V4, "v4"), (Family::V6, "v6")] {
            let mut slice = Slice::of(service, family);
            for endpoint in &endpoints.of {
                slice = match endpoint {
                    Endpoint::Ready(place) => slice.pod(&*self.lab.place(place)?),
                    Endpoint::With(with) => {
                        let ready = json!({"ready": true});
                        let conditions = with.conditions.clone().unwrap_or(ready);
                        slice.pod_with(&*self.lab.place(&with.place)?, conditions)
                    }
                };
            }
            let mut object = Value::from(slice);
            for (index, endpoint) in endpoints.of.iter().enumerate() {
                if let Endpoint::With(case::EndpointWith { hints: Some(hints), .. }) = endpoint {
                    object["endpoints"][index]["hints"] = hints.clone();
                }
            }
            let part = endpoints.slice.as_ref().map(|part| format!("-{part}")).unwrap_or_default();
            let name = format!("{service}{part}-{suffix}");
            object["metadata"]["name"] = name.clone().into();
            let patch = json!({
                "ports": endpoints.ports,
                "endpoints": object["endpoints"],
                "metadata": endpoints.metadata,
            });
            self.change("EndpointSlice", &name, object, &patch)?;
        }
        Ok(())
    }

    /// Makes an object from `base` and `patch`, or changes the one that is there by `patch`.
    fn change(&mut self, kind: &str, name: &str, base: Value, patch: &Value) -> Result<()> {
        let object = self.objects.entry((kind.to_owned(), name.to_owned())).or_insert(base);
        // A part that a case does not give is null, which would remove it.
        let given = patch.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let given: Value = given.map(|(name, value)| (name.clone(), value.clone())).collect();
        case::merge(object, &given);
        self.lab.control()?.api().apply_object(object.clone())?;
        Ok(())
    }

    fn delete(&mut self, kind: &str, name: &str) -> Result<()> {
        self.objects.remove(&(kind.to_owned(), name.to_owned()));
        self.lab.control()?.api().delete(kind, NAMESPACE, name)
    }

    /// Every place with every address.
    fn pairs(&self, from: &[String], to: &[String]) -> Result<Vec<(String, SocketAddr)>> {
        let mut pairs = Vec::new();
        for place in from {
            for address in to {
                let text = case::fill_in(address, &self.names)?;
                let address = text.parse().with_context(|| format!("no address: {text}"))?;
                pairs.push((place.clone(), address));
            }
        }
        Ok(pairs)
    }

    /// Asks until what must be seen is seen, or for as long as a change may need.
    fn probe(&self, probe: &case::Probe) -> Result<Sight> {
        let expected = match (self.who, &probe.kproxy) {
            (Who::Kproxy, Some(kproxy)) => kproxy,
            _ => &probe.see,
        };
        let start = Instant::now();
        let mut sights = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in self.pairs(&probe.from, &probe.to)? {
            for over in &probe.over {
                let sight = loop {
                    let sight = seen::words(
                        &self.ask(&from, to, *over, expected, probe.count)?,
                        &from,
                        &self.owners,
                    );
                    if sight == *expected || start.elapsed() > PATIENCE {
                        break sight;
                    }
                    sleep(PAUSE);
                };
                sights.entry(sight).or_default().insert(format!("{from} {over} {to}"));
            }
        }
        let seen = match sights.len() {
            1 => sights.into_keys().collect(),
            _ => {
                let parts = sights.into_iter().map(|(sight, who)| {
                    format!("{sight} ({})", who.into_iter().collect::<Vec<_>>().join(", "))
                });
                parts.collect::<Vec<_>>().join("; ")
            }
        };
        Ok(Sight { probe: probe.probe.clone(), expected: expected.clone(), seen })
    }

    fn ask(
        &self,
        from: &str,
        to: SocketAddr,
        over: Over,
        expected: &str,
        count: u32,
    ) -> Result<Outcome> {
        let transport = match over {
            Over::Tcp => Transport::Tcp,
            Over::Udp => Transport::UdpConnected,
            Over::UdpUnconnected => Transport::UdpUnconnected,
        };
        let place = self.lab.place(from)?;
        let probe = kproxy_lab::Probe::new(transport, to).timeout(SILENCE);
        if expected == "dropped" {
            // Two: longer than the second for which the kernel may hold back an ICMP error.
            return place.probe(probe.count(2));
        }
        // One request first: many to a proxy that is not there yet take long. And many refusals
        // at once would be silences: the kernel limits ICMP errors.
        let first = place.probe(probe.clone())?;
        let answers = expected.contains(" as ");
        if answers && first.all_answered() { place.probe(probe.count(count)) } else { Ok(first) }
    }

    fn look_at_held(&self, held: &case::Held) -> Result<Sight> {
        // Long enough for a few more requests after the last change.
        sleep(PAUSE * 10);
        let mut seen = BTreeSet::new();
        for connection in &self.held {
            seen.insert(seen::held(&connection.report()?));
        }
        let seen = seen.into_iter().collect::<Vec<_>>().join("; ");
        Ok(Sight { probe: held.held.clone(), expected: held.see.clone(), seen })
    }
}

/// Addresses in the output of `ip -json address show`.
fn addresses(text: &str) -> Result<Vec<IpAddr>> {
    let links: Value = serde_json::from_str(text).context("read the output of ip")?;
    let mut found = Vec::new();
    for link in links.as_array().into_iter().flatten() {
        for info in link["addr_info"].as_array().into_iter().flatten() {
            found.extend(info["local"].as_str().and_then(|text| text.parse::<IpAddr>().ok()));
        }
    }
    Ok(found)
}
