//! The steps of a case.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::{
    expected::Expected,
    over::Over,
    step_flow::{Flood, Forge, Sockets},
};

/// One thing that a case does.
#[derive(Debug)]
pub(super) enum Step {
    /// Make a Service or change it.
    Service(Service),
    /// Make the slices of a Service, one a family, or change them.
    Endpoints(Endpoints),
    /// Make an object of any kind or change it.
    Apply(Apply),
    /// Change fields of an object that is not the case's own.
    Patch(Patch),
    /// Delete objects.
    Delete(Delete),
    /// Ask, and compare what is seen.
    Probe(Probe),
    /// Ask an HTTP server.
    Http(Http),
    /// Remember what a proxy counts.
    Scrape(Scrape),
    /// Look at what it counts.
    Metrics(Metrics),
    /// Open connections and keep them busy.
    Hold(Hold),
    /// Look at the connections that are held.
    Held(Held),
    /// Ask once and give the backend that answered a name.
    Remember(Remember),
    /// Run a server on a node, beside the pods.
    Serve(Serve),
    /// Run a command in a place.
    Run(Run),
    /// Let time pass.
    Wait(Wait),
    /// Send packets that nobody follows up.
    Flood(Flood),
    /// Let a forged packet meet a connection, and look at that.
    Forge(Forge),
    /// Lead sockets step by step, and look at what they see.
    Sockets(Sockets),
    /// Kill the proxies and start them again.
    Restart,
    /// Kill the proxies; they are started again after the case.
    Kill,
}

/// A Service; fields that are given replace those that it has, null removes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    /// Its name.
    pub(super) service: String,
    /// Its spec; one TCP port 80 called `web` if it names no ports.
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
    /// `v4` or `v6`, if only one of the two slices is meant.
    pub(super) family: Option<String>,
    /// Ports of the slices; those of the Service on the pods' port if left out.
    pub(super) ports: Option<Vec<Value>>,
    /// The endpoints.
    #[serde(default)]
    pub(super) of: Vec<Endpoint>,
    /// A backend that has been remembered and is left out.
    pub(super) except: Option<String>,
    /// Labels, annotations.
    #[serde(default)]
    pub(super) metadata: Value,
}

/// An endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Endpoint {
    /// A place and, if it is not ready, its state: `n1/a terminating`.
    Place(String),
    /// An endpoint with fields of its own.
    With(EndpointWith),
}

/// An endpoint with conditions or hints.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointWith {
    /// The place, and its state.
    pub(super) place: String,
    /// Its conditions, if no state says them.
    pub(super) conditions: Option<Value>,
    /// Nodes that it is meant for.
    #[serde(default)]
    pub(super) for_nodes: Vec<String>,
    /// Zones that it is meant for.
    #[serde(default)]
    pub(super) for_zones: Vec<String>,
}

/// Any objects, with `${place.v4}` for addresses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Apply {
    /// The objects.
    pub(super) apply: Vec<Value>,
}

/// A change (JSON merge patch) of an object, of its status alone if it has one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    /// The object's kind.
    pub(super) patch: String,
    /// Its name.
    pub(super) name: String,
    /// What is changed.
    pub(super) fields: Value,
    /// The change that takes it back.
    pub(super) undo: Option<Value>,
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
    /// Ids that it is for, if not all of the case.
    #[serde(default)]
    pub(super) ids: Vec<String>,
    /// Who asks.
    pub(super) from: Vec<String>,
    /// Whom: `name:port` for both families of a place or Service, `name.v4:port` for one.
    pub(super) to: Vec<String>,
    /// Over which sockets.
    #[serde(default = "Over::tcp")]
    pub(super) over: Vec<Over>,
    /// Requests of each; enough for what must be seen if left out.
    pub(super) count: Option<u32>,
    /// Seconds between two of them.
    #[serde(default)]
    pub(super) pause: f32,
    /// Bytes that each carries both ways.
    #[serde(default)]
    pub(super) padding: usize,
    /// Address that the sockets are bound to.
    pub(super) bind: Option<IpAddr>,
    /// All requests of a place must reach one backend, whatever it asks.
    #[serde(default)]
    pub(super) sticky: bool,
    /// Clients are shown by their addresses, not by whose these are.
    #[serde(default)]
    pub(super) addresses: bool,
    /// What must be seen; `this | that` where chance decides.
    pub(super) see: Expected,
}

/// Rows of `[from, to, what must be seen]` and, where kproxy differs on purpose, what it shows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flows {
    /// In words.
    pub(super) flows: String,
    /// Ids that it is for, if not all of the case.
    #[serde(default)]
    pub(super) ids: Vec<String>,
    /// Over which sockets.
    #[serde(default = "Over::tcp")]
    pub(super) over: Vec<Over>,
    /// The rows.
    pub(super) rows: Vec<Vec<String>>,
}

/// A request to an HTTP server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    /// In words.
    pub(super) http: String,
    /// Ids that it is for, if not all of the case.
    #[serde(default)]
    pub(super) ids: Vec<String>,
    /// Who asks.
    pub(super) from: Vec<String>,
    /// Whom, as for [`Probe::to`].
    pub(super) to: Vec<String>,
    /// The path.
    #[serde(default = "Http::root")]
    pub(super) path: String,
    /// The method.
    #[serde(default = "Http::get")]
    pub(super) method: String,
    /// What must be seen.
    pub(super) see: Expected,
}

impl Http {
    fn root() -> String {
        "/".to_owned()
    }

    fn get() -> String {
        "GET".to_owned()
    }
}

/// What the proxy of a node counts now, for looks at how that grows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scrape {
    /// The node.
    pub(super) scrape: String,
}

/// Metrics of a proxy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    /// In words.
    pub(super) metrics: String,
    /// Ids that it is for, if not all of the case.
    #[serde(default)]
    pub(super) ids: Vec<String>,
    /// The node.
    pub(super) on: String,
    /// Which: `name label=value …`, without `kubeproxy_`.
    pub(super) of: Vec<String>,
    /// Label by whose values growth is shown.
    pub(super) by: Option<String>,
    /// What of them.
    #[serde(default)]
    pub(super) show: Show,
    /// What must be seen.
    pub(super) see: Expected,
}

/// What is shown of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Show {
    /// By how much it has grown since the last `scrape`.
    #[default]
    Growth,
    /// Whether it has grown.
    More,
    /// Its type, its labels with their values, its buckets.
    Kind,
}

/// Connections to hold: each place to each address.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hold {
    /// In words.
    pub(super) hold: String,
    /// From where.
    pub(super) from: Vec<String>,
    /// To where.
    pub(super) to: Vec<String>,
    /// Over which sockets.
    #[serde(default = "Over::tcp")]
    pub(super) over: Vec<Over>,
    /// Port that each place's socket is bound to, one for each family at most.
    pub(super) port: Option<u16>,
    /// Nobody answers yet.
    #[serde(default)]
    pub(super) unanswered: bool,
}

/// What must have become of all connections that are held.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    /// In words.
    pub(super) held: String,
    /// Ids that it is for, if not all of the case.
    #[serde(default)]
    pub(super) ids: Vec<String>,
    /// The `hold` whose connections are meant, if not all are.
    pub(super) of: Option<String>,
    /// What counts is who answers now, not what was lost on the way.
    #[serde(default)]
    pub(super) now: bool,
    /// What must be seen.
    pub(super) see: Expected,
}

/// A backend that gets a name: `${name}` in what must be seen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remember {
    /// The name.
    pub(super) remember: String,
    /// Who asks.
    pub(super) from: String,
    /// Whom.
    pub(super) to: String,
    /// Over which socket.
    pub(super) over: Option<Over>,
}

/// A server beside the pods' own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Serve {
    /// The place.
    pub(super) serve: String,
    /// TCP and UDP port.
    pub(super) port: u16,
    /// On a port of MPTCP, which TCP reaches too; without UDP.
    #[serde(default)]
    pub(super) mptcp: bool,
    /// Addresses, if others than those of eth0.
    #[serde(default)]
    pub(super) addresses: Vec<IpAddr>,
}

/// A command.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    /// Its words, with one space between and `${place.v4}` for addresses.
    pub(super) run: String,
    /// The place.
    pub(super) on: String,
    /// The command that takes it back after the case.
    pub(super) undo: Option<String>,
}

/// A pause.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    /// Seconds; whatever it takes until the proxies have seen every change if left out.
    pub(super) wait: Option<f32>,
}
