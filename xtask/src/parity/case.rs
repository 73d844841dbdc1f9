//! The cases: what is made, who asks whom, and what must be seen.
//!
//! A case is a YAML file of several documents that are worked off in order. The first names the
//! case; each of the others is one [`Step`]. Adding a case is adding a file and its line in
//! [`FILES`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("cases/", $name, ".yaml")))),*]
    };
}

/// Every case's file.
const FILES: [(&str, &str); 24] = files![
    "svc-01", "svc-02", "svc-06", "svc-07", "sel-01", "sel-04", "eps-07", "eps-11", "top-02",
    "top-06", "top-07", "ver-01", "ver-02", "ver-03", "ver-05", "ver-06", "ver-10", "ver-13",
    "ver-16", "msq-02", "msq-05", "np-01", "np-06", "np-10",
];

/// Ids of all behaviours of kube-proxy 1.36.3, as this project numbers them.
const IDS: &str = include_str!("ids.txt");

/// A case.
#[derive(Debug)]
pub(super) struct Case {
    /// Id of the behaviour.
    pub(super) id: String,
    /// The behaviour in a sentence.
    pub(super) name: String,
    /// Further ids that it shows.
    pub(super) covers: Vec<String>,
    /// What is done, in order.
    pub(super) steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Title {
    case: String,
    name: String,
    #[serde(default)]
    covers: Vec<String>,
}

/// One thing that a case does.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Step {
    /// Make a Service or change it.
    Service(Service),
    /// Make the slices of a Service, one a family, or change them.
    Endpoints(Endpoints),
    /// Delete objects.
    Delete(Delete),
    /// Ask, and compare what is seen.
    Probe(Probe),
    /// Open connections and keep them busy.
    Hold(Hold),
    /// Look at the connections that are held.
    Held(Held),
    /// Run a server on a node, beside the pods.
    Serve(Serve),
    /// Run a command in a place.
    Run(Run),
    /// Send what the client dials in the Services' ranges to a node.
    Route(Route),
}

/// A Service; fields that are given replace those that it has, null removes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    /// Its name.
    pub(super) service: String,
    /// Its spec; ports without a targetPort get the pods'.
    #[serde(default)]
    pub(super) spec: Value,
    /// Labels, annotations.
    #[serde(default)]
    pub(super) metadata: Value,
    /// Its status.
    #[serde(default)]
    pub(super) status: Value,
}

/// Endpoints of a Service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoints {
    /// The Service.
    pub(super) endpoints: String,
    /// Part of the slices' names where a Service has several.
    pub(super) slice: Option<String>,
    /// Ports of the slices.
    pub(super) ports: Vec<Value>,
    /// The endpoints.
    pub(super) of: Vec<Endpoint>,
    /// Labels, annotations.
    #[serde(default)]
    pub(super) metadata: Value,
}

/// An endpoint: a place of the lab, ready unless it says otherwise.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Endpoint {
    /// A ready endpoint.
    Ready(String),
    /// An endpoint with fields of its own.
    With(EndpointWith),
}

/// An endpoint with conditions or hints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointWith {
    /// The place.
    pub(super) place: String,
    /// Its conditions; ready if left out.
    pub(super) conditions: Option<Value>,
    /// Its hints.
    pub(super) hints: Option<Value>,
}

/// Objects to delete.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delete {
    /// Their kind.
    pub(super) delete: String,
    /// Their names.
    pub(super) names: Vec<String>,
}

/// Requests: each place asks each address over each kind of socket.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Probe {
    /// What is asked, in words.
    pub(super) probe: String,
    /// Who asks.
    pub(super) from: Vec<String>,
    /// Whom, with `${place.v4}` and `${place.v6}` for addresses of the lab.
    pub(super) to: Vec<String>,
    /// Over which sockets.
    #[serde(default = "Over::tcp")]
    pub(super) over: Vec<Over>,
    /// Requests of each.
    #[serde(default = "thirty")]
    pub(super) count: u32,
    /// What must be seen, as [`super::seen`] writes it.
    pub(super) see: String,
    /// What must be seen on kproxy where that differs on purpose.
    pub(super) kproxy: Option<String>,
}

const fn thirty() -> u32 {
    30
}

/// Kind of socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Over {
    /// TCP.
    Tcp,
    /// UDP with connect().
    Udp,
    /// UDP without.
    UdpUnconnected,
}

impl Over {
    fn tcp() -> Vec<Self> {
        vec![Self::Tcp]
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::UdpUnconnected => "unconnected UDP",
        })
    }
}

/// TCP connections to hold: each place to each address.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hold {
    /// In words.
    pub(super) hold: String,
    /// From where.
    pub(super) from: Vec<String>,
    /// To where.
    pub(super) to: Vec<String>,
}

/// What must have become of all connections that are held.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    /// In words.
    pub(super) held: String,
    /// What must be seen.
    pub(super) see: String,
}

/// A server beside the pods' own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Serve {
    /// The place.
    pub(super) serve: String,
    /// TCP and UDP port.
    pub(super) port: u16,
    /// Addresses, if others than those of eth0.
    #[serde(default)]
    pub(super) addresses: Vec<IpAddr>,
}

/// A command; both proxies find its effect, so it must be one that may be run twice.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    /// Its words, with one space between.
    pub(super) run: String,
    /// The place.
    pub(super) on: String,
}

/// A way from outside to ClusterIPs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// What is routed: `services`.
    pub(super) route: String,
    /// The node that it is routed to.
    pub(super) via: String,
}

/// Every case.
///
/// # Errors
/// Names the file and the document that cannot be read.
pub(super) fn all() -> Result<Vec<Case>> {
    FILES.iter().map(|(file, text)| parse(text).with_context(|| format!("case {file}"))).collect()
}

fn parse(text: &str) -> Result<Case> {
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(text).context("read YAML")?;
    if documents.is_empty() {
        bail!("no documents");
    }
    let title: Title = serde_json::from_value(documents.remove(0)).context("the first document")?;
    let steps = documents
        .into_iter()
        .map(|document| {
            let text = document.to_string();
            serde_json::from_value(document).with_context(|| format!("no step: {text}"))
        })
        .collect::<Result<_>>()?;
    Ok(Case { id: title.case, name: title.name, covers: title.covers, steps })
}

/// Ids that no case shows.
pub(super) fn ids_without_case(cases: &[Case]) -> Vec<&'static str> {
    let shown: BTreeSet<&str> = cases
        .iter()
        .flat_map(|case| case.covers.iter().chain([&case.id]).map(String::as_str))
        .collect();
    IDS.lines().filter(|id| !shown.contains(id)).collect()
}

/// Merges JSON as a merge patch does (RFC 7396): null removes, arrays are replaced.
pub(super) fn merge(into: &mut Value, patch: &Value) {
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

/// Replaces `${place.v4}` and `${place.v6}`.
///
/// # Errors
/// When there is no such name.
pub(super) fn fill_in(text: &str, names: &BTreeMap<String, String>) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').context("`${` without `}`")?;
        let value = names.get(name).with_context(|| format!("no `${{{name}}}`"))?;
        filled += before;
        filled += value;
        rest = after;
    }
    Ok(filled + rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_case_can_be_read_and_asks_something() {
        let cases = all().unwrap();
        for case in &cases {
            let asks = |step: &Step| matches!(step, Step::Probe(_));
            assert!(case.steps.iter().any(asks), "{} asks nothing", case.id);
        }
        assert!(cases.len() >= 20);
    }

    #[test]
    fn cases_are_named_after_ids_that_exist_and_no_id_twice() {
        let known: BTreeSet<&str> = IDS.lines().collect();
        let cases = all().unwrap();
        for case in &cases {
            for id in case.covers.iter().chain([&case.id]) {
                assert!(known.contains(id.as_str()), "{id} of case {}", case.id);
            }
        }
        let ids: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
        assert_eq!(ids.len(), cases.len());
        let without = ids_without_case(&cases);
        assert!(without.contains(&"AFF-01") && !without.contains(&"VER-04"));
    }

    #[test]
    fn every_expected_difference_is_documented() {
        let documented = super::super::improvements::read().unwrap();
        for case in all().unwrap() {
            let differs =
                |step: &Step| matches!(step, Step::Probe(probe) if probe.kproxy.is_some());
            if case.steps.iter().any(differs) {
                assert!(documented.contains_key(&case.id), "{} in docs/improvements.md", case.id);
            }
        }
    }

    #[test]
    fn patches_merge_and_remove() {
        let mut object = json!({"a": {"b": 1, "c": 2}});
        merge(&mut object, &json!({"a": {"b": null, "d": [3]}}));
        assert_eq!(object, json!({"a": {"c": 2, "d": [3]}}));
    }

    #[test]
    fn addresses_are_filled_in() {
        let names = BTreeMap::from([("n1.v4".to_owned(), "172.18.0.11".to_owned())]);
        assert_eq!(fill_in("${n1.v4}:80", &names).unwrap(), "172.18.0.11:80");
        assert!(fill_in("${n9.v4}:80", &names).is_err());
    }
}
