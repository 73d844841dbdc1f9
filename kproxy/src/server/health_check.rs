//! Answers load balancers that ask whether this node has endpoints of a Service
//! (healthCheckNodePort, HCN-01 to HCN-12).
//!
//! One listener for each Service and address, of both families whatever the Service's are: load
//! balancers ask on an address of the node. What it answers is looked up at each request, so a change
//! of endpoints opens and closes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::{StatusCode, header};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::http::{self, Answer};
use crate::control::{Noticeboard, State};
use crate::model::{Family, Problem, ServiceName};
use crate::plan::HealthCheck;

/// Time between two tries to listen where it has failed.
const RETRY: Duration = Duration::from_secs(5);
/// Where its problems are posted.
const ORIGIN: &str = "health checks";
/// As AWS, GCP and others read it (KEP-1860).
const WEIGHT: &str = "X-Load-Balancing-Endpoint-Weight";

/// A listener that should be there.
type Wanted = (ServiceName, SocketAddr);

/// Serves what `state` says until the loop is gone. Where it cannot listen is posted to `notices`
/// (HCN-09), and tried again.
pub(crate) async fn serve(mut state: watch::Receiver<State>, notices: Noticeboard) {
    let mut servers = Servers { state: state.clone(), open: BTreeMap::new() };
    loop {
        let wanted = wanted(&state.borrow_and_update());
        let failed = servers.follow(&wanted);
        let retry = !failed.is_empty();
        let problems = failed.iter().filter(|failed| matters(&state.borrow(), failed)).map(problem);
        notices.post(ORIGIN, problems.collect());
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = sleep(RETRY), if retry => {}
        }
    }
}

/// Every listener that should be there (HCN-01).
fn wanted(state: &State) -> BTreeSet<Wanted> {
    let mut wanted = BTreeSet::new();
    for (name, check) in &state.health_checks {
        let at = state.listen.iter().map(|ip| SocketAddr::new(*ip, check.port.get()));
        wanted.extend(at.map(|at| (name.clone(), at)));
    }
    wanted
}

/// The listeners that are there.
struct Servers {
    state: watch::Receiver<State>,
    open: BTreeMap<Wanted, AbortHandle>,
}

impl Servers {
    /// Closes what is not wanted any more, then opens what is missing: a port may pass from one
    /// Service to another (HCN-08). Answers what could not be opened.
    fn follow(&mut self, wanted: &BTreeSet<Wanted>) -> Vec<(Wanted, io::Error)> {
        self.open.retain(|server, task| {
            let stays = wanted.contains(server);
            if !stays {
                debug!(service = %server.0, at = %server.1, "health check ends");
                task.abort();
            }
            stays
        });
        let mut failed = Vec::new();
        for server in wanted {
            if self.open.contains_key(server) {
                continue;
            }
            let (name, at) = server;
            match http::listen(at.ip(), at.port()) {
                Ok(listener) => {
                    debug!(service = %name, %at, "health check begins");
                    let (state, name, family) =
                        (self.state.clone(), name.clone(), Family::of(&at.ip()));
                    // Whatever its path and method (HCN-02).
                    let answer =
                        move |_| ready(answer(&state.borrow(), &name, family, Instant::now()));
                    let task = tokio::spawn(http::serve(listener, answer)).abort_handle();
                    self.open.insert(server.clone(), task);
                }
                Err(error) => failed.push((server.clone(), error)),
            }
        }
        failed
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.open.values().for_each(AbortHandle::abort);
    }
}

/// A node may be without the family that the Service does not have either.
fn matters(state: &State, ((name, at), error): &(Wanted, io::Error)) -> bool {
    let check = state.health_checks.get(name);
    let has_family = |check: &HealthCheck| check.endpoints.contains_key(&Family::of(&at.ip()));
    check.is_some_and(has_family) || !http::is_no_family(error)
}

fn problem(((name, at), error): &(Wanted, io::Error)) -> Problem {
    Problem::new(
        format!("Service {name}"),
        format!(
            "its healthCheckNodePort cannot be served on {at}: {error}; load balancers do not send it \
             traffic by this node"
        ),
        "free the port on this node, or give the Service another healthCheckNodePort",
    )
}

/// The body (HCN-05).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: Named<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Named<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// HCN-03 to HCN-05.
fn answer(state: &State, name: &ServiceName, family: Family, now: Instant) -> Answer {
    let check = state.health_checks.get(name);
    let count = check.map_or(0, |check| check.count(family));
    let healthy = state.is_healthy(now);
    let body = Body {
        service: Named { namespace: &name.namespace, name: &name.name },
        local_endpoints: count,
        service_proxy_healthy: healthy,
    };
    let status =
        if count > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = http::answer(status, "application/json", json(&body));
    answer.headers_mut().insert(WEIGHT, header::HeaderValue::from(count));
    answer
}

/// Indented with tabs, as kube-proxy does it.
fn json(body: &Body<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, tabs);
    // Strings, a number and a boolean, into memory: nothing here can fail.
    let _infallible = body.serialize(&mut serializer);
    text
}

#[cfg(test)]
mod tests;
