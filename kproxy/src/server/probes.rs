//! Answers the probes of the pod that kproxy runs in, on a socket in the run folder: a port would be
//! kube-proxy's while that runs beside, and the probe would ask it.
//!
//! `POST /repair` has the loop look at the kernel again (`kproxy verify --repair`).
//!
//! `/readyz`: the data path follows the cluster. `/livez`: the loop turns; whether it gets anything to do
//! is the API server's affair, and a restart would not help.

use std::path::{Path, PathBuf};
use std::{fs, io};

use hyper::{Method, StatusCode};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::http::{self, Answer};
use crate::control::{Noticeboard, Repairs, State};
use crate::model::Problem;

/// Where its problem is posted.
const ORIGIN: &str = "probes";

/// Serves at `path`, where nobody else listens, until it is dropped.
pub(crate) async fn serve(
    path: PathBuf,
    state: watch::Receiver<State>,
    repairs: Repairs,
    notices: Noticeboard,
) {
    match listen(&path) {
        Ok(listener) => {
            let answer = move |request: hyper::Request<_>| {
                let repairs = (request.uri().path() == "/repair").then(|| repairs.clone());
                let answer = answer(&state.borrow(), request.uri().path(), Instant::now());
                let method = request.method().clone();
                async move {
                    match repairs {
                        Some(repairs) if method == Method::POST => repair(&repairs).await,
                        Some(_) => http::text(StatusCode::METHOD_NOT_ALLOWED, "to be sent by POST"),
                        None => answer,
                    }
                }
            };
            http::serve(listener, answer).await;
        }
        Err(error) => notices.post(ORIGIN, vec![problem(&path, &error)]),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

fn problem(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        path.display().to_string(),
        format!("cannot be listened on: {error}; kproxy status --ready and --live say no"),
        "give a --run-dir that can be written and has a short name (a socket's has 107 bytes)",
    )
}

/// Has everything looked at again.
async fn repair(repairs: &Repairs) -> Answer {
    match repairs.ask().await {
        Some(writes) => http::text(StatusCode::OK, format!("{writes} written")),
        None => http::text(StatusCode::SERVICE_UNAVAILABLE, "the daemon is not in step yet"),
    }
}

fn answer(state: &State, path: &str, now: Instant) -> Answer {
    let wrong = match path {
        "/livez" => None,
        "/readyz" if state.last_synced.is_none() => {
            Some("the first lists of Services and endpoints are not in the maps yet")
        }
        "/readyz" if !state.is_healthy(now) => Some("changes have waited for a minute"),
        "/readyz" => None,
        _ => return http::not_found(),
    };
    match wrong {
        None => http::text(StatusCode::OK, "ok"),
        Some(wrong) => http::text(StatusCode::SERVICE_UNAVAILABLE, wrong),
    }
}

#[cfg(test)]
mod tests;
