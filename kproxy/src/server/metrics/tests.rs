use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use super::*;

/// A server on a port of loopback that was free a moment ago.
fn start() -> (SocketAddr, TcpListener, Noticeboard) {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let notices = Noticeboard::default();
    let nowhere = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let config = Bytes::from_static(b"{}");
    tokio::spawn(serve(address, metrics, nowhere.path().into(), config, notices.clone()));
    (address, taken, notices)
}

async fn ask(address: SocketAddr, request: &'static str) -> String {
    let ask = move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "{request} HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    // The server may not listen yet; and a program that another test is just starting has a copy of the listener
    // that was there before, for a moment, and takes the connection along.
    let ask = move || {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match ask() {
                Err(error) if Instant::now() > until => panic!("{request}: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
                Ok(text) => return text,
            }
        }
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_tried_again() {
    let (address, taken, notices) = start();
    let told = notices.wait_for(|problems| !problems.is_empty()).await;
    assert!(told[0].what.contains(&address.to_string()), "{told:?}");
    assert_eq!(told[0].object, "--metrics-bind-address");
    drop(taken);
    notices.wait_for(<[Problem]>::is_empty).await;
    let good = ask(address, "GET /metrics").await;
    let (head, body) = good.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    // Without any maps the daemon's own numbers are told.
    assert!(
        body.contains("# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram"),
        "{body}"
    );
    assert!(body.contains("kproxy_build_info{"), "{body}");
    for (request, status) in [
        ("GET /", "404"),
        ("GET /metrics/", "404"),
        ("GET /debug/pprof", "404"),
        ("POST /metrics", "405"),
        ("HEAD /metrics", "200"),
        ("GET /healthz/x", "404"),
        ("GET /metrics?name[]=x", "200"),
    ] {
        let answer = ask(address, request).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}: {answer}");
    }
}

#[tokio::test]
async fn what_kube_proxy_tells_beside_the_numbers_is_told() {
    let (address, taken, notices) = start();
    drop(taken);
    notices.wait_for(<[Problem]>::is_empty).await;
    for (path, kind, wanted) in [
        ("GET /healthz", "text/plain; charset=utf-8", "ok"),
        ("GET /healthz/ping", "text/plain; charset=utf-8", "ok"),
        ("GET /proxyMode", "text/plain; charset=utf-8", "nftables"),
        ("GET /configz", "application/json", "{}"),
    ] {
        let answer = ask(address, path).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert!(head.contains(&format!("Content-Type: {kind}")), "{path}: {head}");
        assert!(head.contains("X-Content-Type-Options: nosniff"), "{path}: {head}");
        assert_eq!(body, wanted, "{path}");
    }
}

#[test]
fn what_was_read_a_moment_ago_is_told_again() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let nowhere = tempfile::tempdir().unwrap();
    let bpffs_root = nowhere.path().into();
    let scraper = Scraper { metrics: Arc::clone(&metrics), bpffs_root, last: Mutex::default() };
    let first = scraper.scrape().unwrap();
    let later = Instant::now().checked_add(Duration::from_secs(60));
    scraper.last.lock().unwrap().good_until = later;
    metrics.control.set_problems(7);
    assert_eq!(scraper.scrape().unwrap(), first);
    scraper.last.lock().unwrap().good_until = None;
    assert_ne!(scraper.scrape().unwrap(), first);
}
