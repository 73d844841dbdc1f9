//! Serves `/metrics`, and what kube-proxy tells beside them at its `--metrics-bind-address`: `/healthz`
//! (that somebody answers), `/proxyMode` and `/configz`.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode, header};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::http::{self, Answer};
use crate::control::Noticeboard;
use crate::dataplane::read::Pins;
use crate::errors::with_causes;
use crate::metrics::Metrics;
use crate::model::Problem;
use crate::timing;

/// Time between two tries to listen (as kube-proxy does).
const RETRY: Duration = Duration::from_secs(5);
/// Where its problem is posted.
const ORIGIN: &str = "metrics";
/// The text format of Prometheus.
const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What tools that ask for kube-proxy's mode are to take for granted. Those that ask know its modes only:
/// Kubernetes' own suite looks for iptables' counters where it hears `iptables`, others for dummy
/// devices and ARP settings where it is `ipvs`. What is left is what `nftables` does: no rules of
/// iptables, a ClusterIP refuses unknown ports.
pub(crate) const MODE: &str = "nftables";

/// Serves the numbers, and `config` as `/configz`, at `address` for ever. As long as it cannot listen there, that is a problem that
/// is posted to `notices`, and tried again.
pub(crate) async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    bpffs_root: PathBuf,
    config: Bytes,
    notices: Noticeboard,
) {
    let scraper = Scraper { metrics, bpffs_root, last: Mutex::default() };
    let told = Arc::new(Told { scraper, config });
    let listener = loop {
        match http::listen(address.ip(), address.port()) {
            Ok(listener) => break listener,
            Err(error) => notices.post(ORIGIN, vec![problem(address, &error)]),
        }
        sleep(RETRY).await;
    };
    info!(%address, "metrics are served");
    notices.post(ORIGIN, Vec::new());
    http::serve(listener, move |request| answer(Arc::clone(&told), request)).await;
}

fn problem(address: SocketAddr, error: &io::Error) -> Problem {
    Problem::new(
        "--metrics-bind-address",
        format!("metrics cannot be served on {address}: {error}; Services are not affected"),
        "stop what listens there (kube-proxy does, while it runs), or give another address",
    )
}

/// What there is to tell.
struct Told {
    scraper: Scraper,
    config: Bytes,
}

async fn answer(told: Arc<Told>, request: Request<Incoming>) -> Answer {
    match request.uri().path() {
        "/metrics" if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            http::text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n")
        }
        "/metrics" => numbers(told).await,
        "/healthz" | "/healthz/ping" => http::text(StatusCode::OK, "ok"),
        "/proxyMode" => http::text(StatusCode::OK, MODE),
        "/configz" => http::answer(StatusCode::OK, "application/json", told.config.clone()),
        _ => http::not_found(),
    }
}

async fn numbers(told: Arc<Told>) -> Answer {
    // Maps are read: not on the thread of the control loop.
    match tokio::task::spawn_blocking(move || told.scraper.scrape()).await {
        Ok(Some(body)) => {
            let mut answer = Response::new(Full::new(body));
            answer.headers_mut().insert(header::CONTENT_TYPE, FORMAT);
            answer
        }
        // What is wrong is in the log; it is no business of whoever asks.
        _ => http::text(StatusCode::INTERNAL_SERVER_ERROR, "500 see the log of kproxy\n"),
    }
}

/// Reads the numbers, one request at a time.
struct Scraper {
    metrics: Arc<Metrics>,
    bpffs_root: PathBuf,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    pins: Option<Pins>,
    text: Bytes,
    good_until: Option<Instant>,
}

impl Scraper {
    fn scrape(&self) -> Option<Bytes> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        if last.good_until.is_some_and(|until| start < until) {
            return Some(last.text.clone());
        }
        if let Err(error) = self.read_maps(&mut last) {
            // The daemon's own numbers are good all the same.
            debug!(error = with_causes(error.as_ref()), "cannot read the maps for the metrics");
            last.pins = None;
        }
        match self.metrics.text() {
            Ok(text) => last.text = text.into(),
            Err(error) => {
                warn!(%error, "cannot write the metrics");
                return None;
            }
        }
        // However often somebody asks.
        last.good_until = Some(start + timing::rest_after(start.elapsed()));
        Some(last.text.clone())
    }

    fn read_maps(&self, last: &mut Last) -> Result<(), Box<dyn Error>> {
        let pins = match last.pins.take() {
            Some(pins) => pins,
            None => Pins::open(&self.bpffs_root)?,
        };
        let pins = last.pins.insert(pins);
        self.metrics.traffic.set(pins.counters()?, pins.drops()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
