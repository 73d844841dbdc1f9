//! Answers whether this node takes traffic: `/healthz` and `/livez` of kube-proxy's
//! `--healthz-bind-address` (HZ-01 to HZ-11), which load balancers ask.

use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hyper::StatusCode;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::http::{self, Answer};
use crate::control::{Noticeboard, State};
use crate::metrics::Health;
use crate::model::{Family, Problem};

/// Time between two tries to listen (HZ-10).
const RETRY: Duration = Duration::from_secs(5);
/// Where its problem is posted.
const ORIGIN: &str = "healthz";
/// Go's time of no time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Question {
    /// Whether the node takes traffic.
    Healthz,
    /// Whether kproxy does its work.
    Livez,
}

/// Serves at `address`: on `0.0.0.0` and `::` at every address of both families, as Go does. Where it
/// cannot listen is posted to `notices`, and tried again.
pub(crate) async fn serve(
    address: SocketAddr,
    state: watch::Receiver<State>,
    counts: Health,
    notices: Noticeboard,
) {
    let mut missing = vec![address];
    missing.extend(other_family(address));
    loop {
        let mut failed = Vec::new();
        missing.retain(|at| match http::listen(at.ip(), at.port()) {
            Ok(listener) => {
                info!(address = %at, "health is told");
                let (state, counts) = (state.clone(), counts.clone());
                let answer = move |request: hyper::Request<_>| {
                    let path = request.uri().path();
                    ready(answer(&state.borrow(), &counts, path, Instant::now()))
                };
                tokio::spawn(http::serve(listener, answer));
                false
            }
            Err(error) => {
                failed.push((*at, error));
                true
            }
        });
        // A node may be without the family that nobody has asked for by name.
        failed.retain(|(at, error)| *at == address || !http::is_no_family(error));
        notices.post(ORIGIN, problem(&failed).into_iter().collect());
        if missing.is_empty() {
            return;
        }
        sleep(RETRY).await;
    }
}

/// Where the same port of the other family is told too.
fn other_family(address: SocketAddr) -> Option<SocketAddr> {
    let other = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Family::V6.unspecified(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Family::V4.unspecified(),
        _ => return None,
    };
    Some(SocketAddr::new(other, address.port()))
}

fn problem(failed: &[(SocketAddr, io::Error)]) -> Option<Problem> {
    let (_, error) = failed.first()?;
    let at: Vec<String> = failed.iter().map(|(at, _)| at.to_string()).collect();
    Some(Problem::new(
        "--healthz-bind-address",
        format!(
            "/healthz cannot be served on {}: {error}; Services are not affected, but load balancers \
             that ask there do not hear of kproxy",
            at.join(" and ")
        ),
        "stop what listens there (kube-proxy does, while it runs), or give another address",
    ))
}

/// The body, with kube-proxy's names (HZ-02).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, OfFamily>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfFamily {
    last_updated: String,
    healthy: bool,
}

/// HZ-01 to HZ-09.
fn answer(state: &State, counts: &Health, path: &str, now: Instant) -> Answer {
    let question = match path {
        "/healthz" => Question::Healthz,
        "/livez" => Question::Livez,
        _ => return http::not_found(),
    };
    let healthy = state.is_healthy(now);
    let good = healthy && (question == Question::Livez || state.node_eligible);
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match question {
        Question::Healthz => counts.told_healthz(status.as_str()),
        Question::Livez => counts.told_livez(status.as_str()),
    }
    let current_time = Timestamp::now().to_string();
    let last_synced = state.last_synced.map(|at| at.to_string());
    // One pass serves both families.
    let of_family = last_synced.as_ref().into_iter().flat_map(|at| {
        ["IPv4", "IPv6"].map(|family| (family, OfFamily { last_updated: at.clone(), healthy }))
    });
    let body = Body {
        status: of_family.collect(),
        last_updated: match last_synced {
            _ if good => current_time.clone(),
            Some(at) => at,
            None => NEVER.to_owned(),
        },
        current_time,
        node_eligible: (question == Question::Healthz).then_some(state.node_eligible),
        healthy,
    };
    // Strings and booleans: nothing here can fail.
    http::answer(status, "application/json", serde_json::to_vec(&body).unwrap_or_default())
}

#[cfg(test)]
mod tests;
