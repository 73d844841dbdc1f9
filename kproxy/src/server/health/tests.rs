use std::net::TcpListener;

use http_body_util::BodyExt as _;
use serde_json::Value;

use super::*;
use crate::metrics::Metrics;

/// Status and body of an answer.
async fn told(state: &State, counts: &Health, path: &str) -> (u16, Value) {
    let answer = answer(state, counts, path, Instant::now());
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

fn late() -> Option<Instant> {
    Instant::now().checked_sub(Duration::from_secs(61))
}

#[tokio::test]
async fn hz_01_to_09_who_asks_hears_of_kproxy_and_of_the_node() {
    let metrics = Metrics::new().unwrap();
    let counts = &metrics.health;
    // Not in step yet: livez is good, as nothing has waited for long.
    let new = State::default();
    let (status, body) = told(&new, counts, "/healthz").await;
    assert_eq!((status, &body["nodeEligible"]), (503, &Value::Bool(false)));
    assert_eq!((&body["lastUpdated"], body.get("status")), (&Value::from(NEVER), None));
    assert_eq!(told(&new, counts, "/livez").await.0, 200);

    let synced: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let good = State { last_synced: Some(synced), node_eligible: true, ..State::default() };
    let (status, body) = told(&good, counts, "/healthz").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["lastUpdated"], body["currentTime"], "HZ-08");
    assert_eq!(body["status"]["IPv6"]["lastUpdated"], "2026-01-02T03:04:05Z");
    let leaving = State { node_eligible: false, ..good.clone() };
    let (status, body) = told(&leaving, counts, "/healthz").await;
    assert_eq!((status, &body["healthy"]), (503, &Value::Bool(true)), "HZ-06");
    assert_eq!(body["lastUpdated"], "2026-01-02T03:04:05Z", "HZ-08");
    let (status, body) = told(&leaving, counts, "/livez").await;
    assert_eq!((status, body.get("nodeEligible")), (200, None), "HZ-07");
    let late = State { behind_since: late(), ..good };
    for path in ["/healthz", "/livez"] {
        let (status, body) = told(&late, counts, path).await;
        assert_eq!((status, &body["healthy"]), (503, &Value::Bool(false)), "{path}: HZ-03");
        assert_eq!(body["status"]["IPv4"]["healthy"], false, "{path}");
    }
    for path in ["/", "/healthz/", "/readyz"] {
        assert_eq!(told(&late, counts, path).await.0, 404, "{path}");
    }
    for (series, count) in [
        ("kubeproxy_proxy_healthz_total{code=\"200\"}", 1.0),
        ("kubeproxy_proxy_healthz_total{code=\"503\"}", 3.0),
        ("kubeproxy_proxy_livez_total{code=\"200\"}", 2.0),
        ("kubeproxy_proxy_livez_total{code=\"503\"}", 1.0),
    ] {
        assert_eq!(crate::metrics::tests::value(&metrics, series), Some(count), "{series}");
    }
}

#[tokio::test]
async fn hz_10_a_port_that_is_taken_is_told_and_tried_again() {
    // As kube-proxy has it: both families.
    let taken = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, taken.local_addr().unwrap().port()));
    let (state, notices) = (watch::Sender::<State>::default(), Noticeboard::default());
    let metrics = Metrics::new().unwrap();
    tokio::spawn(serve(address, state.subscribe(), metrics.health, notices.clone()));
    let told = notices.wait_for(|problems| !problems.is_empty()).await;
    assert_eq!(told[0].object, "--healthz-bind-address");
    for at in [address, other_family(address).unwrap()] {
        assert!(told[0].what.contains(&at.to_string()), "{told:?}");
    }
    drop(taken);
    notices.wait_for(<[Problem]>::is_empty).await;
    for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        tokio::net::TcpStream::connect((loopback, address.port())).await.unwrap();
    }
}
