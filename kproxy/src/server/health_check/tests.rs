use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::num::NonZeroU16;

use super::*;

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// A server with one Service.
struct Served {
    state: watch::Sender<State>,
    notices: Noticeboard,
}

impl Served {
    fn start(check: HealthCheck, listen: impl IntoIterator<Item = IpAddr>) -> Self {
        let state = State { listen: listen.into_iter().collect(), ..State::default() };
        let served = Self::of(watch::Sender::new(state));
        served.set(Some(check));
        served
    }

    fn of(state: watch::Sender<State>) -> Self {
        let notices = Noticeboard::default();
        tokio::spawn(serve(state.subscribe(), notices.clone()));
        Self { state, notices }
    }

    fn set(&self, check: Option<HealthCheck>) {
        let checks = check.map(|check| (name(), check)).into_iter().collect();
        self.state.send_modify(|state| state.health_checks = checks);
    }
}

fn name() -> ServiceName {
    ServiceName::new("default", "web")
}

fn check(port: u16, v4: usize, v6: usize) -> HealthCheck {
    let endpoints = [(Family::V4, v4), (Family::V6, v6)].into();
    HealthCheck { port: NonZeroU16::new(port).unwrap(), endpoints }
}

/// A port that nobody uses now.
fn free_port() -> u16 {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port()
}

/// The whole answer; `None` when nobody listens, or no longer.
fn ask(ip: IpAddr, port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect((ip, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: node\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

async fn get(ip: IpAddr, port: u16) -> Option<String> {
    tokio::task::spawn_blocking(move || ask(ip, port, "GET /")).await.unwrap()
}

/// Waits for an answer with this status, or for none.
async fn until(ip: IpAddr, port: u16, status: Option<&str>) -> Option<String> {
    for _ in 0..3000 {
        let answer = get(ip, port).await;
        let found = answer.as_deref().and_then(|text| text.split(' ').nth(1));
        if found == status {
            return answer;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{ip} never answers {status:?}: {:?}", get(ip, port).await);
}

#[tokio::test]
async fn hcn_02_to_05_any_request_gets_the_same_json() {
    let port = free_port();
    let served = Served::start(check(port, 2, 0), [LOOPBACK[0]]);
    let good = until(LOOPBACK[0], port, Some("200")).await.unwrap();
    let (head, body) = good.split_once("\r\n\r\n").unwrap();
    for line in [
        "Content-Type: application/json",
        "X-Content-Type-Options: nosniff",
        "X-Load-Balancing-Endpoint-Weight: 2",
    ] {
        assert!(head.lines().any(|other| other == line), "{line} in {head}");
    }
    let wanted = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\
                  \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
    assert_eq!(body, wanted);
    for request in ["POST /healthz", "DELETE /a/b?c", "OPTIONS *"] {
        let ask = move || ask(LOOPBACK[0], port, request);
        let other = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
        assert!(other.starts_with("HTTP/1.1 200") && other.ends_with(wanted), "{request}: {other}");
    }
    // Endpoints go: the weight is told also with 503, from the same listener.
    served.set(Some(check(port, 0, 0)));
    let bad = until(LOOPBACK[0], port, Some("503")).await.unwrap();
    assert!(bad.contains("X-Load-Balancing-Endpoint-Weight: 0"), "{bad}");
    assert!(bad.contains("\"localEndpoints\": 0"), "{bad}");
}

#[tokio::test]
async fn hcn_03_an_ill_proxy_says_503() {
    let port = free_port();
    let served = Served::start(check(port, 1, 1), [LOOPBACK[0]]);
    until(LOOPBACK[0], port, Some("200")).await;
    let long_ago = Instant::now().checked_sub(Duration::from_secs(61)).unwrap();
    served.state.send_modify(|state| state.behind_since = Some(long_ago));
    let ill = until(LOOPBACK[0], port, Some("503")).await.unwrap();
    assert!(ill.contains("\"serviceProxyHealthy\": false"), "{ill}");
}

#[tokio::test]
async fn hcn_08_hcn_12_families_have_listeners_of_their_own_which_open_and_close() {
    let (port, other) = (free_port(), free_port());
    let unspecified = [Family::V4.unspecified(), Family::V6.unspecified()];
    let served = Served::start(check(port, 1, 0), unspecified);
    until(LOOPBACK[0], port, Some("200")).await;
    until(LOOPBACK[1], port, Some("503")).await;
    served.set(Some(check(other, 0, 3)));
    until(LOOPBACK[0], other, Some("503")).await;
    until(LOOPBACK[1], other, Some("200")).await;
    until(LOOPBACK[0], port, None).await;
    served.set(None);
    until(LOOPBACK[1], other, None).await;
    // NP-09: one address instead of all, while the Service stays.
    served.set(Some(check(port, 1, 1)));
    until(LOOPBACK[1], port, Some("200")).await;
    served.state.send_modify(|state| state.listen = [LOOPBACK[0]].into());
    until(LOOPBACK[1], port, None).await;
    until(LOOPBACK[0], port, Some("200")).await;
}

#[tokio::test]
async fn hcn_12_a_node_answers_on_both_families_whatever_the_service_has() {
    let port = free_port();
    let endpoints = [(Family::V4, 3)].into();
    let v4_only = HealthCheck { port: NonZeroU16::new(port).unwrap(), endpoints };
    let unspecified = [Family::V4.unspecified(), Family::V6.unspecified()];
    let served = Served::start(v4_only, unspecified);
    for loopback in LOOPBACK {
        let answer = until(loopback, port, Some("200")).await.unwrap();
        assert!(answer.contains("\"localEndpoints\": 3"), "{answer}");
    }
    assert!(served.notices.posted().is_empty());
    // A node without IPv6 is no problem of a Service without it.
    let failed = |number| {
        ((name(), SocketAddr::new(unspecified[1], port)), io::Error::from_raw_os_error(number))
    };
    let state = served.state.borrow();
    assert!(!matters(&state, &failed(libc::EADDRNOTAVAIL)));
    assert!(matters(&state, &failed(libc::EADDRINUSE)));
}

#[tokio::test]
async fn hcn_09_a_port_that_is_taken_is_a_problem_until_it_is_free() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let served = Served::start(check(port, 1, 1), [LOOPBACK[0]]);
    let told = served.notices.wait_for(|problems| !problems.is_empty()).await;
    assert_eq!(told[0].object, "Service default/web");
    assert!(told[0].what.contains(&format!("127.0.0.1:{port}")), "{}", told[0]);
    drop(taken);
    served.notices.wait_for(<[Problem]>::is_empty).await;
    until(LOOPBACK[0], port, Some("200")).await;
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let port = free_port();
    let _served = Served::start(check(port, 1, 1), [LOOPBACK[0]]);
    until(LOOPBACK[0], port, Some("200")).await;
    let dawdle = move || -> Vec<_> {
        (0..200).map(|_| TcpStream::connect((LOOPBACK[0], port)).unwrap()).collect()
    };
    let dawdlers = tokio::task::spawn_blocking(dawdle).await.unwrap();
    until(LOOPBACK[0], port, Some("200")).await;
    // The oldest of them have been closed.
    let oldest = tokio::task::spawn_blocking(move || {
        let mut oldest = dawdlers.first().unwrap();
        oldest.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        oldest.read(&mut [0; 1])
    });
    assert!(matches!(oldest.await.unwrap(), Ok(0)), "the connection is over");
}
