//! Reads the cases.
//!
//! A file of `cases/` holds the cases of one area of ids as YAML documents: one that begins with
//! `case` opens a case, those that follow are its steps. The first key of a step says what it is. A
//! case is called after the id that it shows; a second one of an id has more words in its name.

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    case::Case,
    expected::Expected,
    over::Over,
    step::{Flows, Probe, Step},
};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("cases/", $name, ".yaml")))),*]
    };
}

/// Every file of cases.
const FILES: [(&str, &str); 14] = files![
    "sel", "svc", "eps", "top", "ver", "lbr", "aff", "msq", "np", "hcn", "ct", "pkt", "node",
    "flow",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Title {
    case: String,
    #[serde(default)]
    covers: Vec<String>,
    #[serde(default = "usual")]
    settings: String,
    #[serde(default)]
    alone: bool,
}

/// Name of the settings that cases have if they name none.
fn usual() -> String {
    "usual".to_owned()
}

/// Every case.
///
/// # Errors
/// Names the file and the document that cannot be read.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (file, text) in FILES {
        cases.extend(parse(text).with_context(|| format!("cases/{file}.yaml"))?);
    }
    Ok(cases)
}

/// The cases of one file.
pub(super) fn parse(text: &str) -> Result<Vec<Case>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("read YAML")?;
    let mut cases: Vec<Case> = Vec::new();
    for document in documents {
        if document.get("case").is_some() {
            let title: Title = from(document)?;
            let Title { case: name, covers, settings, alone } = title;
            let id = name.split(' ').next().unwrap_or_default().to_owned();
            cases.push(Case { name, id, covers, settings, alone, steps: Vec::new() });
            continue;
        }
        let case = cases.last_mut().context("a step before the first case")?;
        case.steps.extend(steps(document).with_context(|| case.name.clone())?);
    }
    Ok(cases)
}

fn steps(document: Value) -> Result<Vec<Step>> {
    let has = |key: &str| document.get(key).is_some();
    let step = match () {
        () if has("service") => Step::Service(from(document)?),
        () if has("endpoints") => Step::Endpoints(from(document)?),
        () if has("apply") => Step::Apply(from(document)?),
        () if has("patch") => Step::Patch(from(document)?),
        () if has("delete") => Step::Delete(from(document)?),
        () if has("probe") => Step::Probe(from(document)?),
        () if has("flows") => return probes(from(document)?),
        () if has("http") => Step::Http(from(document)?),
        () if has("scrape") => Step::Scrape(from(document)?),
        () if has("metrics") => Step::Metrics(from(document)?),
        () if has("hold") => Step::Hold(from(document)?),
        () if has("held") => Step::Held(from(document)?),
        () if has("remember") => Step::Remember(from(document)?),
        () if has("serve") => Step::Serve(from(document)?),
        () if has("run") => Step::Run(from(document)?),
        () if has("flood") => Step::Flood(from(document)?),
        () if has("forge") => Step::Forge(from(document)?),
        () if has("sockets") => Step::Sockets(from(document)?),
        () if has("wait") => Step::Wait(from(document)?),
        () if has("kill") => Step::Kill,
        () if has("restart") => Step::Restart,
        () => bail!("no step: {document}"),
    };
    Ok(vec![step])
}

fn from<T: DeserializeOwned>(document: Value) -> Result<T> {
    let text = document.to_string();
    serde_json::from_value(document).with_context(|| text)
}

/// A table of flows as one probe a row.
fn probes(flows: Flows) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for row in flows.rows {
        let (from, to, see, kproxy) = match row.as_slice() {
            [from, to, see] => (from, to, see, None),
            [from, to, see, kproxy] => (from, to, see, Some(kproxy.clone())),
            _ => bail!("no row [from, to, see] or [from, to, see, kproxy]: {row:?}"),
        };
        steps.push(Step::Probe(Probe {
            probe: format!("{}, {from} to {to}", flows.flows),
            ids: flows.ids.clone(),
            from: vec![from.clone()],
            to: vec![to.clone()],
            over: if flows.over.is_empty() { Over::tcp() } else { flows.over.clone() },
            count: None,
            pause: 0.0,
            padding: 0,
            bind: None,
            sticky: false,
            addresses: false,
            see: Expected::new(see.clone(), kproxy),
        }));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_case_can_be_read() {
        assert!(all().unwrap().len() > 80);
    }

    #[test]
    fn a_step_that_is_none_is_named_with_its_case() {
        for step in ["prob: x", "probe: x\nfrom: []", "flows: x\nrows: [[a, b]]"] {
            let error = parse(&format!("case: VER-01\n---\n{step}\n")).unwrap_err();
            assert!(format!("{error:#}").contains("VER-01"), "{error:#}");
        }
    }

    /// Cases are played side by side.
    #[test]
    fn no_two_cases_have_a_node_port_or_an_address_in_common() {
        let mut owners = BTreeMap::<String, String>::new();
        for case in all().unwrap() {
            let services = case.steps.iter().filter_map(|step| match step {
                Step::Service(service) => Some(service),
                _ => None,
            });
            for service in services {
                let ports = service.spec["ports"].as_array().into_iter().flatten();
                let numbers = ports.map(|port| &port["nodePort"]);
                let health = [&service.spec["healthCheckNodePort"]];
                let addresses = service.spec["externalIPs"].as_array().into_iter().flatten();
                let ingress = service.status.pointer("/loadBalancer/ingress");
                let ingress = ingress.and_then(Value::as_array).into_iter().flatten();
                let all = numbers.chain(health).chain(addresses);
                for value in all.chain(ingress.map(|ingress| &ingress["ip"])) {
                    if value.is_null() {
                        continue;
                    }
                    let owner =
                        owners.entry(value.to_string()).or_insert_with(|| case.name.clone());
                    assert_eq!(*owner, case.name, "{value}");
                }
                let is_balanced = service.spec["type"] == "LoadBalancer";
                let none_given = service.spec["allocateLoadBalancerNodePorts"] == false;
                let all_given = service.spec["ports"]
                    .as_array()
                    .is_some_and(|ports| ports.iter().all(|port| port["nodePort"].is_number()));
                let name = &service.service;
                assert!(!is_balanced || none_given || all_given, "{name} gets any NodePort");
            }
        }
    }
}
